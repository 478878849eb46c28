#include <fmt/format.h>

#include "scenarios/reach_reader.hpp"
#include "tests/catch.hpp"
#include "tests/reach/reach_runs.hpp"
#include "tests/scenarios/messages.hpp"
#include "tests/scratch_folder.hpp"

using namespace orrery;

TEST_CASE("the shipped rule files say what the rules say") {
  for (const PiRule& rule : pi_rules()) {
    INFO(rule.name);
    const ReachInput input = load_reach(fmt::format("pi_{}", rule.name), {});
    REQUIRE(input.pattern.bound);
    const ReachPattern expected = causal_pi(rule.name, 4, 16);
    CHECK(input.pattern.describe() == expected.describe());
    const ReachRun from_file = reach_of(input.pattern, 60000, 16), from_rule = reach_of(expected, 60000, 16);
    for (std::size_t l = 0; l < 16; ++l) {
      CHECK(from_file.layers[l].earlier.count == from_rule.layers[l].earlier.count);
      CHECK(from_file.layers[l].earlier.max_lag == from_rule.layers[l].earlier.max_lag);
    }
  }
}

TEST_CASE("every shipped file loads and can be computed") {
  for (const std::string& name : known_names("reach")) {
    INFO(name);
    const ReachInput input = load_reach(name, {});
    const ReachRun run = run_reach(make_problem(input.pattern, input.sequence, ReachView::lo));
    CHECK(static_cast<int>(run.layers.size()) == input.sequence.layers);
    if (input.hardware) CHECK(reach_cost(input.pattern, input.sequence, *input.hardware).pairs_per_token > 0);
  }
}

TEST_CASE("a scenario file is a reach file too") {
  const std::string file = std::string(ORRERY_SOURCE_DIR) + "/scenarios/examples/llama2_7b_1m_pi_count1.toml";
  const ReachInput input = load_reach(file, {});
  CHECK(input.sequence.tokens == 1 << 20);
  CHECK(input.sequence.layers == 32);
  REQUIRE(input.pattern.bound);
  CHECK(input.pattern.bound->pi == 16384);
  CHECK(input.hardware.value().ranks == 8);
}

TEST_CASE("mistakes in a reach file are named with their place") {
  const ScratchFolder folder;
  const auto message = [&](std::string_view pattern, std::string_view more = "") {
    const auto file = folder.write("x.toml", fmt::format("description = \"x\"\n[reach]\ncausal = true\nlayers = 4\n"
                                                         "tokens = 64\n{}\npattern = [{}]\n",
                                                         more, pattern));
    return message_of([&] { load_reach(file.string(), {}); });
  };
  const std::string window = "{kind = \"window\", left = 4}";
  CHECK(message(window) == "no error");
  CHECK_THAT(message("{kind = \"windw\", left = 4}"), ContainsSubstring("window"));
  CHECK_THAT(message("{kind = \"window\", left = -4}"), ContainsSubstring("negative"));
  CHECK_THAT(message("{kind = \"window\", left = 4, sise = 3}"), ContainsSubstring("unknown key"));
  CHECK_THAT(message("{kind = \"stride\", period = 0, count = 1}"), ContainsSubstring("period = 0 is not positive"));
  CHECK_THAT(message("{kind = \"window\", left = 4, layers = \"power_of_two\"}"), ContainsSubstring("powers_of_two"));
  CHECK_THAT(message("{kind = \"window\", left = 4, layers = {every = 0}}"), ContainsSubstring("every = 0"));
  CHECK_THAT(message("{kind = \"window\", left = 4, layers = [2]}"), ContainsSubstring("layer 1 attends to nothing"));
  CHECK_THAT(message(window, "ring = true"), ContainsSubstring("causal = false"));
  CHECK_THAT(message(window, "documents = [3, 4]"), ContainsSubstring("7 tokens"));
  CHECK_THAT(message(window, "bound = {k = 4, pi = 0}"), ContainsSubstring("pi = 0"));
}

TEST_CASE("layers beyond the limit are refused before any of them is looked at") {
  const ScratchFolder folder;
  const auto file = folder.write("x.toml",
                                 "description = \"x\"\n[reach]\ncausal = true\nlayers = 1000000000\ntokens = 64\n"
                                 "pattern = [{kind = \"window\", left = 4}]\n");
  CHECK_THAT(message_of([&] { load_reach(file.string(), {}); }),
             ContainsSubstring("layers = 1000000000 is past 65536"));
}

TEST_CASE("numbers without sense are refused with the value and the limit") {
  CHECK_THROWS_WITH(causal_pi("A", -1, 16), ContainsSubstring("k = -1 is negative"));
  CHECK_THROWS_WITH(causal_pi("A", 4, 0), ContainsSubstring("pi = 0 is not positive"));
  CHECK_THROWS_WITH(causal_pi("E4", 4, 16), ContainsSubstring("E1"));
  CHECK_THROWS_WITH(reach_of(causal_pi("A", 4, 16), 100, 0), ContainsSubstring("layers = 0"));
  CHECK_THROWS_WITH(reach_of(causal_pi("A", 4, 16), 0, 1), ContainsSubstring("n = 0"));
  CHECK_THROWS_WITH(reach_of(causal_pi("A", 4, 16), (Index{1} << 60) + 1, 1), ContainsSubstring("2^60"));
}
