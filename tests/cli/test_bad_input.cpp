// Wrong scenarios: each mistake has its message, with the place where it stands.
#include "scenarios/scenario.hpp"

#include <fmt/format.h>

#include <utility>

#include "tests/catch.hpp"
#include "tests/cli/run_program.hpp"
#include "tests/scenario_text.hpp"
#include "tests/scenarios/messages.hpp"

using namespace orrery;

namespace {

const std::string good = ScenarioText().text();

/// The message that loading `text` ends with.
std::string message(const std::string& text) {
  return message_of([&] { read_scenario(Table::parse(text, "scenario.toml")); });
}

std::string message(const std::string& what, const std::string& with) {
  return message(replaced(good, what, with));
}

}  // namespace

TEST_CASE("the scenario that the mistakes below start from is right") {
  CHECK(message(good) == "no error");
}

TEST_CASE("an unknown key is named with its place and the nearest known key") {
  const std::string text = message("tokens =", "tokns =");
  CHECK_THAT(text, ContainsSubstring("scenario.toml:4:1"));
  CHECK_THAT(text, ContainsSubstring("tokns"));
  CHECK_THAT(text, ContainsSubstring("did you mean \"tokens\""));
}

TEST_CASE("a missing key is named with its table") {
  const std::string text = message("batch = 1\n", "");
  CHECK_THAT(text, ContainsSubstring("batch"));
  CHECK_THAT(text, ContainsSubstring("[workload]"));
}

TEST_CASE("a quantity without its unit is an error that shows how to write it") {
  const ScratchFolder folder;
  folder.write("slow.toml",
               "kind = \"link\"\ndescription = \"d\"\nsource = \"s\"\nbandwidth = \"450\"\nlinks_per_gpu = 1\nlatency "
               "= \"1 us\"\nlatency_provenance = \"assumed\"\n");
  const auto file = folder.write("scenario.toml", replaced(good, "\"nvlink4\"", "\"./slow.toml\""));
  CHECK_THROWS_WITH(load_scenario(file), ContainsSubstring("slow.toml:4:") && ContainsSubstring("has no unit"));
}

TEST_CASE("tokens that the ranks do not divide are an error that names both") {
  const std::string text = message("65536", "65537");
  CHECK_THAT(text, ContainsSubstring("65537"));
  CHECK_THAT(text, ContainsSubstring("8 equal parts"));
}

TEST_CASE("more Ulysses ranks than heads is an error that names the heads") {
  std::string text = replaced(good, "ranks = 8", "ranks = 64");
  text = replaced(text, "\"ring\"", "\"ulysses\"");
  CHECK_THAT(message(text), ContainsSubstring("64 ranks cannot share 32 attention heads"));
}

TEST_CASE("numbers of a pattern that make no sense are errors that say why") {
  const auto pattern = [](const std::string& inside) { return message("{kind = \"full\"}", "{" + inside + "}"); };
  CHECK_THAT(pattern("kind = \"window\", left = -1"), ContainsSubstring("left = -1 is negative"));
  CHECK_THAT(pattern("kind = \"stride\", period = 0, count = 1"), ContainsSubstring("period = 0 is not positive"));
  CHECK_THAT(pattern("kind = \"stride\", period = 4, count = -2"), ContainsSubstring("count = -2 is negative"));
  CHECK_THAT(pattern("kind = \"sink\", first = -3"), ContainsSubstring("first = -3 is negative"));
  CHECK_THAT(pattern("kind = \"window\", left = 3, right = 2"), ContainsSubstring("causal"));
  CHECK_THAT(pattern("kind = \"window\", left = 3, layers = [33]"), ContainsSubstring("layer 33 does not exist"));
  CHECK_THAT(pattern("kind = \"window\", left = 3, layers = [2]"), ContainsSubstring("layer 1 attends to nothing"));
  CHECK_THAT(pattern("kind = \"window\", left = 3, layers = [4294967297]"),
             ContainsSubstring("layer 4294967297 does not exist"));
  CHECK_THAT(pattern("kind = \"window\", left = 2.5"), ContainsSubstring("left = 2.5 is not a whole number"));
  CHECK_THAT(pattern("kind = \"window\", left = 1e300"), ContainsSubstring("left = 1e+300 is out of range"));
  CHECK_THAT(pattern("kind = \"stride\", period = 9223372036854775807, count = 1"),
             ContainsSubstring("period = 9.223372036854776e+18 is out of range"));
  CHECK_THAT(pattern("kind = \"sink\", first = 0"), ContainsSubstring("first = 0 adds no key"));
  CHECK_THAT(pattern("kind = \"windw\", left = 3"), ContainsSubstring("window"));
}

