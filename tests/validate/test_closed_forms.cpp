// Step times of gathers, head exchanges, double rings and halos to the picosecond. Every expected value is a formula of
// validate/closed_form.hpp or stands in the test.
#include <fmt/format.h>

#include <algorithm>

#include "tests/catch.hpp"
#include "tests/validate/ring_times.hpp"

using namespace orrery;

TEST_CASE("NCCL gathers over N nodes in N - 1 hops of one block, then inside a node in L - 1 hops of N blocks") {
  IdealCase c = ring_case(8, 1e12);
  c.schedule = "all_gather";
  c.implementation.transport = Transport::nccl;
  c.implementation.message_startup = constant(2e-6);
  const Bytes block = block_bytes(c, 2);
  const auto hop = [&](int blocks) { return hop_ticks(c, blocks * block, Seconds::from_si(2e-6)); };
  const Ticks forward = attention_ticks(c, c.block() * c.tokens, c.heads);
  const Ticks backward = attention_ticks(c, c.block() * c.tokens, c.heads, Phase::backward);
  for (const int places : {2, 4}) {
    const int nodes = 8 / places;
    c.inner_ring = places;
    const Ticks gather = (nodes - 1) * hop(1) + (places - 1) * hop(nodes);
    CHECK(run(c).end == gather + forward);
    CHECK(backward_ticks(c) == 2 * gather + backward);
  }
}

TEST_CASE("an all-gather takes P - 1 hops, then attention") {
  for (const int ranks : ring_sizes) {
    for (const double peak : {1e12, 1e14}) {
      IdealCase c = ring_case(ranks, peak);
      c.schedule = "all_gather";
      c.layers = 2;
      c.implementation.message_startup = constant(2e-6);
      const Seconds startup = Seconds::from_si(2e-6);
      const Bytes block = block_bytes(c, 2);
      const Ticks hop = hop_ticks(c, block, startup);
      const Ticks whole = attention_ticks(c, c.block() * c.tokens, c.heads);
      INFO(fmt::format("P = {}, attention {} ps, hop {} ps", ranks, whole, hop));
      CHECK(run(c).end == 2 * all_gather_forward(ranks, 1, hop, whole));
      const Ticks whole_backward = attention_ticks(c, c.block() * c.tokens, c.heads, Phase::backward);
      CHECK(backward_ticks(c) == 2 * all_gather_backward(ranks, hop, whole_backward, hop));
      c.implementation.gradients_in_fp32 = true;
      const Ticks fp32_hop = hop_ticks(c, 2 * block, startup);
      CHECK(backward_ticks(c) == 2 * all_gather_backward(ranks, hop, whole_backward, fp32_hop));

      c.implementation.gather_kv_heads = 1;
      c.layers = 1;
      const Ticks part_hop = hop_ticks(c, block / c.kv_heads, startup);
      const Ticks part = attention_ticks(c, c.block() * c.tokens, c.heads / c.kv_heads);
      CHECK(run(c).end == all_gather_forward(ranks, c.kv_heads, part_hop, part));
    }
  }
}

TEST_CASE("gathered keys of a causal zigzag take a kernel for each chunk, backward two before whose sums follow") {
  IdealCase c = ideal_case();
  c.schedule = "all_gather";
  c.layout = "zigzag";
  c.groups = 2;
  c.tokens = 1024;
  c.causal = true;
  c.implementation.kernel_gap = constant(1e-6);  // of every kernel
  const auto gaps = [&](bool backward) {
    IdealCase apart = c;
    apart.backward = c.backward = backward;
    apart.implementation.gather_chunks = true;
    return static_cast<double>(run(apart).end - run(c).end) / static_cast<double>(to_ticks(Seconds::from_si(1e-6)));
  };
  const double forward = gaps(false);
  CHECK_THAT(forward, WithinAbs(1, 1e-3));  // two kernels, not one
  // Of the second and third quarter: what is before it and the diagonal, and a sum of dQ each; of the keys that both
  // have seen a sum of dK and of dV: eight kernels. The rank of the first and fourth has nothing before the first: six.
  CHECK_THAT(gaps(true) - forward, WithinAbs(8 - 1, 1e-3));
  // A sum reads two and writes one, of 256 queries with their heads or of the 512 keys with theirs.
  c.backward = c.implementation.gather_chunks = true;
  const AttentionProgram program = program_of(c);
  OpBuffer buffer;
  std::vector<double> bytes;
  for (std::int64_t block = 0; block < program.blocks(); ++block) {
    const std::vector<Action> actions = program.actions(1, block, buffer);
    for (std::size_t i = 0; i < actions.size(); ++i) {
      if (actions[i].kernel == c.implementation.gradient_sum_kernel)
        bytes.push_back(buffer.ops()[i].hbm_traffic.si() / (3 * c.element_bytes * c.head_dim));
    }
  }
  const double of_queries = 256.0 * c.heads, of_keys = 512.0 * c.kv_heads;
  CHECK(bytes == std::vector{of_queries, of_queries, of_keys, of_keys});
}

