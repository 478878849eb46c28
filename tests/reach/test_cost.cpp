// The cost of a pattern against the program of the schedule halo and against closed forms.
#include <fmt/format.h>

#include "scenarios/reach_cost.hpp"
#include "tests/catch.hpp"
#include "tests/reach/random_patterns.hpp"
#include "tests/reach/reach_runs.hpp"
#include "tests/validate/tiny_programs.hpp"

using namespace orrery;

TEST_CASE("pairs and bytes are those of the halo program") {
  struct Case {
    Index k, pi, count;
    bool causal;
    Index first;
    bool gated = false;  // the skip reads the value alone
  };
  for (const Case c : {Case{3, 5, 1, true, 0},
                       {3, 20, 1, true, 0},
                       {9, 4, 0, true, 2},
                       {2, 7, 2, false, 0},
                       {3, 20, 1, true, 0, true},
                       {3, 64, 1, true, 2, true}}) {
    TinyCase tiny;
    tiny.schedule = "halo", tiny.tokens = 64, tiny.groups = 8, tiny.layers = 3;
    tiny.causal = c.causal, tiny.backward = false;
    Primitive window{.kind = Primitive::Kind::window, .left = c.k, .right = c.causal ? 0 : c.k};
    Primitive stride{.kind = Primitive::Kind::stride, .period = c.pi, .count = c.count};
    if (c.gated) stride.kind = Primitive::Kind::gated_skip;
    Primitive sink{.kind = Primitive::Kind::sink, .first = c.first};
    tiny.pattern = {window, stride, sink};
    const AttentionProgram program = tiny_program(tiny);
    double sent = 0;
    for (Rank rank = 0; rank < 8; ++rank) sent += program.work_of(rank).kv_sent.si();

    ReachPattern pattern;
    pattern.causal = c.causal;
    for (const Primitive& p : tiny.pattern) pattern.primitives.push_back(to_reach(p));
    const ReachHardware hardware{tiny.heads, tiny.kv_heads, tiny.head_dim, 2, 8};
    const ReachCost cost = reach_cost(pattern, {64, 63, 3, {}}, hardware);
    INFO(fmt::format("k = {}, pi = {}, count = {}, gated = {}", c.k, c.pi, c.count, c.gated));
    CHECK_THAT(cost.bytes_all_ranks * 3, WithinRel(sent, 1e-12));
    Index pairs = 0;
    for (Index q = 0; q < 64; ++q) {
      for (Index key = 0; key < 64; ++key) pairs += program.input().masks.front().allows(q, key) ? 1 : 0;
    }
    CHECK_THAT(cost.pairs_per_token * 64, WithinRel(static_cast<double>(pairs), 1e-12));
  }
}

TEST_CASE("the halo of pi-Attention at 32K tokens on 8 GPUs is 4.19 MB") {
  const ReachHardware hardware{32, 8, 128, 2, 8};
  const ReachCost cost = reach_cost(causal_pi("A", 256, 1024), {32768, 32767, 12, {}}, hardware);
  CHECK(cost.bytes_busiest_rank == 4.0 * 1024 * 1024);
  // min(i, 256) + 1 keys in the window, and the skip of all but the first 1024 queries.
  CHECK(cost.pairs_per_token * 32768 == 32768.0 * 257 - 256.0 * 257 / 2 + (32768 - 1024));
  ReachPattern full;
  full.primitives = {{}};
  const ReachCost ring = reach_cost(full, {32768, 32767, 12, {}}, hardware);
  CHECK(ring.bytes_busiest_rank == 7.0 * 4 * 4096 * 1024);
}

TEST_CASE("a gated skip scores no key and sends values alone") {
  ReachPattern pattern;
  pattern.primitives = {to_reach({.kind = Primitive::Kind::window, .left = 4}),
                        to_reach({.kind = Primitive::Kind::gated_skip, .period = 16})};
  CHECK(pattern.describe() == "window(left 4) + gated_skip(16), causal");
  const ReachCost cost = reach_cost(pattern, {1024, 1023, 1, {}}, {1, 1, 1, 1, 8});
  CHECK(cost.pairs_per_token * 1024 == 5 * 1024 - (1 + 2 + 3 + 4));
  CHECK(cost.bytes_busiest_rank == 4 + 16);  // K of the window's rows, V of those and the skip's
}

