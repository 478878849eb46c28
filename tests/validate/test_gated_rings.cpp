// Rings bring the values that a gated skip reads: hops, bytes and times by formulas of ranks P, block B, window w and
// period p.
#include <fmt/format.h>

#include <algorithm>

#include "tests/catch.hpp"
#include "tests/each_op.hpp"
#include "tests/sim/same_result.hpp"
#include "tests/validate/ring_times.hpp"

using namespace orrery;

namespace {

constexpr Index block = 64;
constexpr int ranks = 6;

/// Causal, contiguous, 2 KV heads of 32 in bf16. Period 0: no skip.
IdealCase gated_case(Index left, Index period) {
  IdealCase c = ideal_case();
  c.groups = ranks;
  c.tokens = block * ranks;
  c.causal = true;
  c.pattern = {{.kind = Primitive::Kind::window, .left = left}};
  if (period > 0) c.pattern.push_back({.kind = Primitive::Kind::gated_skip, .period = period});
  return c;
}

/// Tokens away, of which the nearest lies ceil(lag / B) blocks back, and no block lies further than the first.
int blocks_away(Index lag) {
  return static_cast<int>(std::min<Index>((lag + block - 1) / block, ranks - 1));
}
int key_hops(Index left) {
  return blocks_away(left);
}
int value_hops(const IdealCase& c, Index left, Index period) {
  return std::max(blocks_away(left), period < c.tokens ? blocks_away(period) : 0);
}

/// K, or V, of a group's tokens for the heads of a member.
double tensor_bytes(const IdealCase& c) {
  return kv_bytes(c.tokens / c.groups, kv_heads_per_member(c.kv_heads, c.members), c.head_dim, 2).si() / 2;
}

/// What each rank sends, which is the same on all of them.
double sent_by_each_gated_rank(const IdealCase& c) {
  const AttentionProgram program = program_of(c);
  const SimulationResult result = simulate(program, one_node(c));
  const double bytes = program.work_of(0).sent.si();
  for (Rank r = 0; r < c.ranks(); ++r) {
    CHECK(program.work_of(r).sent.si() == bytes);
    CHECK(result.ranks[static_cast<std::size_t>(r)].sent.si() == bytes);
    CHECK(result.ranks[static_cast<std::size_t>(r)].received.si() == bytes);
  }
  return bytes;
}

double sent_backward(IdealCase c) {
  c.backward = false;
  const double forward = sent_by_each_gated_rank(c);
  c.backward = true;
  return sent_by_each_gated_rank(c) - forward;
}

struct Skip {
  Index left, period;
};

/// Within the block, to its end, and just beyond; up to the first block; beyond the sequence; windows of no block, of
/// one and of several.
std::vector<Skip> skips() {
  std::vector<Skip> all;
  for (const Index left : {0, 10, 64, 65, 200}) {
    for (const Index period : {1, 63, 64, 65, 128, 129, 200, 256, 319, 320, 321, 383, 384, 1000})
      all.push_back({left, period});
  }
  return all;
}

}  // namespace

TEST_CASE("a ring hops as far as values are read, with K as far as keys are scored") {
  for (const auto& [left, period] : skips()) {
    INFO(fmt::format("window {}, period {}", left, period));
    const IdealCase c = gated_case(left, period);
    const AttentionProgram program = program_of(c);
    CHECK(program.steps(program.visits()[0]) == value_hops(c, left, period) + 1);
    CHECK(sent_by_each_gated_rank(c) == (key_hops(left) + value_hops(c, left, period)) * tensor_bytes(c));
  }
}

TEST_CASE("a skip sends nothing more where the window's hops bring its values, or where it reads none") {
  const std::vector<Skip> brought = {{1, 1}, {10, 64}, {65, 128}, {200, 256}, {10, 384}, {0, 384}, {10, 1000}};
  for (const auto& [left, period] : brought) {
    INFO(fmt::format("window {}, period {}", left, period));
    IdealCase gated = gated_case(left, period), alone = gated_case(left, 0);
    gated.backward = alone.backward = true;
    for (const RingBackward way : {RingBackward::own, RingBackward::last_received}) {
      gated.implementation.ring_backward = alone.implementation.ring_backward = way;
      CHECK(sent_by_each_gated_rank(gated) == sent_by_each_gated_rank(alone));
      CHECK(run(gated).end == run(alone).end);
    }
  }
}

