// How tokens and heads are spread over ranks.
#include "scenarios/geometry.hpp"

#include <map>

#include "tests/catch.hpp"

using namespace orrery;

namespace {

const Layout& contiguous() {
  return layouts().front();
}

Geometry geometry(int groups, int members, int heads, int kv_heads, Index tokens = 48) {
  return make_geometry(contiguous(), tokens, 1, groups, members, heads, kv_heads, 64, 1);
}

}  // namespace

TEST_CASE("members of a group share its tokens, and the same member of the next group is the neighbour") {
  const Geometry g = geometry(3, 4, 8, 4);
  CHECK(g.ranks() == 12);
  CHECK(g.group_of(7) == 1);
  CHECK(g.member_of(7) == 3);
  CHECK(g.neighbour(7, 1) == 11);
  CHECK(g.neighbour(7, -1) == 3);
  CHECK(g.neighbour(7, 2) == 3);
  CHECK(g.neighbour(7, -7) == 3);
  CHECK(g.neighbour(7, 0) == 7);
  CHECK(g.rank_tokens[7].tokens() == std::vector<Index>{28, 29, 30, 31});
  CHECK(g.tokens_of(7).ranges() == std::vector<TokenRange>{{16, 16, 1}});
  CHECK(g.all_tokens.ranges() == std::vector<TokenRange>{{0, 48, 1}});
}

TEST_CASE("query heads are dealt out in equal runs") {
  const Geometry g = geometry(1, 4, 8, 4);
  for (int u = 0; u < 4; ++u) {
    CHECK(g.query_heads(u).first == 2 * u);
    CHECK(g.query_heads(u).count == 2);
  }
}

TEST_CASE("a member holds the KV heads its query heads need, replicated if there are fewer than members") {
  for (const int heads : {8, 16, 32}) {
    for (int kv_heads = 1; kv_heads <= heads; kv_heads *= 2) {
      for (int members = 1; members <= heads; members *= 2) {
        const Geometry g = geometry(1, members, heads, kv_heads, 64);
        std::map<int, int> holders;
        for (int u = 0; u < members; ++u) {
          const HeadRange queries = g.query_heads(u), held = g.kv_heads_of(u);
          const int group_size = heads / kv_heads;
          INFO(heads << " heads, " << kv_heads << " KV heads, member " << u << " of " << members);
          CHECK(held.first == queries.first / group_size);
          CHECK(held.first + held.count - 1 == (queries.first + queries.count - 1) / group_size);
          for (int h = 0; h < held.count; ++h) ++holders[held.first + h];
        }
        REQUIRE(static_cast<int>(holders.size()) == kv_heads);
        for (const auto& [head, count] : holders) CHECK(count == std::max(1, members / kv_heads));
      }
    }
  }
}

TEST_CASE("a head exchange among more ranks than heads is refused") {
  CHECK_THROWS_WITH(geometry(1, 16, 8, 8),
                    "16 ranks cannot share 8 attention heads (a head exchange needs at least one head per rank), use "
                    "at most 8 ranks or a ring");
}

TEST_CASE("heads that do not divide are refused") {
  CHECK_THROWS_WITH(geometry(1, 3, 8, 8), ContainsSubstring("3 ranks do not divide 8 attention heads"));
  CHECK_THROWS_WITH(geometry(1, 6, 12, 4), ContainsSubstring("6 ranks and 4 KV heads do not divide each other"));
}

TEST_CASE("tokens that do not divide over groups or members are refused with what divides") {
  CHECK_THROWS_WITH(geometry(5, 1, 8, 8), ContainsSubstring("use a multiple of 5"));
  CHECK_THROWS_WITH(geometry(3, 4, 8, 8, 42),
                    "14 tokens of a group do not divide over its 4 ranks (head exchange), use a multiple of 12");
}