TEST_CASE("a ring of tokens costs the same for every token, on both sides") {
  const ReachPattern pattern = pi_pattern("A", {4, 16}, false, true);
  const ReachCost cost = reach_cost(pattern, {1024, 0, 1, {}}, {1, 1, 1, 1, 8});
  CHECK(cost.pairs_per_token == 2 * 4 + 1 + 2);
  CHECK(cost.bytes_busiest_rank == 2.0 * 2 * 16);
}

TEST_CASE("a summary costs one key for each earlier chunk") {
  ReachPattern pattern;
  ReachPrimitive summary;
  summary.kind = ReachPrimitive::Kind::summary, summary.size = 5;
  pattern.primitives = {summary};
  const ReachCost cost = reach_cost(pattern, {48, 47, 2, {}}, {1, 1, 1, 1, 4});
  Index pairs = 0;
  for (Index query = 0; query < 48; ++query) pairs += query / 5;
  CHECK_THAT(cost.pairs_per_token * 48, WithinRel(static_cast<double>(pairs), 1e-12));
  CHECK(cost.bytes_busiest_rank == 2.0 * (36 / 5));
}

TEST_CASE("blocks fetch the rest of the blocks that a rank begins and ends in") {
  for (const bool causal : {true, false}) {
    ReachPattern pattern;
    pattern.causal = causal;
    ReachPrimitive block;
    block.kind = ReachPrimitive::Kind::block, block.size = 5, block.before = 1;
    pattern.primitives = {block};
    Index rows = 0;
    for (Index query = 0; query < 48; query += 12) {
      for (Index key = 0; key < 48; ++key) {
        bool needed = false;
        for (Index q = query; q < query + 12; ++q) {
          needed = needed || ((!causal || key <= q) && std::abs(q / 5 - key / 5) <= 1);
        }
        rows += needed && (key < query || key >= query + 12) ? 1 : 0;
      }
    }
    CHECK(reach_cost(pattern, {48, 47, 2, {}}, {1, 1, 1, 1, 4}).bytes_all_ranks == 2.0 * static_cast<double>(rows));
  }
}

namespace {

/// Whether a query scores a key, by definition.
struct Scored {
  double probability = 0;  // over uniform random choices
  bool possible = false;   // for some input
};

/// Positions are those in the document, which has n tokens.
Scored scored(const ReachPrimitive& p, const ReachPattern& pattern, Index n, int layer, Index query, Index key) {
  using Kind = ReachPrimitive::Kind;
  const auto certain = [](bool yes) { return Scored{yes ? 1.0 : 0.0, yes}; };
  const Index lag = query - key;
  switch (p.kind) {
    case Kind::full:
      return certain(true);
    case Kind::sink:
      return certain(key < p.first);
    case Kind::block:
      return certain(std::abs(query / p.size - key / p.size) <= p.before);
    case Kind::bucket:
      return {query == key ? 1 : 1 / static_cast<double>(p.buckets), true};
    case Kind::window:
      for (Index wanted = pattern.causal ? 0 : -p.right; wanted <= p.left; ++wanted) {
        if (pattern.ring ? (wanted - lag) % n == 0 : wanted == lag) return certain(true);
      }
      return {};
    case Kind::stride: {
      const Index period = p.doubling ? p.period << (layer - 1) : p.period;
      for (Index i = 1; i <= (p.count == 0 ? (n - 1) / period : p.count); ++i) {
        for (const Index wanted : {i * period, -i * period}) {
          if (wanted < 0 && pattern.causal) continue;
          if (pattern.ring ? period % n != 0 && (wanted - lag) % n == 0 : wanted == lag) return certain(true);
        }
      }
      return {};
    }
    case Kind::select: {
      const Index first = query / p.query_block * p.query_block;
      const Index last = std::min(first + p.query_block, n) - 1;
      Index available = 0;
      bool mine = false;
      for (Index block = p.first; block * p.size < n; ++block) {
        const bool earlier = block + p.before < first / p.size;
        const bool later = !pattern.causal && block > last / p.size + p.before;
        if (!earlier && !later) continue;
        ++available;
        mine = mine || block == key / p.size;
      }
      if (!mine) return {};
      return {static_cast<double>(std::min(p.pick, available)) / static_cast<double>(available), true};
    }
    default:
      return {};
  }
}

struct BruteForce {
  double pairs = 0;
  Index rows = 0;
};

BruteForce brute_force(const ReachPattern& pattern, const ReachSequence& sequence, Index ranks) {
  const Index n = sequence.tokens, share = n / ranks;
  BruteForce sum;
  const std::vector<Index> documents = sequence.documents.empty() ? std::vector<Index>{n} : sequence.documents;
  for (int layer = 1; layer <= sequence.layers; ++layer) {
    for (int stage = 1; stage <= 3; ++stage) {
      Index begin = 0;
      for (const Index length : documents) {
        for (Index key = 0; key < length; ++key) {
          std::vector<bool> wanted(static_cast<std::size_t>(ranks));
          for (Index query = pattern.causal ? key : 0; query < length; ++query) {
            double missed = 1;
            for (const ReachPrimitive& p : pattern.primitives) {
              if (p.stage != stage || !p.layers.active(layer, sequence.layers)) continue;
              const Scored s = scored(p, pattern, length, layer, query, key);
              missed *= 1 - s.probability;
              if (s.possible) wanted[static_cast<std::size_t>((begin + query) / share)] = true;
            }
            sum.pairs += 1 - missed;
          }
          wanted[static_cast<std::size_t>((begin + key) / share)] = false;
          sum.rows += std::count(wanted.begin(), wanted.end(), true);
        }
        begin += length;
      }
    }
  }
  return sum;
}

}  // namespace

