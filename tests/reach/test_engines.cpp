// Three engines, one definition: intervals, bitset and the Boost.Graph token graph agree on every layer of hundreds of
// random patterns.
#include <fmt/format.h>

#include "tests/catch.hpp"
#include "tests/reach/random_patterns.hpp"
#include "tests/reach/reach_runs.hpp"

using namespace orrery;

namespace {

using Kind = ReachPrimitive::Kind;
using Sets = std::vector<IntervalSet>;
template <class Engine>
Sets sets_of(Engine engine, const ReachProblem& problem) {
  Sets sets;
  engine(problem, [&](int, const IntervalSet& reached) { sets.push_back(reached); });
  return sets;
}
const auto intervals = [](const ReachProblem& p, const ReachVisit& v) { reach_by_intervals(p, v); };
const auto bitset = [](const ReachProblem& p, const ReachVisit& v) { reach_by_bitset(p, v); };
const auto graph = [](const ReachProblem& p, const ReachVisit& v) { reach_by_graph(p, v); };

}  // namespace

TEST_CASE("three engines agree on every layer of 900 random patterns") {
  int compared = 0;
  for (std::uint32_t seed = 1; seed <= 900; ++seed) {
    RandomPatterns random(seed);
    const Index tokens = 1 + random.below(seed % 10 == 0 ? 200 : 70);
    const int layers = static_cast<int>(1 + random.below(7));
    const ReachPattern pattern = random.pattern(tokens, layers);
    const ReachSequence sequence{tokens, random.below(tokens), layers,
                                 pattern.ring ? std::vector<Index>{} : random.documents(tokens)};
    for (const ReachView view : {ReachView::lo, ReachView::up}) {
      const ReachProblem problem = make_problem(pattern, sequence, view);
      INFO(fmt::format("seed {}, n = {}, query {}, {} layers: {}", seed, tokens, sequence.query, layers,
                       pattern.describe()));
      const Sets expected = sets_of(graph, problem);
      REQUIRE(static_cast<int>(expected.size()) == layers);
      REQUIRE(sets_of(intervals, problem) == expected);
      REQUIRE(sets_of(bitset, problem) == expected);
      ++compared;
    }
  }
  CHECK(compared == 1800);
}

TEST_CASE("the token graph of 5000 tokens agrees too") {
  const ReachPattern pattern = causal_pi("A", 16, 300);
  for (const int layers : {1, 20}) {
    const ReachProblem problem = make_problem(pattern, {5000, 4999, layers, {}}, ReachView::lo);
    CHECK(sets_of(graph, problem) == sets_of(intervals, problem));
  }
}

TEST_CASE("intervals and bitset agree on random patterns of many tokens") {
  for (std::uint32_t seed = 1; seed <= 60; ++seed) {
    RandomPatterns random(seed);
    const Index tokens = 5000 + random.below(20000);
    const int layers = static_cast<int>(1 + random.below(9));
    const ReachPattern pattern = random.pattern(tokens / 40, layers);
    const ReachSequence sequence{tokens, random.below(tokens), layers,
                                 pattern.ring ? std::vector<Index>{} : random.documents(tokens)};
    for (const ReachView view : {ReachView::lo, ReachView::up}) {
      const ReachProblem problem = make_problem(pattern, sequence, view);
      INFO(fmt::format("seed {}, n = {}, {} layers: {}", seed, tokens, layers, pattern.describe()));
      REQUIRE(sets_of(intervals, problem) == sets_of(bitset, problem));
    }
  }
}

TEST_CASE("a ring of 16 tokens with radius 2 gives token 0 the neighbourhood 14, 15, 0, 1, 2") {
  const ReachPattern pattern = pi_pattern("I", {2, 3}, false, true);
  const Sets sets = sets_of(intervals, make_problem(pattern, {16, 0, 1, {}}, ReachView::lo));
  CHECK(sets.front().parts() == std::vector<Interval>{{0, 2}, {14, 15}});
}

TEST_CASE("all multiples of a period go around a ring once") {
  ReachPattern pattern;
  pattern.causal = false, pattern.ring = true;
  ReachPrimitive stride;
  stride.kind = Kind::stride, stride.period = 3, stride.count = 0;
  pattern.primitives = {stride};
  const Sets sets = sets_of(intervals, make_problem(pattern, {16, 0, 1, {}}, ReachView::lo));
  // 3, 6, 9, 12, 15 one way and 13, 10, 7, 4, 1 the other.
  CHECK(sets[0].parts() == std::vector<Interval>{{0, 1}, {3, 4}, {6, 7}, {9, 10}, {12, 13}, {15, 15}});
}