TEST_CASE("a window or period beyond the sequence is legal") {
  const auto pattern = [](const std::string& inside) { return message("{kind = \"full\"}", "{" + inside + "}"); };
  CHECK(pattern("kind = \"window\", left = 1000000000") == "no error");
  CHECK(pattern("kind = \"window\", left = 3}, {kind = \"stride\", period = 1000000000, count = 1") == "no error");
}

TEST_CASE("a pattern that holds no pair of tokens is an error, not a step of 0 s") {
  const std::string stride = "{kind = \"stride\", period = 1000000000, count = \"all\"}";
  CHECK_THAT(message("{kind = \"full\"}", stride),
             ContainsSubstring("scenario.toml:11:") && ContainsSubstring("stride(1000000000, all) holds no pair"));
  CHECK(message("{kind = \"full\"}", "{kind = \"window\", left = 0}, " + stride) == "no error");
  // A period within the sequence, but not within its documents.
  std::string text = replaced(good, "{kind = \"full\"}", "{kind = \"stride\", period = 40000, count = 1}");
  CHECK(message(text) == "no error");
  CHECK_THAT(message(replaced(text, "causal = true", "causal = true\ndocuments = [\"32K\", \"32K\"]")),
             ContainsSubstring("stride(40000, count 1) holds no pair"));
}

TEST_CASE("a number out of its range is told the range, negative or not") {
  for (const char* ranks : {"-1", "0", "65537"}) {
    CHECK_THAT(message("ranks = 8", std::string("ranks = ") + ranks),
               ContainsSubstring(std::string("ranks = ") + ranks + " is not in 1 to 65536"));
  }
}

TEST_CASE("a time beyond 2^63 ps is named with its key, not its value alone") {
  const ScratchFolder folder;
  const std::string ideal = read_file(std::string(ORRERY_SOURCE_DIR) + "/scenarios/implementations/ideal.toml");
  folder.write("own.toml", replaced(ideal, "launch = {value = \"0 s\"", "launch = {value = \"9223373 s\""));
  CHECK_THROWS_WITH(load_scenario(folder.write("scenario.toml", replaced(good, "\"ideal\"", "\"./own.toml\""))),
                    ContainsSubstring("own.toml:") && ContainsSubstring("value = 9.22e+06 s is out of range"));
}

TEST_CASE("a cluster of another size than the ranks is an error that names both numbers") {
  std::string text = replaced(good, "topology = \"nvswitch\"", "topology = \"torus\"\nshape = [2, 2]");
  CHECK_THAT(message(text), ContainsSubstring("8") && ContainsSubstring("scenario.toml:20:"));
}

TEST_CASE("a cluster whose GPUs cannot all reach each other is an error that says what is missing") {
  const std::string two_sockets = "topology = \"pcie_tree\"\ngpus_per_switch = 2\nsockets = 2\nuplink = \"pcie5_x16\"";
  CHECK_THAT(message("topology = \"nvswitch\"", two_sockets), ContainsSubstring("scenario.toml:20:") &&
                                                                  ContainsSubstring("could not reach each other") &&
                                                                  ContainsSubstring("inter_socket"));
  CHECK(message("topology = \"nvswitch\"", two_sockets + "\ninter_socket = \"pcie5_x16\"") == "no error");
}

TEST_CASE("of a fat tree without nodes the missing key is named, not the one that is like it") {
  const std::string text = ScenarioText{.topology = fat_tree_text(2, 4)}.text();
  CHECK(message(text) == "no error");
  CHECK_THAT(message(replaced(text, "nodes = 2\n", "")), ContainsSubstring("missing key \"nodes\" in [cluster]"));
  CHECK_THAT(message(replaced(text, "node = {", "nod = {")), ContainsSubstring("did you mean \"node\"?"));
  CHECK_THAT(message(replaced(text, "gpus = 4", "gpu = 4")), ContainsSubstring("did you mean \"gpus\"?"));
}

TEST_CASE("an unknown name lists the nearest known one, at its place") {
  CHECK_THAT(message("\"h200_sxm\"", "\"h200\""),
             ContainsSubstring("scenario.toml:18:") && ContainsSubstring("h200_sxm"));
  CHECK_THAT(message("\"ideal\"", "\"idael\""), ContainsSubstring("scenario.toml:16:") && ContainsSubstring("ideal"));
  CHECK_THAT(message("\"ring\"", "\"rign\""), ContainsSubstring("ring"));
}

