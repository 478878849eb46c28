// The cost of a pattern against the program of the schedule halo and against closed forms.
#include <fmt/format.h>

#include "scenarios/reach_cost.hpp"
#include "scenarios/reach_find.hpp"
#include "tests/catch.hpp"
#include "tests/reach/reach_runs.hpp"
#include "tests/validate/tiny_programs.hpp"

using namespace orrery;

TEST_CASE("pairs and bytes are those of the halo program") {
  struct Case {
    Index k, pi, count;
    bool causal;
    Index first;
  };
  for (const Case c : {Case{3, 5, 1, true, 0}, {3, 20, 1, true, 0}, {9, 4, 0, true, 2}, {2, 7, 2, false, 0}}) {
    TinyCase tiny;
    tiny.schedule = "halo", tiny.tokens = 64, tiny.groups = 8, tiny.layers = 3;
    tiny.causal = c.causal, tiny.backward = false;
    Primitive window{.kind = Primitive::Kind::window, .left = c.k, .right = c.causal ? 0 : c.k};
    Primitive stride{.kind = Primitive::Kind::stride, .period = c.pi, .count = c.count};
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
    INFO(fmt::format("k = {}, pi = {}, count = {}", c.k, c.pi, c.count));
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
  CHECK(cost.pairs_per_token * 32768 == static_cast<double>(rule_a_pairs({256, 1024}, 32768)));
  ReachPattern full;
  full.primitives = {{}};
  const ReachCost ring = reach_cost(full, {32768, 32767, 12, {}}, hardware);
  CHECK(ring.bytes_busiest_rank == 7.0 * 4 * 4096 * 1024);
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

TEST_CASE("ranks must divide the tokens") {
  CHECK_THROWS_WITH(reach_cost(causal_pi("A", 4, 16), {100, 99, 1, {}}, {1, 1, 1, 1, 8}),
                    ContainsSubstring("does not divide"));
}