TEST_CASE("a ring's keys and gradients of a far skip: V comes again, and dK goes home with dV") {
  for (const auto& [left, period] : skips()) {
    for (const bool fp32 : {false, true}) {
      INFO(fmt::format("window {}, period {}", left, period));
      IdealCase c = gated_case(left, period);
      c.implementation.gradients_in_fp32 = fp32;
      const int keys = key_hops(left), values = value_hops(c, left, period);
      const double gradient = (fp32 ? 2 : 1) * 2 * tensor_bytes(c);
      const int home = values > 0 ? 1 : 0;
      CHECK(sent_backward(c) == (keys + values) * tensor_bytes(c) + (values + home) * gradient);
    }
  }
}

TEST_CASE("where the backward pass begins with the block that came last, its keys come along and go home with it") {
  for (const auto& [left, period] : skips()) {
    INFO(fmt::format("window {}, period {}", left, period));
    IdealCase c = gated_case(left, period);
    c.implementation.ring_backward = RingBackward::last_received;
    const double hop = value_hops(c, left, period) * 2 * tensor_bytes(c);
    CHECK(sent_by_each_gated_rank(c) == hop);
    CHECK(sent_backward(c) == 2 * hop);
  }
}

TEST_CASE("loops that look at no pattern bring all values with their keys") {
  for (const auto& [left, period] : skips()) {
    INFO(fmt::format("window {}, period {}", left, period));
    IdealCase c = gated_case(left, period);
    c.implementation.extra_ring_hop = true;
    CHECK(sent_by_each_gated_rank(c) == ranks * 2 * tensor_bytes(c));
    for (const int inner : {1, 2, 3, 6}) {
      IdealCase gated = gated_case(left, period), alone = gated_case(left, 0);
      gated.schedule = alone.schedule = "double_ring";
      gated.inner_ring = alone.inner_ring = inner;
      CHECK(sent_by_each_gated_rank(gated) == (ranks - 1) * 2 * tensor_bytes(gated));
      CHECK(sent_backward(gated) == sent_backward(alone));
    }
  }
}

TEST_CASE("USP's ring of groups brings values as a ring of ranks does, beside the exchange of heads") {
  for (const auto& [left, period] : skips()) {
    INFO(fmt::format("window {}, period {}", left, period));
    IdealCase c = gated_case(left, period);
    c.schedule = "usp";
    c.members = 2;
    const Index rows = c.block();
    const double exchange = (head_exchange_bytes(rows, 2, c.heads, c.kv_heads, c.head_dim, 2, true) +
                             head_exchange_bytes(rows, 2, c.heads, c.kv_heads, c.head_dim, 2, false))
                                .si();
    const int keys = key_hops(left), values = value_hops(c, left, period);
    CHECK(sent_by_each_gated_rank(c) == exchange + (keys + values) * tensor_bytes(c));
    const double gradients = values > 0 ? (values + 1) * 2 * tensor_bytes(c) : 0;
    CHECK(sent_backward(c) == exchange + (keys + values) * tensor_bytes(c) + gradients);
  }
}

TEST_CASE("in every layout a ring ends with the farthest block that a value is read from") {
  for (const Layout& layout : layouts()) {
    for (const Index period : {1, 5, 11, 12, 13, 29, 48, 70, 95, 96}) {
      IdealCase c = gated_case(1, period);
      c.tokens = 96;
      c.groups = 4;
      c.residue_period = 8;
      c.layout = layout.name;
      INFO(fmt::format("{}, period {}", layout.name, period));
      const AttentionProgram program = program_of(c);
      std::vector<int> group_of(static_cast<std::size_t>(c.tokens));
      for (int g = 0; g < c.groups; ++g) {
        for (const Index token : program.input().geometry.group_tokens[static_cast<std::size_t>(g)].tokens())
          group_of[static_cast<std::size_t>(token)] = g;
      }
      int farthest = 0;
      for (Index token = 0; token < c.tokens; ++token) {
        for (const Index lag : {Index{1}, period}) {
          if (lag > token) continue;
          const int hops = group_of[static_cast<std::size_t>(token)] - group_of[static_cast<std::size_t>(token - lag)];
          farthest = std::max(farthest, (hops + c.groups) % c.groups);
        }
      }
      CHECK(program.steps(program.visits()[0]) == farthest + 1);
    }
  }
}