TEST_CASE("a file that does not exist is an error at the name of the file") {
  const std::pair<const char*, const char*> places[] = {
      {"llama3_8b", "3:9"}, {"ideal", "16:18"}, {"h200_sxm", "18:7"}, {"peak", "19:11"}, {"nvlink4", "21:8"}};
  for (const auto& [name, place] : places) {
    INFO(name);
    CHECK_THAT(message(name, "./nowhere.toml"), ContainsSubstring(fmt::format("scenario.toml:{}: ", place)) &&
                                                    ContainsSubstring("nowhere.toml: there is no such file"));
  }
}

TEST_CASE("an implementation is not used for what its library does not run") {
  CHECK_THAT(message("\"ideal\"", "\"transformer_engine_a2a\""), ContainsSubstring("does not run schedule ring"));
  CHECK_THAT(message("\"ideal\"", "\"ring_flash_attention_zigzag\""),
             ContainsSubstring("does not use layout contiguous"));
  std::string sparse = replaced(good, "{kind = \"full\"}", "{kind = \"window\", left = 5}");
  CHECK_THAT(message(replaced(sparse, "\"ideal\"", "\"ring_flash_attention_ring\"")),
             ContainsSubstring("full attention only"));
}

TEST_CASE("documents must fill the sequence") {
  CHECK_THAT(message("causal = true", "causal = true\ndocuments = [5, 6]"), ContainsSubstring("11 tokens"));
  CHECK_THAT(message("causal = true", "causal = true\ndocuments = [65536, 0]"), ContainsSubstring("has 0 tokens"));
  // 2048 times 2^53 - 1 is beyond 64 bits.
  std::string many = "9007199254740991";
  for (int i = 1; i < 2048; ++i) many += ", 9007199254740991";
  CHECK_THAT(message("causal = true", "causal = true\ndocuments = [" + many + "]"),
             ContainsSubstring("a document has 9007199254740991 tokens"));
  CHECK(message("causal = true", "causal = true\ndocuments = [65000, 536]") == "no error");
}

TEST_CASE("files that are no scenarios are refused by the program with one sentence") {
  const ScratchFolder folder;
  const auto refuse = [&](const std::string& text, const std::string& reason) {
    const auto file = folder.write("bad.toml", text);
    CHECK_THAT(refusal_of("simulate " + file.string()), ContainsSubstring("bad.toml") && ContainsSubstring(reason));
  };
  refuse("", "empty");
  refuse("{\"json\": true}", "bad.toml:1:");
  refuse(std::string("\x7f"
                     "ELF\0\0\0",
                     7),
         "not a TOML file");
  refuse(std::string(100'000'000, '#'), "MiB");
  refuse("description = 3\n", "description");
  refuse(replaced(good, "batch = 1", "batch = 0"), "batch = 0");
  refuse(replaced(good, "tokens = 65536", "tokens = \"64Q\""), "64Q");
  refuse(replaced(good, "ranks = 8", "ranks = 99999999999"), "ranks");
  refuse(replaced(good, "kind = \"full\"", "kind = \"window\", left = 9223372036854775808"), "bad.toml:");
}

TEST_CASE("an implementation that gathers no head, or more than an int counts, is refused") {
  const ScratchFolder folder;
  const std::string ideal = read_file(std::string(ORRERY_SOURCE_DIR) + "/scenarios/implementations/ideal.toml");
  const auto file = folder.write("scenario.toml", replaced(good, "\"ideal\"", "\"./own.toml\""));
  for (const char* count : {"0", "4294967297"}) {
    folder.write("own.toml",
                 replaced(ideal, "kv_heads_at_a_time = \"all\"", std::string("kv_heads_at_a_time = ") + count));
    CHECK_THROWS_WITH(load_scenario(file),
                      ContainsSubstring(std::string("kv_heads_at_a_time = ") + count + " is not in"));
  }
}

TEST_CASE("a step kernel is of any layer or of those with a gated skip") {
  const ScratchFolder folder;
  const std::string pi = read_file(std::string(ORRERY_SOURCE_DIR) + "/scenarios/implementations/orrery_pi.toml");
  const auto file = folder.write("scenario.toml", replaced(good, "\"ideal\"", "\"./own.toml\""));
  folder.write("own.toml", replaced(pi, "of = \"gated_skip\"", "of = \"skips\""));
  CHECK_THROWS_WITH(load_scenario(file), ContainsSubstring("own.toml:") && ContainsSubstring("of = \"skips\"") &&
                                             ContainsSubstring("any, gated_skip"));
}

TEST_CASE("a model file with missing fields names them") {
  const ScratchFolder folder;
  folder.write("config.json", "{\"hidden_size\": 4096, \"num_hidden_layers\": 32}");
  const auto file = folder.write("scenario.toml", replaced(good, "\"llama3_8b\"", "\"./config.json\""));
  CHECK_THROWS_WITH(load_scenario(file), ContainsSubstring("config.json") && ContainsSubstring("num_attention_heads"));
}
