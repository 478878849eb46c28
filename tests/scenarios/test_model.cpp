#include "scenarios/model.hpp"

#include <fmt/format.h>

#include "tests/catch.hpp"
#include "tests/scenarios/messages.hpp"
#include "tests/scratch_folder.hpp"

namespace orrery {
namespace {

const std::filesystem::path data = std::filesystem::path(ORRERY_SOURCE_DIR) / "tests/scenarios/data";

const std::string good_config = R"({
  "hidden_act": "silu",
  "hidden_size": 1024,
  "intermediate_size": 4096,
  "num_attention_heads": 16,
  "num_hidden_layers": 4,
  "num_key_value_heads": 8,
  "tie_word_embeddings": false,
  "vocab_size": 1000
})";

const std::string good_toml = R"(kind = "model"
description = "d"
source = "s"
layers = 4
hidden = 1024
heads = 16
kv_heads = 8
head_dim = 64
ffn_hidden = 4096
gated_ffn = true
vocabulary = 1000
tied_embeddings = false
learned_positions = 0
)";

/// What loading this text as a file of that name complains about, without the folder.
std::string complaint(const std::string& text, const std::string& name) {
  const ScratchFolder folder;
  const auto file = folder.write(name, text);
  const std::string message = message_of([&] { load_model(file.string()); });
  const std::string prefix = folder.path().string() + "/";
  return message.starts_with(prefix) ? message.substr(prefix.size()) : message;
}
std::string json_complaint(const std::string& text) {
  return complaint(text, "m.json");
}
std::string toml_complaint(const std::string& text) {
  return complaint(text, "m.toml");
}

TEST_CASE(
    "every model file that comes with the program loads, and its parameters are within 1 % of the published count") {
  int published = 0;
  for (const std::string& name : known_names("models")) {
    INFO(name);
    const ModelShape model = load_model(name);
    CHECK(model.name == name);
    CHECK_FALSE(model.description.empty());
    CHECK_FALSE(model.source.empty());
    if (!model.published_parameters) continue;
    ++published;
    CHECK_THAT(model.parameters(), WithinRel(*model.published_parameters, 0.01));
  }
  CHECK(published >= 6);
}

TEST_CASE("the parameters of the LLaMA models are the published ones") {
  CHECK_THAT(load_model("llama2_7b").parameters(), WithinRel(6.738e9, 0.0001));
  CHECK_THAT(load_model("llama2_13b").parameters(), WithinRel(13.016e9, 0.0001));
  CHECK_THAT(load_model("llama2_70b").parameters(), WithinRel(68.977e9, 0.0001));
  CHECK_THAT(load_model("llama3_8b").parameters(), WithinRel(8.030e9, 0.0001));
  CHECK_THAT(load_model("llama3_70b").parameters(), WithinRel(70.554e9, 0.0001));
  CHECK_THAT(load_model("llama3_405b").parameters(), WithinRel(405.85e9, 0.0001));
}

TEST_CASE("parameters are embeddings, four projections, the FFN and two norms a layer") {
  const ModelShape m = load_model("llama2_7b");
  const double h = 4096, f = 11008, v = 32000, layers = 32;
  CHECK(m.attention_parameters() == 4 * h * h);
  CHECK(m.ffn_parameters() == 3 * h * f);
  CHECK(m.embedding_parameters() == 2 * v * h);
  CHECK(m.parameters() == 2 * v * h + layers * (4 * h * h + 3 * h * f + 2 * h) + h);
}

TEST_CASE("grouped-query attention shrinks only the projections of keys and values") {
  const double h = 8192, d = 128, q = 64, kv = 8;
  CHECK(load_model("llama2_70b").attention_parameters() == 2 * h * q * d + 2 * h * kv * d);
}