TEST_CASE("engines refuse what would take too long or too much memory, and say how much that is") {
  const auto problem = [](const ReachPattern& pattern, Index tokens) {
    return make_problem(pattern, {tokens, tokens - 1, 1, {}}, ReachView::lo);
  };
  const ReachPattern rule_a = causal_pi("A", 4, 16);
  CHECK_THROWS_WITH(sets_of(graph, problem(rule_a, 65537)), ContainsSubstring("n = 65537 has 4.3e+09 pairs"));
  CHECK_THROWS_WITH(sets_of(bitset, problem(rule_a, most_bitset_tokens + 1)), ContainsSubstring("2 GB"));
  CHECK_THROWS_WITH(reach_of(causal_pi("C", 0, 2), Index{1} << 30, 1), ContainsSubstring("128 MB"));
  ReachPattern all;
  ReachPrimitive sink;
  sink.kind = Kind::sink, sink.first = 20000;
  all.causal = false, all.primitives = {sink};
  CHECK_THROWS_WITH(sets_of(graph, problem(all, 20000)), ContainsSubstring("1 GB"));
}

TEST_CASE("a sink is seen by everyone, documents and blocks end the view") {
  ReachPattern pattern;
  ReachPrimitive sink, window, block;
  window.kind = Kind::window, window.left = 2;
  sink.kind = Kind::sink, sink.first = 3;
  block.kind = Kind::block, block.size = 8;
  pattern.primitives = {window, sink};
  const Sets sinks = sets_of(intervals, make_problem(pattern, {100, 70, 2, {40, 60}}, ReachView::lo));
  CHECK(sinks[1].parts() == std::vector<Interval>{{40, 42}, {66, 70}});
  pattern.primitives = {block};
  const Sets blocks = sets_of(intervals, make_problem(pattern, {100, 70, 3, {}}, ReachView::lo));
  CHECK(blocks[2].parts() == std::vector<Interval>{{64, 70}});
}

TEST_CASE("expected coverage of LongHeads is that of independent uniform picks") {
  // Chunks of 256; first, previous and own are forced, 13 of the others are picked in each of 32 heads: a chunk is seen
  // with probability 1 - (1 - 13/free)^32.
  for (const Index tokens : {Index{32768}, Index{65536}, Index{131072}}) {
    ReachPattern pattern;
    ReachPrimitive first, own, pick;
    first.kind = Kind::sink, first.first = 256;
    own.kind = Kind::block, own.size = 256, own.before = 1;
    pick.kind = Kind::select, pick.size = 256, pick.pick = 13, pick.heads = 32, pick.first = 1, pick.before = 1;
    pattern.primitives = {first, own, pick};
    const ReachProblem drawn = make_problem(pattern, {tokens, tokens - 1, 1, {}}, ReachView::drawn);
    const double free = static_cast<double>(tokens / 256 - 3);
    const double share = 1 - std::pow(1 - 13 / free, 32);
    const double expected = 3 * 256 - 1 + share * free * 256;
    const std::vector<ExpectedReach> mean = expected_reach(drawn, 64, 1);
    CHECK_THAT(mean.front().count, WithinRel(expected, 0.01));
    const double published = tokens == 32768 ? 0.97 : tokens == 65536 ? 0.82 : 0.56;
    CHECK_THAT((mean.front().count - 767) / (free * 256), WithinAbs(published, 0.01));
  }
}

TEST_CASE("expected coverage of buckets is that of independent uniform hashes") {
  ReachPattern pattern;
  ReachPrimitive bucket;
  bucket.kind = Kind::bucket, bucket.buckets = 16, bucket.heads = 2;
  pattern.primitives = {bucket};
  const ReachProblem drawn = make_problem(pattern, {20001, 20000, 1, {}}, ReachView::drawn);
  CHECK_THAT(expected_reach(drawn, 32, 1).front().count, WithinRel(20000 * (1 - std::pow(15.0 / 16, 2)), 0.02));
}

TEST_CASE("a recurrent state covers nothing token by token") {
  ReachPattern pattern;
  ReachPrimitive window, state;
  window.kind = Kind::window, window.left = 4;
  state.kind = Kind::state;
  pattern.primitives = {window, state};
  const ReachReport report = report_reach(pattern, {1000, 999, 3, {}}, ReachEngine::automatic);
  CHECK(report.lo.layers[2].earlier.contiguous == 12);
  CHECK(!report.lo.layers_to_cover);
  CHECK(report.coarse.value().layers_to_cover == 1);
  CHECK(report.resolution == 0);
}
