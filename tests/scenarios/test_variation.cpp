// [variation]: what it says, and what it says wrongly.
#include "scenarios/variation.hpp"

#include "tests/catch.hpp"
#include "tests/scenarios/messages.hpp"

using namespace orrery;

namespace {

Variation variation(const std::string& keys) {
  const Table table = Table::parse("[variation]\n" + keys + "\n", "s.toml");
  Variation read = read_variation(table.table("variation"), 8);
  table.finish();
  return read;
}

std::string message(const std::string& keys) {
  return message_of([&] { variation(keys); });
}

}  // namespace

TEST_CASE("slow ranks and jitter are read, each alone or both") {
  const Variation both = variation(
      "slow_ranks = [{rank = 3, speed = 0.8}, {rank = 0, speed = 1}]\n"
      "jitter = {distribution = \"lognormal\", sigma = 0.02, seed = 9}");
  REQUIRE(both.slow_ranks.size() == 2);
  CHECK(both.slow_ranks[0].rank == 3);
  CHECK(both.slow_ranks[0].speed == 0.8);
  REQUIRE(both.jitter.has_value());
  CHECK(both.jitter->noise == Noise::lognormal);
  CHECK(both.jitter->sigma == 0.02);
  CHECK(both.jitter->seed == 9);
  CHECK(both.perturbation->noisy());
  CHECK_FALSE(variation("slow_ranks = [{rank = 3, speed = 0.8}]").perturbation->noisy());
  for (const std::string_view name : noise_names()) {
    const Variation jitter =
        variation("jitter = {distribution = \"" + std::string(name) + "\", sigma = 0.1, seed = 0}");
    CHECK(name_of(jitter.jitter->noise) == name);
  }
}

TEST_CASE("a slow rank takes the inverse of its speed") {
  const Variation slow = variation("slow_ranks = [{rank = 3, speed = 0.25}]");
  CHECK(slow.perturbation->duration(1000, 3, 0, 0) == 4000);
  CHECK(slow.perturbation->duration(1000, 2, 0, 0) == 1000);
}

TEST_CASE("every mistake in [variation] is named at its place") {
  const auto refused = [](const std::string& keys, const std::string& place, const std::string& words) {
    INFO(keys);
    CHECK_THAT(message(keys), ContainsSubstring("s.toml:" + place + ": ") && ContainsSubstring(words));
  };
  refused("", "1:1", "varies nothing, add slow_ranks or jitter");
  refused("slow_ranks = []", "1:1", "varies nothing");
  refused("slow_ranks = 3", "2:14", "expected a list of tables");
  refused("slow_ranks = [{rank = 8, speed = 0.5}]", "2:23", "rank = 8 is not in 0 to 7");
  refused("slow_ranks = [{rank = -1, speed = 0.5}]", "2:23", "rank = -1 is not in 0 to 7");
  refused("slow_ranks = [{rank = 1}]", "2:15", "missing key \"speed\"");
  refused("slow_ranks = [{rank = 1, speed = 0}]", "2:34", "speed = 0 is not in 0.001 to 1");
  refused("slow_ranks = [{rank = 1, speed = -0.5}]", "2:34", "speed = -0.5 is not in");
  refused("slow_ranks = [{rank = 1, speed = 1.5}]", "2:34", "speed = 1.5 is not in");
  refused("slow_ranks = [{rank = 1, speed = \"fast\"}]", "2:34", "speed in");
  refused("slow_ranks = [{rank = 1, sped = 0.5}]", "2:26", "did you mean \"speed\"");
  refused("slow_ranks = [{rank = 1, speed = 0.5}, {rank = 1, speed = 0.6}]", "2:48", "rank 1 is slow twice");
  const std::string jitter = "jitter = {distribution = \"normal\", sigma = 0.1, seed = 1}";
  refused(replaced(jitter, "\"normal\"", "\"norml\""), "2:26", "did you mean \"normal\"");
  refused(replaced(jitter, "0.1", "-0.1"), "2:44", "sigma = -0.1");
  refused(replaced(jitter, "0.1", "1.1"), "2:44", "sigma = 1.1 (it is a fraction of the duration), give 0 .. 1");
  refused(replaced(jitter, "0.1", "0.3"), "2:44", "some ops would take no time or less");
  refused(replaced(jitter, "seed = 1", "seed = -1"), "2:56", "-1 is negative");
  refused(replaced(jitter, ", seed = 1", ""), "2:10", "missing key \"seed\"");
  refused(replaced(jitter, "seed = 1", "seed = 1, mean = 0.1"), "2:59", "unknown key \"mean\"");
  refused("jiter = {distribution = \"normal\", sigma = 0.1, seed = 1}", "2:1", "did you mean \"jitter\"");
}
