#include "scenarios/hugging_face.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "scenarios/config_fields.hpp"
#include "sim/contains.hpp"

namespace orrery {
namespace {

using nlohmann::json;

/// What a class of Hugging Face's transformers takes for a field that its config.json leaves out, as stated in
/// src/transformers/models/<type>/configuration_<type>.py (huggingface/transformers, commit 008e574, 2026; Gemma 3:
/// 008f5c8; GPT-2: 01ae98a). Sizes have defaults there as well, but those of one published model: a config without its
/// sizes is not a model, and stays an error.
struct ConfigClass {
  std::string_view type;  // the field model_type
  std::string_view name;
  const char* activation;
  bool tied_embeddings;
  std::int64_t kv_heads;  // 0: as many as query heads, which is also what null means
  std::int64_t head_dim;  // 0: hidden_size / num_attention_heads
  /// Of sliding windows: whether the class knows them, and their size if the field is missing (0: none).
  enum class Windows { unknown, known, switched } windows = Windows::unknown;  // switched: by use_sliding_window
  std::int64_t window = 0;
  std::int64_t pattern = 0;  // of so many layers the last is full; 0: windows in all layers, or by other fields
};
constexpr ConfigClass config_classes[] = {
    {"llama", "LlamaConfig", "silu", false, 0, 0},
    {"mistral", "MistralConfig", "silu", false, 8, 0, ConfigClass::Windows::known, 4096},
    {"qwen2", "Qwen2Config", "silu", false, 32, 0, ConfigClass::Windows::switched, 4096},
    {"qwen3", "Qwen3Config", "silu", false, 32, 128, ConfigClass::Windows::switched, 4096},
    {"phi3", "Phi3Config", "silu", false, 0, 0, ConfigClass::Windows::known},
    {"gemma", "GemmaConfig", "gelu_pytorch_tanh", true, 16, 256},
    {"gemma2", "Gemma2Config", "gelu_pytorch_tanh", true, 4, 256, ConfigClass::Windows::known, 4096, 2},
    {"gemma3_text", "Gemma3TextConfig", "gelu_pytorch_tanh", true, 4, 256, ConfigClass::Windows::known, 4096, 6},
    {"gpt2", "GPT2Config", "gelu_new", true, 0, 0},
};
/// Of the Qwens: the layers before it are full.
constexpr std::int64_t first_windowed_layer = 28;

/// Adds what the class of this model type takes for the fields that are absent, and returns it.
std::vector<ModelShape::Assumed> fill_in_defaults(json& root) {
  std::vector<ModelShape::Assumed> assumed;
  if (!root.is_object()) return assumed;
  json& fields = root.contains("text_config") && root["text_config"].is_object() ? root["text_config"] : root;
  const json type = fields.value("model_type", root.value("model_type", json()));
  const auto known = std::find_if(std::begin(config_classes), std::end(config_classes), [&](const ConfigClass& row) {
    return type.is_string() && type == std::string(row.type);
  });
  if (known == std::end(config_classes)) return assumed;
  const auto fill_in = [&](std::initializer_list<const char*> names, const json& value) {
    for (const char* name : names) {
      if (fields.contains(name) || root.contains(name)) return;
    }
    fields[*names.begin()] = value;
    assumed.push_back({*names.begin(), value.is_string() ? value.get<std::string>() : value.dump(),
                       fmt::format("default of {} in Hugging Face's transformers; not in the file", known->name)});
  };
  fill_in({"hidden_act", "activation_function", "hidden_activation"}, known->activation);
  fill_in({"tie_word_embeddings"}, known->tied_embeddings);
  if (known->kv_heads > 0) fill_in({"num_key_value_heads"}, known->kv_heads);
  if (known->head_dim > 0) fill_in({"head_dim"}, known->head_dim);
  const auto value_of = [&](const char* name) {
    return fields.contains(name) ? fields[name] : root.value(name, json());
  };
  using Windows = ConfigClass::Windows;
  if (known->windows == Windows::unknown) {
    for (const char* name : {"sliding_window", "layer_types"}) {
      if (value_of(name).is_null()) continue;
      fields[name] = nullptr;
      root[name] = nullptr;
      assumed.push_back(
          {name, "not used",
           fmt::format("{} in Hugging Face's transformers has full attention in all layers", known->name)});
    }
    return assumed;
  }
  const bool switched = known->windows == Windows::switched;
  if (switched && !value_of("sliding_window").is_null()) fill_in({"use_sliding_window"}, false);
  const bool used = !switched || value_of("use_sliding_window") == true;
  if (used && known->window > 0) fill_in({"sliding_window"}, known->window);
  if (!used || value_of("sliding_window").is_null() || !value_of("layer_types").is_null()) return assumed;
  if (switched) fill_in({"max_window_layers"}, first_windowed_layer);
  if (known->pattern > 0) fill_in({"sliding_window_pattern", "_sliding_window_pattern"}, known->pattern);
  return assumed;
}

/// Fields that only models have whose layers are not all alike: state-space, recurrent or linear layers between those
/// of attention (Jamba, Bamba, Falcon-H1, Nemotron-H, RecurrentGemma, MiniMax-01, LFM2, Qwen3-Next, Kimi Linear),
/// cross-attention (Llama 3.2 Vision), a shape for each layer (Nemotron-NAS).
constexpr std::string_view unequal_layers[] = {
    "mamba_",       "ssm_",           "linear_",        "attn_layer_",       "hybrid_",       "block_types",
    "_block_types", "attn_type_list", "full_attn_idxs", "layers_block_type", "block_configs", "cross_attention_layers"};

bool says_unequal_layers(std::string_view name, const json& value) {
  if (value.is_null() || value.empty()) return false;
  if (name == "layer_types" && value.is_array()) {
    return std::any_of(value.begin(), value.end(), [](const json& type) {
      return type != "attention" && type != "full_attention" && type != "sliding_attention" &&
             type != "chunked_attention";
    });
  }
  return std::any_of(std::begin(unequal_layers), std::end(unequal_layers),
                     [&](std::string_view begin) { return name.starts_with(begin); });
}

/// "num_local_experts", "n_routed_experts", "moe_num_experts", ... by family.
bool says_experts(std::string_view name, const json& value) {
  const bool counts_experts = name.find("experts") != name.npos && name.find("per_tok") == name.npos;
  return (counts_experts || name.starts_with("moe_")) && value.is_number() && value.get<double>() > 1;
}

/// Models whose layers are not what ModelShape can say; taking them for dense ones would give a wrong number quietly.
void refuse_other_kinds(const ConfigFields& config) {
  std::string field;
  if (const json* value = config.find_if(says_experts, field)) {
    throw config.error(
        fmt::format("this is a mixture of experts ({} = {}; only dense models are handled), use a dense model", field,
                    value->dump()));
  }
  if (config.find_if(says_unequal_layers, field) != nullptr) {
    throw config.error(fmt::format(
        "the layers of this model are not all alike (it has {}; only models whose layers all attend to their "
        "own keys are handled), use another model",
        field));
  }
  if (const json* rank = config.find({"kv_lora_rank"})) {
    throw config.error(
        fmt::format("this is a model with multi-head latent attention (kv_lora_rank = {}; only multi-head "
                    "and grouped-query attention are handled), use another model",
                    rank->is_number() ? rank->dump() : "..."));
  }
  if (const json* both = config.find({"is_encoder_decoder"}); both != nullptr && *both == true) {
    throw config.error("this is an encoder-decoder model (only decoders are handled), use a decoder model");
  }
  if (const json* multi = config.find({"multi_query"});
      multi != nullptr && *multi == true && config.find({"num_key_value_heads"}) == nullptr) {
    throw config.error(
        "multi_query is true but num_key_value_heads is missing (it would be 1 or not, by model), add it");
  }
  for (const char* name : {"num_kv_heads", "n_head_kv", "multi_query_group_num", "num_query_groups"}) {
    if (config.find({name}) == nullptr || config.find({"num_key_value_heads"}) != nullptr) continue;
    throw config.error(fmt::format(
        "{} is there but num_key_value_heads is missing (what counts depends on the family), add it", name));
  }
}

/// Whether the FFN has a gate does not stand in a config; it follows from the activation and, for GELU, the family.
bool is_gated(const ConfigFields& config, const std::string& activation, const std::string& family) {
  if (activation == "silu" || activation == "swiglu" || activation == "swish") return true;
  if (activation.starts_with("gelu") || activation.starts_with("relu") || activation == "quick_gelu") {
    return family.starts_with("gemma");  // GeGLU; GPT-2, GPT-NeoX, StarCoder2, Phi and OPT have two matrices
  }
  throw config.error(
      fmt::format("hidden_act is \"{}\" (whether such an FFN has two or three matrices is not known here), "
                  "write the shape as TOML",
                  activation.substr(0, 40)));
}

/// Which layers have a sliding window. Transformers states it layer by layer (layer_types), as a pattern of so many
/// layers of which the last is full (sliding_window_pattern; EXAONE: letters, L local and G global), or as the number
/// of full layers before the windows (max_window_layers); without any of these all have one.
std::vector<bool> windowed_layers(const ConfigFields& config, int layers) {
  std::vector<bool> windowed(static_cast<std::size_t>(layers), true);
  if (const json* types = config.find({"layer_types"})) {
    if (!types->is_array() || types->size() != windowed.size()) {
      throw config.error(
          fmt::format("layer_types does not name the kind of each of {} layers, correct it or leave it out", layers));
    }
    for (std::size_t i = 0; i < windowed.size(); ++i) windowed[i] = (*types)[i] == "sliding_attention";
    if (contains(*types, json("chunked_attention")))
      throw config.error(
          "layer_types has chunked_attention (a token sees those of its chunk; only full and sliding attention are "
          "handled), state the model as TOML and the pattern in the scenario");
    return windowed;
  }
  if (const json* pattern = config.find({"sliding_window_pattern", "_sliding_window_pattern"})) {
    std::string kinds;
    if (pattern->is_string()) kinds = pattern->get<std::string>();
    if (pattern->is_number_integer() && pattern->get<std::int64_t>() >= 1 && pattern->get<std::int64_t>() <= layers)
      kinds = std::string(pattern->get<std::size_t>() - 1, 'L') + 'G';
    else if (pattern->is_number_integer() && pattern->get<std::int64_t>() > layers)
      kinds = "L";
    if (kinds.empty() || kinds.find_first_not_of("LG") != std::string::npos)
      throw config.error("sliding_window_pattern is neither a number of layers nor letters L and G, correct it");
    for (std::size_t i = 0; i < windowed.size(); ++i) windowed[i] = kinds[i % kinds.size()] == 'L';
    return windowed;
  }
  if (const json* first = config.find({"max_window_layers"}); first != nullptr && first->is_number_integer()) {
    for (std::size_t i = 0; i < windowed.size(); ++i)
      windowed[i] = static_cast<std::int64_t>(i) >= first->get<std::int64_t>();
  }
  return windowed;
}

/// A sliding window of w tokens: the token itself and w - 1 before it. Empty: full attention in all layers.
std::vector<Primitive> attention_of(const ConfigFields& config, int layers) {
  const json* used = config.find({"use_sliding_window"});
  if (used != nullptr && *used == false) return {};
  const std::int64_t window = config.count_or({"sliding_window"}, 0, model_limits::width);
  if (window == 0) {
    const json* types = config.find({"layer_types"});
    const auto is_not_full = [](const json& type) {
      return type == "sliding_attention" || type == "chunked_attention";
    };
    if (types != nullptr && types->is_array() && std::any_of(types->begin(), types->end(), is_not_full))
      throw config.error(
          "layer_types has layers that are not full (and there is no sliding_window), add sliding_window");
    return {};
  }
  const std::vector<bool> windowed = windowed_layers(config, layers);
  Primitive local{.kind = Primitive::Kind::window, .left = window - 1}, full;
  for (int i = 0; i < layers; ++i) (windowed[static_cast<std::size_t>(i)] ? local : full).layers.push_back(i + 1);
  if (local.layers.empty()) return {};
  if (!full.layers.empty()) return {local, full};
  local.layers.clear();  // all of them
  return {local};
}

}  // namespace

ModelShape load_hugging_face_config(const std::filesystem::path& file) {
  json root = parse_config(read_text_file(file, "JSON"), file);
  ModelShape model;
  model.assumed = fill_in_defaults(root);
  ConfigFields config(root, file);
  refuse_other_kinds(config);

  // Every config is called config.json, so the folder tells which model it is.
  const std::filesystem::path place = std::filesystem::absolute(file).lexically_normal();
  model.name = (place.stem() == "config" ? place.parent_path().filename() : place.stem()).string();
  model.description = fmt::format("{} (Hugging Face config)", model.name);
  model.source = file.string();

  const bool gpt2 = config.find({"n_embd"}) != nullptr;
  model.layers = config.count({"num_hidden_layers", "n_layer"}, model_limits::layers);
  model.hidden = config.count({"hidden_size", "n_embd"}, model_limits::width);
  model.heads = config.count({"num_attention_heads", "n_head"}, model_limits::heads);
  model.kv_heads = config.count_or({"num_key_value_heads"}, model.heads, model_limits::heads);
  if (!gpt2 && config.find({"num_key_value_heads"}) == nullptr)
    model.assumed.push_back(
        {"num_key_value_heads", std::to_string(model.heads), "as many as num_attention_heads; not in the file"});
  if (config.find({"quantization_config"}) != nullptr)
    model.assumed.push_back({"quantization_config", "not used", "numbers are as wide as the stated dtype"});
  // In GPT2Config n_inner = null means 4 * n_embd.
  model.ffn_hidden = gpt2 ? config.count_or({"n_inner", "intermediate_size"}, 4 * model.hidden, model_limits::width)
                          : config.count({"intermediate_size"}, model_limits::width);
  model.vocabulary = config.count({"vocab_size"}, model_limits::width);
  const std::string activation = config.string({"hidden_act", "activation_function", "hidden_activation"});
  // GPT2Config ties the embeddings and has learned positions without saying so.
  model.tied_embeddings =
      gpt2 && config.find({"tie_word_embeddings"}) == nullptr ? true : config.boolean("tie_word_embeddings");
  model.learned_positions = gpt2 ? config.count({"n_positions", "max_position_embeddings"}, model_limits::width) : 0;
  config.refuse_missing();

  const json* family = config.find({"model_type"});
  model.gated_ffn =
      is_gated(config, activation, family != nullptr && family->is_string() ? family->get<std::string>() : "");
  if (config.find({"head_dim"}) == nullptr && model.hidden % model.heads != 0) {
    throw config.error(
        fmt::format("hidden_size = {} is not divisible by num_attention_heads = {} (and there is no head_dim), "
                    "add head_dim",
                    model.hidden, model.heads));
  }
  model.head_dim = config.count_or({"head_dim"}, model.hidden / model.heads, model_limits::head_dim);
  if (model.head_dim > model_limits::head_dim) {
    throw config.error(
        fmt::format("hidden_size / num_attention_heads = {} (a head has at most {} dimensions), correct one of them",
                    model.head_dim, model_limits::head_dim));
  }
  if (model.heads % model.kv_heads != 0) {
    throw config.error(
        fmt::format("num_attention_heads = {} is not divisible by num_key_value_heads = {} (each key head "
                    "serves as many query heads), correct one of them",
                    model.heads, model.kv_heads));
  }
  model.attention = attention_of(config, static_cast<int>(model.layers));
  return model;
}

}  // namespace orrery