TEST_CASE("pairs and rows of 400 random patterns are those of the definition") {
  for (std::uint32_t seed = 1; seed <= 400; ++seed) {
    RandomPatterns random(seed);
    const Index ranks = 1 + random.below(4);
    const Index tokens = ranks * (1 + random.below(10));
    const int layers = static_cast<int>(1 + random.below(3));
    ReachPattern pattern = random.pattern(tokens, layers);
    for (ReachPrimitive& p : pattern.primitives) {
      if (p.depends_on_data()) p.pick = random.below(4), p.buckets = 1 + random.below(4);
    }
    const ReachSequence sequence{tokens, 0, layers, pattern.ring ? std::vector<Index>{} : random.documents(tokens)};
    INFO(fmt::format("seed {}, n = {} in {} documents, {} ranks, {} layers: {}", seed, tokens,
                     sequence.documents.size(), ranks, layers, pattern.describe()));
    const BruteForce expected = brute_force(pattern, sequence, ranks);
    const ReachCost cost = reach_cost(pattern, sequence, {1, 1, 1, 1, ranks});
    const double of_all = static_cast<double>(tokens) * layers;
    REQUIRE_THAT(cost.pairs_per_token * of_all, WithinRel(expected.pairs, 1e-12));
    REQUIRE_THAT(cost.bytes_all_ranks * layers, WithinRel(2.0 * static_cast<double>(expected.rows), 1e-12));
  }
}

TEST_CASE("the busiest rank is that of whole layers") {
  // Stage 1: everybody needs the 3 sinks of rank 0. Stage 2: a skip of 4, so that ranks 1 to 3 need 4 rows each.
  ReachPattern pattern;
  ReachPrimitive sink, skip;
  sink.kind = ReachPrimitive::Kind::sink, sink.first = 3;
  skip.kind = ReachPrimitive::Kind::stride, skip.period = 4, skip.count = 1, skip.stage = 2;
  pattern.primitives = {sink, skip};
  CHECK(reach_cost(pattern, {16, 15, 5, {}}, {1, 1, 1, 1, 4}).bytes_busiest_rank == 2.0 * (3 + 4));
}

TEST_CASE("too many queries to look at one by one are refused with the number") {
  ReachPattern pattern;
  ReachPrimitive block;
  block.kind = ReachPrimitive::Kind::block, block.size = 64;
  pattern.primitives = {block};
  const Index tokens = Index{1} << 30;
  CHECK_THROWS_WITH(reach_cost(pattern, {tokens, tokens - 1, 1, {}}, {}), ContainsSubstring("1073741824 tokens"));
}

TEST_CASE("ranks must divide the tokens") {
  CHECK_THROWS_WITH(reach_cost(causal_pi("A", 4, 16), {100, 99, 1, {}}, {1, 1, 1, 1, 8}),
                    ContainsSubstring("does not divide"));
}