TEST_CASE("the models of the Ring Attention paper have its hidden sizes and fit their names") {
  struct Row {
    const char* name;
    std::int64_t hidden;
    double billions;
    double tolerance;
  };
  // 3B is OpenLLaMA's, which has 3.43e9.
  for (const Row& row : {Row{"ring_paper_3b", 3200, 3, 0.15}, Row{"ring_paper_7b", 4096, 7, 0.04},
                         Row{"ring_paper_13b", 5120, 13, 0.02}, Row{"ring_paper_30b", 7168, 30, 0.02},
                         Row{"ring_paper_33b", 7168, 33, 0.02}, Row{"ring_paper_65b", 8192, 65, 0.02},
                         Row{"ring_paper_175b", 12288, 175, 0.01}, Row{"ring_paper_1tb", 36864, 1000, 0.01}}) {
    INFO(row.name);
    const ModelShape model = load_model(row.name);
    CHECK(model.hidden == row.hidden);
    CHECK(model.heads * model.head_dim == model.hidden);
    CHECK(model.kv_heads == model.heads);
    CHECK_THAT(model.parameters() / 1e9, WithinRel(row.billions, row.tolerance));
  }
}

TEST_CASE("LWM has the shape of LLaMA-2 7B") {
  CHECK(load_model("lwm_7b").parameters() == load_model("llama2_7b").parameters());
}

TEST_CASE("a Hugging Face config gives the same shape as the file made from it") {
  const ModelShape read = load_model((data / "llama-2-7b/config.json").string());
  const ModelShape ours = load_model("llama2_7b");
  CHECK(read.name == "llama-2-7b");
  CHECK(read.kv_heads == read.heads);
  CHECK(read.head_dim == 4096 / 32);
  CHECK(read.parameters() == ours.parameters());
}

TEST_CASE("a GPT-2 config is read by its own names: tied, learned positions, an FFN of four times the width") {
  const ModelShape m = load_model((data / "gpt2/config.json").string());
  const double h = 768;
  CHECK(m.ffn_hidden == 4 * 768);
  CHECK_FALSE(m.gated_ffn);
  CHECK(m.parameters() == h * (50257 + 1024) + 12 * (4 * h * h + 2 * h * 4 * h + 2 * h) + h);
  CHECK_THAT(m.parameters(), WithinRel(124.44e6, 0.001));
}

TEST_CASE("a nested text_config comes before what is around it, which fills what it lacks") {
  const ModelShape m = load_model((data / "nested/config.json").string());
  CHECK(m.hidden == 2560);
  CHECK(m.head_dim == 256);
  CHECK(m.heads == 8);
  CHECK(m.kv_heads == 4);
  CHECK(m.gated_ffn);
  CHECK(m.tied_embeddings);
}

TEST_CASE("what a config leaves out and the class of its model type documents is taken from there, and said") {
  const std::string sizes =
      "\"hidden_size\": 1024, \"intermediate_size\": 4096, \"num_attention_heads\": 32, \"num_hidden_layers\": 4, "
      "\"vocab_size\": 1000";
  const auto load = [&](const char* type, const std::string& more = "") {
    const ScratchFolder folder;
    const auto file = folder.write("m.json", fmt::format("{{\"model_type\": \"{}\", {}{}}}", type, sizes, more));
    return load_model(file.string());
  };
  const ModelShape llama = load("llama");
  CHECK(llama.gated_ffn);
  CHECK_FALSE(llama.tied_embeddings);
  CHECK(llama.kv_heads == 32);
  CHECK(llama.head_dim == 1024 / 32);
  REQUIRE(llama.assumed.size() == 3);
  CHECK(llama.assumed[2].name == "num_key_value_heads");
  CHECK(llama.assumed[2].value == "32");
  CHECK(load("llama", ", \"quantization_config\": {}").assumed.back().value == "not used");
  CHECK(llama.assumed[0].name == "hidden_act");
  CHECK(llama.assumed[0].value == "silu");
  CHECK(llama.assumed[1].name == "tie_word_embeddings");
  CHECK(llama.assumed[1].value == "false");
  CHECK_THAT(llama.assumed[1].source, ContainsSubstring("LlamaConfig"));
  CHECK(load("mistral").kv_heads == 8);
  CHECK(load("mistral", ", \"num_key_value_heads\": null").kv_heads == 32);  // null: as many as heads
  CHECK(load("qwen3").head_dim == 128);
  CHECK(load("gemma2").tied_embeddings);
  CHECK(load("gemma2").gated_ffn);
  CHECK(load("gemma2").head_dim == 256);
  // What the file says is not touched.
  const ModelShape stated = load("gemma2",
                                 ", \"head_dim\": 64, \"num_key_value_heads\": 16, \"sliding_window\": null, "
                                 "\"hidden_activation\": "
                                 "\"silu\", \"tie_word_embeddings\": false");
  CHECK(stated.head_dim == 64);
  CHECK(stated.kv_heads == 16);
  CHECK_FALSE(stated.tied_embeddings);
  CHECK(stated.assumed.empty());
}

