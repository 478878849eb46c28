#include <fmt/format.h>

#include "scenarios/reach_closed_form.hpp"
#include "tests/catch.hpp"
#include "tests/reach/reach_runs.hpp"

using namespace orrery;

TEST_CASE("the closed forms of rule A are what both engines compute") {
  for (Index k = 0; k <= 9; ++k) {
    for (Index pi = 1; pi <= 40; ++pi) {
      const PiParameters p{k, pi};
      const ReachPattern pattern = causal_pi("A", k, pi);
      const ReachRun intervals = reach_of(pattern, endless, 20);
      const ReachRun bitset = reach_of(pattern, 1000, 20, ReachEngine::bitset);
      for (std::size_t l = 0; l < 20; ++l) {
        INFO(fmt::format("k = {}, pi = {}, L = {}", k, pi, l + 1));
        for (const SideReach& reach : {intervals.layers[l].earlier, bitset.layers[l].earlier}) {
          CHECK(reach.max_lag == rule_a_reach(p, static_cast<Index>(l) + 1));
          CHECK(reach.count == rule_a_count(p, static_cast<Index>(l) + 1));
          CHECK(reach.contiguous == rule_a_contiguous(p, static_cast<Index>(l) + 1));
        }
      }
    }
  }
}

TEST_CASE("the closed form of layers to cover is what the engines find") {
  for (Index k = 0; k <= 6; ++k) {
    for (Index pi = 1; pi <= 30; ++pi) {
      for (const Index tokens : {1, 2, 7, 50, 97, 200}) {
        INFO(fmt::format("k = {}, pi = {}, n = {}", k, pi, tokens));
        const ReachRun run = reach_of(causal_pi("A", k, pi), tokens, 220);
        const auto expected = rule_a_layers_to_cover({k, pi}, tokens);
        CHECK(expected.value_or(0) == run.layers_to_cover.value_or(0));
      }
    }
  }
}

TEST_CASE("closed forms refuse to wrap around") {
  const Index large = Index{1} << 60;
  CHECK_THROWS_WITH(rule_a_reach({4, large}, 64), ContainsSubstring("2^63"));
  CHECK_THROWS_WITH(pi_bound({4, large}, 1 << 20), ContainsSubstring("2^63"));
  CHECK_THROWS_WITH(reach_of(causal_pi("D", 4, 16), 1000, 64), ContainsSubstring("doubling"));
  CHECK_THROWS_WITH(unbounded_max_lags(causal_pi("A", 4, large), 64), ContainsSubstring("2^63"));
  CHECK(unbounded_max_lags(causal_pi("D", 0, 1), 62).back() == (Index{1} << 62) - 1);
}
