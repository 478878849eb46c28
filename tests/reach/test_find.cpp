#include <fmt/format.h>

#include "scenarios/reach_cost.hpp"
#include "scenarios/reach_find.hpp"
#include "tests/catch.hpp"
#include "tests/reach/reach_runs.hpp"

using namespace orrery;

namespace {

Index pairs_of(const ReachPattern& pattern, Index tokens, int layers) {
  const ReachCost cost = reach_cost(pattern, {tokens, tokens - 1, layers, {}}, {});
  return std::llround(cost.pairs_per_token * static_cast<double>(tokens) * layers);
}

}  // namespace

TEST_CASE("the cheapest pair of every rule with one skip is the cheapest of all pairs") {
  for (const char* rule : {"A", "A2", "B", "E1", "E2", "E3", "F", "G", "H"}) {
    const Index least_k = rule == std::string("A2") ? 1 : 0;
    for (const Index tokens : {1, 2, 3, 10, 26}) {
      for (const int layers : {1, 2, 3, 4, 5, 8, 9}) {
        Index least = -1;
        PiParameters cheapest;
        for (Index k = least_k; k <= tokens; ++k) {
          for (Index pi = 1; pi <= tokens; ++pi) {
            const ReachPattern pattern = causal_pi(rule, k, pi);
            if (!reach_of(pattern, tokens, layers).layers_to_cover) continue;
            const Index pairs = pairs_of(pattern, tokens, layers);
            if (least < 0 || pairs < least) least = pairs, cheapest = {k, pi};
          }
        }
        INFO(fmt::format("rule {}, {} tokens, {} layers", rule, tokens, layers));
        const CheapestPair found = cheapest_pair(rule, tokens, layers);
        CHECK(found.pairs == least);
        CHECK(found.parameters.k == cheapest.k);
        CHECK(found.parameters.pi == cheapest.pi);
        const ReachPattern best = causal_pi(rule, found.parameters.k, found.parameters.pi);
        CHECK(reach_of(best, tokens, layers).layers_to_cover == found.layers_needed);
        CHECK(pairs_of(causal_pi("I", found.k_no_skip - least_k, 1), tokens, layers) == found.pairs_no_skip);
      }
    }
  }
}

TEST_CASE("the cheapest pair of 2^31 tokens is found, and covers") {
  const Index tokens = Index{1} << 31;
  const CheapestPair found = cheapest_pair("A", tokens, 1000);
  const ReachRun run = reach_of(causal_pi("A", found.parameters.k, found.parameters.pi), tokens, 1000);
  CHECK(run.layers_to_cover == found.layers_needed);
  CHECK(cheapest_pair("G", tokens, most_reach_layers).layers_needed <= most_reach_layers);
}

TEST_CASE("the search refuses what it cannot answer") {
  for (const char* rule : {"I", "C", "D"}) {
    CHECK_THROWS_WITH(cheapest_pair(rule, 100, 4), ContainsSubstring("no window and one skip"));
  }
  CHECK_THROWS_WITH(cheapest_pair("A", 0, 4), ContainsSubstring("cover = 0"));
  CHECK_THROWS_WITH(cheapest_pair("A", (Index{1} << 31) + 1, 4), ContainsSubstring("cover = 2147483649"));
  CHECK_THROWS_WITH(cheapest_pair("A", 100, 0), ContainsSubstring("layers = 0"));
}