TEST_CASE("sliding windows of a config.json are the pattern of its layers, as its class has them") {
  const std::string sizes =
      "\"hidden_size\": 1024, \"intermediate_size\": 4096, \"num_attention_heads\": 32, \"num_hidden_layers\": 6, "
      "\"num_key_value_heads\": 8, \"head_dim\": 32, \"hidden_act\": \"silu\", \"tie_word_embeddings\": false, "
      "\"vocab_size\": 1000, ";
  const auto load = [&](const std::string& type, const std::string& fields) {
    const ScratchFolder folder;
    const std::string text = fmt::format("{{\"model_type\": \"{}\", {}{}}}", type, sizes, fields);
    return load_model(folder.write("m.json", text).string());
  };
  // The layers with a window of 100 tokens, the token itself and 99 before it; the others are full.
  const auto windowed = [&](const std::string& type, const std::string& fields) {
    const ModelShape model = load(type, fields);
    std::string layers;
    if (model.attention.empty()) return std::string("ffffff");
    const Pattern pattern(model.attention, 6);
    for (int layer = 0; layer < 6; ++layer) {
      const int c = pattern.class_of_layer(layer);
      const Mask mask = pattern.mask(c, 1000, true, {});
      CHECK(mask.keys_of_last(TokenSet({{0, 1000, 1}})) == (pattern.is_full(c) ? 1000 : 100));
      layers += pattern.is_full(c) ? 'f' : 'w';
    }
    return layers;
  };
  const std::string w = "\"sliding_window\": 100";
  CHECK(windowed("mistral", w) == "wwwwww");
  CHECK(windowed("mistral", "\"sliding_window\": null") == "ffffff");
  CHECK(windowed("mystery", w) == "wwwwww");
  CHECK(windowed("phi3", "\"x\": 1") == "ffffff");
  CHECK(windowed("gemma2", w) == "wfwfwf");
  CHECK(windowed("gemma3_text", w) == "wwwwwf");
  CHECK(windowed("gemma3_text", w + ", \"sliding_window_pattern\": 3") == "wwfwwf");
  CHECK(windowed("mystery", w + ", \"sliding_window_pattern\": \"LGL\"") == "wfwwfw");
  CHECK(windowed("qwen2", w) == "ffffff");
  CHECK(windowed("qwen2", w + ", \"use_sliding_window\": false, \"max_window_layers\": 2") == "ffffff");
  CHECK(windowed("qwen2", w + ", \"use_sliding_window\": true, \"max_window_layers\": 2") == "ffwwww");
  CHECK(windowed("qwen2", w + ", \"use_sliding_window\": true, \"max_window_layers\": 6") == "ffffff");
  const std::string types =
      ", \"layer_types\": [\"full_attention\", \"sliding_attention\", \"sliding_attention\", \"full_attention\", "
      "\"full_attention\", \"sliding_attention\"]";
  CHECK(windowed("qwen3", w + ", \"use_sliding_window\": true" + types) == "fwwffw");
  CHECK(windowed("gemma2", w + types) == "fwwffw");
  // Llama has none, whatever its file says, and that is said.
  const ModelShape llama = load("llama", w);
  CHECK(llama.attention.empty());
  REQUIRE(llama.assumed.size() == 1);
  CHECK(llama.assumed[0].name == "sliding_window");
  CHECK(llama.assumed[0].value == "not used");
  // So is whether a window is used, and one that is missing.
  CHECK(load("mistral", "\"x\": 1").attention[0].left == 4096 - 1);
  CHECK(load("mistral", "\"x\": 1").assumed[0].value == "4096");
  for (const bool own : {true, false}) {
    const auto all = load("mistral", w).assumptions(own);
    REQUIRE(all.size() == 1);
    CHECK(all[0].value == "window(left 99)");
    CHECK((all[0].source.find("not used") == std::string::npos) == own);
  }
  const auto complaint = [&](const std::string& fields) {
    try {
      load("qwen3", "\"use_sliding_window\": true, " + fields);
    } catch (const InputError& error) {
      return std::string(error.what());
    }
    return std::string("no error");
  };
  CHECK_THAT(complaint(w + ", \"layer_types\": [\"sliding_attention\"]"), ContainsSubstring("each of 6 layers"));
  CHECK_THAT(complaint("\"sliding_window\": null" + types), ContainsSubstring("add sliding_window"));
  CHECK_THAT(complaint(w + ", \"sliding_window_pattern\": \"XY\""), ContainsSubstring("letters L and G"));
  CHECK_THAT(complaint(w + ", \"layer_types\": [\"chunked_attention\", \"full_attention\", \"full_attention\", "
                           "\"full_attention\", \"full_attention\", \"full_attention\"]"),
             ContainsSubstring("chunked_attention"));
}

