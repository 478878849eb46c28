// Sets of tokens as arithmetic progressions.
#include "scenarios/token_set.hpp"

#include <cmath>

#include "tests/catch.hpp"

using namespace orrery;

TEST_CASE("integer division rounds down or up for every sign") {
  for (Index a = -30; a <= 30; ++a) {
    for (Index b = 1; b <= 8; ++b) {
      const double exact = static_cast<double>(a) / static_cast<double>(b);
      CHECK(floor_div(a, b) == static_cast<Index>(std::floor(exact)));
      CHECK(ceil_div(a, b) == static_cast<Index>(std::ceil(exact)));
    }
  }
}

TEST_CASE("a clipped range holds the tokens between its bounds") {
  for (const Index stride : {1, 2, 3, 7}) {
    const TokenRange range{5, 6, stride};
    for (Index first = 0; first <= 50; ++first) {
      for (Index past = first; past <= 52; ++past) {
        std::vector<Index> expected;
        for (Index i = 0; i < range.count; ++i) {
          if (range.at(i) >= first && range.at(i) < past) expected.push_back(range.at(i));
        }
        const TokenRange clipped = range.clipped(first, past);
        std::vector<Index> tokens;
        for (Index i = 0; i < clipped.count; ++i) tokens.push_back(clipped.at(i));
        if (tokens != expected) FAIL("stride " << stride << ", [" << first << ", " << past << ")");
      }
    }
  }
  SUCCEED();
}

TEST_CASE("a token set drops empty ranges, joins those that continue each other, and keeps the order of others") {
  const TokenSet set({{4, 2, 2}, {8, 0, 2}, {8, 3, 2}, {0, 1, 2}, {20, 1, 2}});
  CHECK(set.ranges() == std::vector<TokenRange>{{4, 5, 2}, {0, 1, 2}, {20, 1, 2}});
  CHECK(set.tokens() == std::vector<Index>{4, 6, 8, 10, 12, 0, 20});
  CHECK(set.size() == 7);
  CHECK_FALSE(set.empty());
  CHECK(TokenSet(std::vector<TokenRange>{{3, 0, 1}}).empty());
}

TEST_CASE("rows of a token set are the same rows of its tokens") {
  const TokenSet set({{40, 3, 4}, {0, 5, 4}, {100, 1, 4}, {60, 2, 4}});
  const std::vector<Index> all = set.tokens();
  for (Index first = 0; first <= set.size(); ++first) {
    for (Index count = 0; first + count <= set.size(); ++count) {
      CHECK(set.rows(first, count).tokens() == std::vector<Index>(all.begin() + first, all.begin() + first + count));
    }
  }
}

TEST_CASE("concatenated sets keep their order and join where they meet") {
  const TokenSet joined =
      concatenate({TokenSet({{0, 4, 1}}), TokenSet(), TokenSet({{4, 2, 1}}), TokenSet({{9, 1, 1}})});
  CHECK(joined.ranges() == std::vector<TokenRange>{{0, 6, 1}, {9, 1, 1}});
  CHECK(concatenate({}).empty());
}