TEST_CASE("an all-gather that attends blocks apart hides under the local block alone") {
  for (const int ranks : {2, 3, 4, 7, 8, 16}) {
    for (const double peak : {0.1e12, 1e12, 4e12, 8e12}) {
      IdealCase c = ring_case(ranks, peak);
      c.schedule = "all_gather";
      c.hbm = 3e11;
      c.implementation.gather_attention = GatherAttention::per_rank;
      c.implementation.gather_gradients = GatherGradients::ring;
      c.implementation.gradients_in_fp32 = true;
      const Ticks tile = tile_ticks(c);
      const BackwardTimes t = backward_times(c);
      CHECK(run(c).end == all_gather_forward_per_rank(ranks, tile, t.kv_hop));
      CHECK(backward_ticks(c) == all_gather_backward_ring_fused(ranks, t.tile, t.kv_hop, t.gradient_hop));
      c.implementation.merge = c.implementation.gradient_sum = Merge::kernel;
      CHECK(backward_ticks(c) == all_gather_backward_ring_summed(ranks, t.tile, t.kv_hop, t.gradient_hop, t.sum));
    }
  }
}

namespace {

/// Time in which a backward kernel reads Q, K, V, O, dO and writes dQ, dK, dV: four tensors on either side.
Ticks backward_memory_ticks(const IdealCase& c, Index query_rows, Index key_rows) {
  const double row = c.head_dim * c.element_bytes;
  const double bytes = 4 * row * static_cast<double>(query_rows * c.heads + key_rows * c.kv_heads);
  return to_ticks(Seconds::from_si(bytes / c.hbm));
}

/// Head exchange among all ranks; a byte takes 10 ps, so that shares of a link are whole ticks.
IdealCase ulysses_case(int ranks, int kv_heads) {
  IdealCase c = ideal_case();
  c.schedule = "ulysses";
  c.members = ranks;
  c.tokens = 64 * ranks;
  c.heads = 64;
  c.kv_heads = kv_heads;
  c.matrix_peak = 1e14;
  c.bandwidth = 1e11;
  return c;
}

}  // namespace

TEST_CASE("a head exchange shares the links among P - 1 messages, before and after attention") {
  for (const int ranks : {1, 2, 4, 8, 16, 32, 64}) {
    for (const int kv_heads : {64, 8, 2}) {
      for (const int qkv_messages : {1, 3}) {
        IdealCase c = ulysses_case(ranks, kv_heads);
        c.implementation.message_startup = constant(4e-6);
        c.implementation.qkv_messages = qkv_messages;
        const BytesPerSecond bandwidth = BytesPerSecond::from_si(c.bandwidth);
        const Bytes query = Bytes::from_si(2.0 * static_cast<double>(c.block()) * c.heads / ranks * c.head_dim);
        const Bytes kv = kv_bytes(c.block(), kv_heads_per_member(kv_heads, ranks), c.head_dim, 2);
        const auto exchange = [&](int startups, Bytes to_each) {
          if (ranks == 1) return Ticks{0};
          return shared_link_time(Seconds::from_si(4e-6 * startups), route_latency(c), ranks - 1, to_each, bandwidth);
        };
        INFO(fmt::format("P = {}, {} KV heads, {} messages", ranks, kv_heads, qkv_messages));
        const Ticks forward = exchange(qkv_messages, query + kv) +
                              attention_ticks(c, c.tokens * c.tokens, c.heads / ranks) + exchange(1, query);
        CHECK(run(c).end == forward);
        const Ticks backward = exchange(1, query) +
                               attention_ticks(c, c.tokens * c.tokens, c.heads / ranks, Phase::backward) +
                               exchange(qkv_messages, query + kv);
        CHECK(backward_ticks(c) == backward);
      }
    }
  }
}