TEST_CASE("blocks that come for their values alone run no attention") {
  for (const std::string schedule : {"ring", "double_ring"}) {
    IdealCase gated = gated_case(10, 200), alone = gated_case(10, 0);
    gated.schedule = alone.schedule = schedule;
    gated.inner_ring = alone.inner_ring = 2;
    gated.backward = alone.backward = true;
    const AttentionProgram with = program_of(gated), without = program_of(alone);
    const auto kernels = [](const AttentionProgram& program, Rank rank) {
      int count = 0;
      for_each_op(program, rank, Category::attention, [&](const Op& op, auto) { count += op.duration > 0 ? 1 : 0; });
      return count;
    };
    for (Rank r = 0; r < ranks; ++r) {
      CHECK(kernels(with, r) == 2 * (r == 0 ? 1 : 2));  // the own block, and the one before
      CHECK(kernels(without, r) == kernels(with, r));
      CHECK(with.work_of(r).executed == without.work_of(r).executed);
      CHECK(with.work_of(r).useful == without.work_of(r).useful);
    }
  }
}

TEST_CASE("hops that nothing hides take their bytes' time: K and V of the window, then V alone") {
  IdealCase c = gated_case(10, 200);
  c.matrix_peak = 1e21;
  const auto hop = [&](int tensors) { return hop_ticks(c, Bytes::from_si(tensors * tensor_bytes(c))); };
  const SimulationResult result = run(c);
  const Ticks expected = hop(2) + 3 * hop(1);  // 200 tokens are 4 blocks of 64, of which the window brings one
  CHECK(static_cast<double>(result.end) == Approx(static_cast<double>(expected)).epsilon(1e-3));
  CHECK(static_cast<double>(result.ranks[3].exposed_comm) ==
        Approx(static_cast<double>(expected)).epsilon(1e-3));  // attention takes nothing
}

TEST_CASE("V alone is one message, also where K and V are two") {
  IdealCase c = gated_case(10, 128);
  c.implementation.kv_messages = 2;
  c.implementation.message_startup = constant(3e-6);
  const AttentionProgram program = program_of(c);
  OpBuffer buffer;
  const auto startup_of_step = [&](int step) {
    program.generate(0, program.block_of_step(program.visits()[0], step), buffer);
    const auto hop =
        std::find_if(buffer.ops().begin(), buffer.ops().end(), [](const Op& op) { return op.message_count > 0; });
    REQUIRE(hop != buffer.ops().end());
    return hop->duration;
  };
  CHECK(startup_of_step(0) == to_ticks(Seconds::from_si(2 * 3e-6)));
  CHECK(startup_of_step(1) == to_ticks(Seconds::from_si(3e-6)));
}

TEST_CASE("a kernel that sums gradients sums dV alone of blocks that only a skip reads") {
  // The window reads the block before, the skip the third before; nobody reads the second.
  const Index period = 3 * block;
  for (const RingBackward way : {RingBackward::own, RingBackward::last_received}) {
    IdealCase c = gated_case(10, period);
    c.backward = true;
    c.implementation.gradient_sum = Merge::kernel;
    c.implementation.ring_backward = way;
    const AttentionProgram program = program_of(c);
    // dK and dV: two reads and one write of two bytes. The first block of a travelling gradient has nothing to add to:
    // the own one, or the one that came last.
    const double tensor = 3 * tensor_bytes(c);
    const bool own_first = way == RingBackward::own;
    for (Rank r = 0; r < ranks; ++r) {
      const double window = r >= 1 ? 2 * tensor : 0, skip = r >= 3 ? tensor : 0;
      double summed = 0;
      for_each_op(program, r, Category::merge, [&](const Op& op, auto) { summed += op.hbm_traffic.si(); });
      INFO(fmt::format("rank {}, {}", r, own_first ? "own block first" : "last received first"));
      CHECK(summed == window + (own_first ? skip : 2 * tensor));
    }
  }
}

TEST_CASE("ranks that sum dV and ranks that sum nothing are not taken for alike") {
  for (const std::string schedule : {"ring", "double_ring", "all_gather"}) {
    INFO(schedule);
    IdealCase c = gated_case(10, 3 * block);
    c.schedule = schedule;
    c.inner_ring = schedule == "double_ring" ? 2 : 1;
    c.backward = true;
    c.hbm = 1e10;
    c.implementation.gradient_sum = Merge::kernel;
    c.implementation.gather_attention = GatherAttention::per_rank;
    c.implementation.gather_gradients = GatherGradients::ring;
    const AttentionProgram program = program_of(c);
    const LinkSpec link{BytesPerSecond::from_si(c.bandwidth), Seconds::from_si(c.link_latency)};
    const Cluster cluster = full_mesh({0, BytesPerSecond::from_si(0)}, {ranks, link});
    const SimulationResult events = simulate(program, cluster, {.engine = Engine::event});
    check_same(events, simulate(program, cluster, {.engine = Engine::dependency}));
    const auto merge = static_cast<std::size_t>(Category::merge);
    CHECK(events.ranks[3].category_busy[merge] != events.ranks[2].category_busy[merge]);
  }
}