TEST_CASE("a config.json is named like its folder, however its path is written") {
  const ScratchFolder folder;
  folder.write("my_model/config.json", good_config);
  for (const char* path : {"my_model/config.json", "./my_model/config.json", "my_model/./config.json"}) {
    CHECK(load_model((folder.path() / path).string()).name == "my_model");
  }
}

TEST_CASE("sizes have no default, and no model type that is not known has any") {
  const std::string llama = replaced(good_config, "{", "{\"model_type\": \"llama\",");
  CHECK(json_complaint(replaced(llama, "\"hidden_size\": 1024,", "")) ==
        "m.json: missing hidden_size (it has no default), add it or use the config.json of a decoder model");
  CHECK_THAT(
      json_complaint(replaced(replaced(llama, "\"llama\"", "\"mystery\""), "\"tie_word_embeddings\": false,", "")),
      ContainsSubstring("missing tie_word_embeddings (it has no default)"));
}

TEST_CASE("all missing fields of a config are named at once") {
  CHECK(json_complaint("{\"hidden_size\": 64}") ==
        "m.json: missing num_hidden_layers, num_attention_heads, intermediate_size, vocab_size, hidden_act, "
        "tie_word_embeddings (they have no default), add them or use the config.json of a decoder model");
}

TEST_CASE("a config whose fields do not fit together is refused") {
  CHECK(json_complaint(good_config) == "no error");
  CHECK(json_complaint(replaced(good_config, "\"num_key_value_heads\": 8", "\"num_key_value_heads\": 7")) ==
        "m.json: num_attention_heads = 16 is not divisible by num_key_value_heads = 7 (each key head serves as many "
        "query "
        "heads), correct one of them");
  CHECK(json_complaint(replaced(good_config, "1024", "1000")) ==
        "m.json: hidden_size = 1000 is not divisible by num_attention_heads = 16 (and there is no head_dim), add "
        "head_dim");
  CHECK(json_complaint(replaced(good_config, "\"hidden_size\": 1024", "\"hidden_size\": 1000, \"head_dim\": 64")) ==
        "no error");
}

TEST_CASE("a config with a value of the wrong kind is refused") {
  for (const char* value : {"0", "-4", "1.5", "\"4\"", "[4]", "true", "18446744073709551615", "1e400"}) {
    INFO(value);
    CHECK_THAT(json_complaint(
                   replaced(good_config, "\"num_hidden_layers\": 4", fmt::format("\"num_hidden_layers\": {}", value))),
               ContainsSubstring("m.json:"));
  }
  CHECK(json_complaint(replaced(good_config, "\"num_hidden_layers\": 4", "\"num_hidden_layers\": 1.5")) ==
        "m.json: num_hidden_layers is 1.5, expected a whole number from 1 to 10000");
  CHECK_THAT(json_complaint(replaced(good_config, "false", "\"no\"")),
             ContainsSubstring("tie_word_embeddings is string, expected true or false"));
  CHECK_THAT(json_complaint(replaced(good_config, "\"silu\"", "3")),
             ContainsSubstring("hidden_act is number, expected a string"));
  CHECK_THAT(json_complaint(replaced(good_config, "silu", "mystery")), ContainsSubstring("hidden_act is \"mystery\""));
}