TEST_CASE("USP is a head exchange, a ring of the groups, and a head exchange") {
  for (const auto& [groups, members] : {std::pair{2, 2}, {4, 2}, {2, 4}, {4, 8}, {1, 8}, {8, 1}}) {
    for (const double peak : {1e12, 1e14}) {
      const int peers = members - 1;
      IdealCase c = ulysses_case(members, 16);
      c.schedule = "usp";
      c.groups = groups;
      c.tokens = 64 * groups * members;
      c.matrix_peak = peak;
      const BytesPerSecond bandwidth = BytesPerSecond::from_si(c.bandwidth);
      const Index group_block = c.tokens / groups;
      const Bytes query = Bytes::from_si(2.0 * static_cast<double>(c.block()) * c.heads / members * c.head_dim);
      const Bytes kv = kv_bytes(c.block(), kv_heads_per_member(c.kv_heads, members), c.head_dim, 2);
      const auto exchange = [&](Bytes to_each) {
        return peers == 0 ? 0 : shared_link_time({}, route_latency(c), peers, to_each, bandwidth);
      };
      const Ticks tile = attention_ticks(c, group_block * group_block, c.heads / members);
      const Ticks hop = hop_ticks(c, kv_bytes(group_block, c.kv_heads / members, c.head_dim, 2));
      INFO(fmt::format("{} groups of {}", groups, members));
      CHECK(run(c).end == exchange(query + kv) + ring_forward(groups, tile, tile, hop) + exchange(query));
    }
  }
}

TEST_CASE("a double ring that is compute-bound takes P tiles whatever its inner ring") {
  for (const int ranks : {4, 8, 16}) {
    for (int inner = 1; inner <= ranks; inner *= 2) {
      IdealCase c = ring_case(ranks, 0.4e12);
      c.schedule = "double_ring";
      c.inner_ring = inner;
      const Ticks tile = tile_ticks(c);
      REQUIRE(tile > 3 * kv_hop(c));
      CHECK(run(c).end == ranks * tile);
    }
  }
}

TEST_CASE("a halo exchange hides under local attention, and the fetched rows come after") {
  for (const double peak : {1e11, 1e13}) {
    for (const Index left : {8, 32, 64}) {
      IdealCase c = ring_case(8, peak);
      c.schedule = "halo";
      c.causal = true;
      c.pattern = {{.kind = Primitive::Kind::window, .left = left}};
      const Index block = c.block();
      // Of the block's own keys query u scores min(u, left) + 1; of the halo max(left - u, 0).
      Index local = 0, remote = 0;
      for (Index u = 0; u < block; ++u) {
        local += std::min(u, left) + 1;
        remote += std::max<Index>(left - u, 0);
      }
      const Ticks hop = hop_ticks(c, kv_bytes(halo_rows(left, 0, block), c.kv_heads, c.head_dim, 2));
      const Ticks local_ticks = attention_ticks(c, local, c.heads), remote_ticks = attention_ticks(c, remote, c.heads);
      CHECK(run(c).end == std::max(local_ticks, hop) + remote_ticks);
      c.implementation.transfer_order = TransferOrder::previous_compute;
      CHECK(run(c).end == std::max(local_ticks, hop) + remote_ticks);
      c.implementation.transfer_order = TransferOrder::same_step_compute;
      CHECK(run(c).end == local_ticks + hop + remote_ticks);

      // Backward, the gradients of the fetched rows return and are added: two reads and a write of each.
      c.implementation.transfer_order = TransferOrder::data;
      c.hbm = 3e11;
      for (const bool fp32 : {false, true}) {
        c.implementation.gradients_in_fp32 = fp32;
        const Bytes gradient = kv_bytes(halo_rows(left, 0, block), c.kv_heads, c.head_dim, fp32 ? 4 : 2);
        const Ticks way_back = hop_ticks(c, gradient);
        const Ticks local_backward =
            std::max(attention_ticks(c, local, c.heads, Phase::backward), backward_memory_ticks(c, block, block));
        const Ticks remote_backward =
            std::max(attention_ticks(c, remote, c.heads, Phase::backward), backward_memory_ticks(c, left, left));
        CHECK(backward_ticks(c) == std::max(local_backward, hop) + remote_backward + way_back +
                                       to_ticks(3 * gradient / BytesPerSecond::from_si(c.hbm)));
      }
    }
  }
}
