// Layouts deal every token once, in equal parts.
#include "scenarios/layout.hpp"

#include <algorithm>
#include <numeric>
#include <string>

#include "tests/catch.hpp"

using namespace orrery;

namespace {

std::vector<TokenSet> place(const std::string& name, const LayoutRequest& request) {
  for (const Layout& layout : layouts()) {
    if (layout.name == name) return layout.place(request);
  }
  throw std::out_of_range(name);
}

}  // namespace

TEST_CASE("every layout deals every token exactly once, in equal parts") {
  for (const Layout& layout : layouts()) {
    for (const Index groups : {1, 2, 3, 4, 5, 8}) {
      for (const Index parts : {2, 4, 6, 14}) {
        for (const Index residues : {1, 2, 7}) {
          const Index tokens = groups * parts * residues * 2;
          const LayoutRequest request{tokens, groups, groups * residues};
          const std::vector<TokenSet> sets = layout.place(request);
          INFO(layout.name << ", " << tokens << " tokens, " << groups << " groups, period " << request.period);
          REQUIRE(static_cast<Index>(sets.size()) == groups);
          std::vector<Index> dealt;
          for (const TokenSet& set : sets) {
            CHECK(set.size() == tokens / groups);
            const std::vector<Index> held = set.tokens();
            CHECK(std::is_sorted(held.begin(), held.end()));
            dealt.insert(dealt.end(), held.begin(), held.end());
          }
          std::sort(dealt.begin(), dealt.end());
          std::vector<Index> all(static_cast<std::size_t>(tokens));
          std::iota(all.begin(), all.end(), 0);
          CHECK(dealt == all);
        }
      }
    }
  }
}

TEST_CASE("contiguous gives each group a chunk, zigzag the chunks g and 2G - 1 - g, striped every G-th token") {
  CHECK(place("contiguous", {12, 3, 1})[1].tokens() == std::vector<Index>{4, 5, 6, 7});
  CHECK(place("zigzag", {12, 3, 1})[0].tokens() == std::vector<Index>{0, 1, 10, 11});
  CHECK(place("zigzag", {12, 3, 1})[2].tokens() == std::vector<Index>{4, 5, 6, 7});
  CHECK(place("striped", {12, 3, 1})[1].tokens() == std::vector<Index>{1, 4, 7, 10});
}

TEST_CASE("residue keeps tokens that are a multiple of the period apart on one group") {
  for (const Index groups : {1, 2, 4}) {
    for (const Index period : {4, 8, 12}) {
      const std::vector<TokenSet> sets = place("residue", {48, groups, period});
      for (Index g = 0; g < groups; ++g) {
        for (const Index token : sets[static_cast<std::size_t>(g)].tokens()) {
          CHECK(token % period / (period / groups) == g);
        }
      }
    }
  }
}

TEST_CASE("layouts of 2^31 tokens are a few ranges") {
  const Index tokens = Index{1} << 31;
  for (const Layout& layout : layouts()) {
    for (const TokenSet& set : layout.place({tokens, 64, 1 << 26})) {
      CHECK(set.size() == tokens / 64);
      CHECK(set.ranges().size() <= 32);
    }
  }
}

TEST_CASE("tokens that do not divide are refused with the number that must divide them") {
  CHECK_THROWS_WITH(place("contiguous", {10, 4, 1}),
                    "10 tokens do not divide into 4 equal parts (contiguous layout: one chunk per rank of the ring), "
                    "use a multiple of 4");
  CHECK_THROWS_WITH(place("zigzag", {12, 4, 1}),
                    "12 tokens do not divide into 8 equal parts (zigzag layout: two chunks per rank of the ring), use "
                    "a multiple of 8");
  CHECK_THROWS_WITH(place("striped", {13, 4, 1}), ContainsSubstring("use a multiple of 4"));
  CHECK_THROWS_WITH(place("residue", {12, 4, 6}), ContainsSubstring("6 residues do not divide into 4 equal parts"));
  CHECK_THROWS_WITH(place("residue", {12, 4, 8}), ContainsSubstring("12 tokens do not divide into 8 equal parts"));
  CHECK_THROWS_WITH(place("residue", {1 << 20, 4, 512}),
                    "1048576 tokens are 2048 periods of 512 (residue layout: a rank holds a run of each, at most "
                    "1024), use a residue_period of 1024 or more, or of 4");
  CHECK_THROWS_WITH(place("contiguous", {10, 0, 1}), ContainsSubstring("do not divide into 0"));
}