TEST_CASE("models that are not dense decoders with plain heads are refused with the reason") {
  const auto with = [](const char* field) {
    return json_complaint(replaced(good_config, "{", fmt::format("{{{},", field)));
  };
  CHECK_THAT(with("\"num_local_experts\": 8"),
             ContainsSubstring("m.json: this is a mixture of experts (num_local_experts = 8;"));
  CHECK_THAT(with("\"n_routed_experts\": 256"), ContainsSubstring("mixture of experts"));
  CHECK_THAT(with("\"ffn_config\": {\"moe_num_experts\": 16}"),
             ContainsSubstring("mixture of experts (moe_num_experts = 16;"));
  CHECK(with("\"num_experts\": 1") == "no error");
  CHECK_THAT(with("\"kv_lora_rank\": 512"), ContainsSubstring("multi-head latent attention (kv_lora_rank = 512;"));
  CHECK_THAT(with("\"is_encoder_decoder\": true"), ContainsSubstring("encoder-decoder"));
  CHECK(with("\"is_encoder_decoder\": false") == "no error");
  CHECK(with("\"num_local_experts\": null") == "no error");
}

TEST_CASE("models with layers of several kinds are refused, not taken for as many attention layers") {
  const auto with = [](const std::string& field) {
    return json_complaint(replaced(good_config, "{", fmt::format("{{{},", field)));
  };
  // Jamba, Falcon-H1, Qwen3-Next, Nemotron-H, RecurrentGemma, MiniMax-01, LFM2, Bamba, Nemotron-NAS, Llama 3.2 Vision.
  for (const std::string field :
       {"\"mamba_d_state\": 16", "\"ssm_state_size\": 128", "\"linear_num_key_heads\": 16",
        "\"hybrid_override_pattern\": \"M-M*\"", "\"block_types\": [\"recurrent\", \"attention\"]",
        "\"attn_type_list\": [0, 1]", "\"full_attn_idxs\": [2]", "\"attn_layer_indices\": [9]",
        "\"block_configs\": [{}]", "\"cross_attention_layers\": [3]",
        "\"layer_types\": [\"full_attention\", \"mamba\"]"}) {
    INFO(field);
    const std::string name = field.substr(1, field.find('"', 1) - 1);
    CHECK_THAT(with(field), ContainsSubstring("not all alike (it has " + name + ";"));
  }
  CHECK(with("\"sliding_window\": 8, \"layer_types\": [\"full_attention\", \"sliding_attention\", \"full_attention\", "
             "\"sliding_attention\"]") == "no error");
  CHECK(with("\"cross_attention_layers\": []") == "no error");
}

TEST_CASE("KV heads under the name of another family are not ignored") {
  const std::string without = replaced(good_config, "\"num_key_value_heads\": 8,", "");
  for (const char* name : {"num_kv_heads", "n_head_kv", "multi_query_group_num", "num_query_groups"}) {
    CHECK_THAT(json_complaint(replaced(without, "{", fmt::format("{{\"{}\": 8,", name))),
               ContainsSubstring(fmt::format("{} is there but num_key_value_heads is missing", name)));
    CHECK(json_complaint(replaced(good_config, "{", fmt::format("{{\"{}\": 8,", name))) == "no error");
  }
}

TEST_CASE("a field that a config gives twice is an error, in nested objects too") {
  CHECK(json_complaint(replaced(good_config, "{", "{\"hidden_size\": 2048,")) ==
        "m.json: hidden_size is given twice, remove one of the two");
  CHECK_THAT(json_complaint("{\"text_config\": {\"a\": 1, \"b\": {\"a\": 2}, \"a\": 3}}"),
             ContainsSubstring("a is given twice"));
}

TEST_CASE("malformed JSON reports line and column") {
  CHECK_THAT(json_complaint("{\n  \"a\": 1,\n  \"b\" 2\n}"), ContainsSubstring("m.json:3:7: this is not valid JSON"));
  CHECK_THAT(json_complaint("{\"a\": 1"), ContainsSubstring("m.json:1:8: this is not valid JSON"));
  CHECK_THAT(json_complaint("[1]"), ContainsSubstring("m.json: this is not a model config"));
  CHECK_THAT(json_complaint(std::string(1'000'000, '[')), ContainsSubstring("this is not valid JSON"));
}

TEST_CASE("a config file has the limits of every input file") {
  CHECK(json_complaint("") == "m.json: the file is empty");
  CHECK(json_complaint("\xff") == "m.json: this is not a JSON file (it holds bytes that are not UTF-8 text)");
  CHECK_THAT(json_complaint(std::string(largest_input_file + 1, ' ')), ContainsSubstring("larger than 8 MiB"));
}

TEST_CASE("no prefix of a config does anything but read or complain") {
  for (std::size_t length = 0; length < good_config.size(); ++length) {
    CHECK_THAT(json_complaint(good_config.substr(0, length)), ContainsSubstring("m.json"));
  }
}

TEST_CASE("a model file is strict") {
  CHECK(toml_complaint(good_toml) == "no error");
  CHECK(toml_complaint(replaced(good_toml, "kv_heads = 8", "kv_heads = 7")) ==
        "m.toml:7:12: heads = 16 is not divisible by kv_heads = 7 (each key head serves as many query heads), correct "
        "one of them");
  CHECK(toml_complaint(replaced(good_toml, "layers = 4", "layers = 0")) ==
        "m.toml:4:10: layers = 0 is not in 1 to 10000, write one of these");
  CHECK(toml_complaint(replaced(good_toml, "head_dim = 64\n", "")) ==
        "m.toml:1:1: missing key \"head_dim\" in the top level (it has no default), add it");
  CHECK_THAT(toml_complaint(good_toml + "rope_theta = 1e4\n"),
             ContainsSubstring("m.toml:14:1: unknown key \"rope_theta\""));
}

TEST_CASE("a shape beyond the limits is an error in both formats, never a smaller number") {
  struct Row {
    const char *toml, *json;
    std::int64_t most;
  };
  for (const Row& row : {Row{"layers = 4", "\"num_hidden_layers\": 4", model_limits::layers},
                         Row{"\nheads = 16", "\"num_attention_heads\": 16", model_limits::heads},
                         Row{"kv_heads = 8", "\"num_key_value_heads\": 8", model_limits::heads},
                         Row{"\nhidden = 1024", "\"hidden_size\": 1024", model_limits::width},
                         Row{"ffn_hidden = 4096", "\"intermediate_size\": 4096", model_limits::width},
                         Row{"vocabulary = 1000", "\"vocab_size\": 1000", model_limits::width}}) {
    INFO(row.toml);
    const std::string toml = row.toml, json = row.json;
    const std::string key = toml.substr(0, toml.find('=')), field = json.substr(0, json.find(':'));
    // 2^32 + 2 is 2 in 32 bits, 2^31 negative.
    for (const std::int64_t value : {row.most + 1, (std::int64_t{1} << 32) + 2, std::int64_t{1} << 31}) {
      CHECK_THAT(toml_complaint(replaced(good_toml, toml, fmt::format("{}= {}", key, value))),
                 ContainsSubstring(fmt::format("= {} is not in 1 to {}", value, row.most)));
      CHECK_THAT(json_complaint(replaced(good_config, json, fmt::format("{}: {}", field, value))),
                 ContainsSubstring(fmt::format("is {}, expected a whole number from 1 to {}", value, row.most)));
    }
  }
  CHECK_THAT(toml_complaint(replaced(good_toml, "head_dim = 64", "head_dim = 65537")),
             ContainsSubstring("head_dim = 65537 is not in 1 to 65536"));
  CHECK_THAT(json_complaint(replaced(good_config, "1024", "1024, \"head_dim\": 65537")),
             ContainsSubstring("head_dim is 65537, expected a whole number from 1 to 65536"));
  CHECK_THAT(json_complaint(replaced(good_config, "1024", "2097152")),
             ContainsSubstring("hidden_size / num_attention_heads = 131072 (a head has at most 65536"));
  CHECK_THAT(toml_complaint(replaced(good_toml, "learned_positions = 0", "learned_positions = 1073741825")),
             ContainsSubstring("is not in 0 to 1073741824"));
}

TEST_CASE("an unknown model lists the nearest and all") {
  CHECK_THAT(message_of([] { load_model("llama2_7"); }),
             ContainsSubstring("there is no \"llama2_7\" in models, did you mean \"llama2_7b\"? (known: llama2_13b, "));
}

}  // namespace
}  // namespace orrery
