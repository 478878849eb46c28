// Step times of rings to the picosecond. Every expected value is a formula of
// validate/closed_form.hpp or stands in the test.
#include <fmt/format.h>

#include <algorithm>

#include "tests/catch.hpp"
#include "tests/each_op.hpp"
#include "tests/validate/ring_times.hpp"

using namespace orrery;

TEST_CASE("a forward ring takes the first tile and P - 1 times the longer of tile and hop") {
  for (const int ranks : ring_sizes) {
    for (const double peak : {0.5e12, 1e12, 1.6e12, 2e12, 1e13, 1e15}) {
      for (const int layers : {1, 3}) {
        IdealCase c = ring_case(ranks, peak);
        c.layers = layers;
        const Ticks tile = tile_ticks(c);
        const Ticks hop = kv_hop(c);
        INFO(fmt::format("P = {}, {} layers, tile {} ps, hop {} ps", ranks, layers, tile, hop));
        CHECK(run(c).end == layers * ring_forward(ranks, tile, tile, hop));
        CHECK(ring_forward(ranks, tile, tile, hop) == tile + (ranks - 1) * std::max(tile, hop));
      }
    }
  }
}

TEST_CASE("a compute-bound ring exposes no communication and a transfer-bound one all but its tiles") {
  for (const int ranks : {2, 8, 32}) {
    const IdealCase slow = ring_case(ranks, 1e12);
    const Ticks slow_tile = tile_ticks(slow);
    REQUIRE(slow_tile > kv_hop(slow));
    for (const RankTotals& rank : run(slow).ranks) {
      CHECK(rank.exposed_comm == 0);
      CHECK(rank.compute == ranks * slow_tile);
    }
    const IdealCase fast = ring_case(ranks, 1e13);
    const Ticks tile = tile_ticks(fast);
    REQUIRE(tile < kv_hop(fast));
    for (const RankTotals& rank : run(fast).ranks) CHECK(rank.exposed_comm == (ranks - 1) * (kv_hop(fast) - tile));
  }
}

TEST_CASE("start-up and launch enter a ring once per hop and once per op") {
  IdealCase c = ring_case(8, 1e15);
  c.implementation.message_startup = constant(3e-6);
  const Ticks tile = tile_ticks(c);
  for (const int messages : {1, 2}) {
    c.implementation.kv_messages = messages;
    const Ticks hop = hop_ticks(c, block_bytes(c, c.element_bytes), Seconds::from_si(3e-6 * messages));
    CHECK(run(c).end == ring_forward(8, tile, tile, hop));
    const BackwardTimes t = backward_times(c);
    const Ticks startups = to_ticks(Seconds::from_si(3e-6 * messages));  // of keys and values as of their gradients
    CHECK(backward_ticks(c) == ring_backward_fused(8, t.tile, t.kv_hop + startups, t.gradient_hop + startups));
  }
  // The host issues the hop first, then the kernel; launches alone decide if they are long.
  c.implementation.message_startup = constant(0);
  c.implementation.launch = constant(1e-3);
  const Ticks launch = to_ticks(Seconds::from_si(1e-3));
  CHECK(run(c).end == (7 * 2 + 1) * launch + tile);
}

TEST_CASE("a kernel whose last wave is told apart takes one launch and one gap, as in one op") {
  IdealCase c = ring_case(4, 0.4e12);
  c.implementation.kernel_gap = constant(2e-6);
  c.implementation.launch = constant(1e-9);
  const Ticks tile = tile_ticks(c), gap = to_ticks(Seconds::from_si(2e-6));
  for (const TransferOrder order : {TransferOrder::data, TransferOrder::free_sms}) {
    c.implementation.transfer_order = order;
    for (const RankTotals& rank : run(c).ranks) CHECK(rank.compute == 4 * (tile + gap));
  }
}

TEST_CASE("a block that goes full circle takes P times the longer of tile and hop") {
  for (const int ranks : ring_sizes) {
    for (const double peak : {1e12, 1.6e12, 1e14}) {
      IdealCase c = ring_case(ranks, peak);
      c.layers = 2;
      c.implementation.extra_ring_hop = true;
      const Ticks tile = tile_ticks(c);
      INFO(fmt::format("P = {}, tile {} ps, hop {} ps", ranks, tile, kv_hop(c)));
      CHECK(run(c).end == 2 * ring_forward_full_circle(ranks, tile, kv_hop(c)));
      const BackwardTimes t = backward_times(c);
      CHECK(backward_ticks(c) == 2 * ring_backward_full_circle(ranks, t.tile, t.kv_hop, t.gradient_hop));
    }
  }
}

TEST_CASE("a backward ring that sums in its kernel never hides a gradient hop") {
  for (const int ranks : ring_sizes) {
    for (const double peak : {1e12, 2e12, 4e12, 8e12, 1e15}) {
      for (const bool fp32 : {false, true}) {
        IdealCase c = ring_case(ranks, peak);
        c.layers = 2;
        c.implementation.gradients_in_fp32 = fp32;
        const BackwardTimes t = backward_times(c);
        INFO(fmt::format("P = {}, tile {} ps, KV hop {} ps, gradient hop {} ps", ranks, t.tile, t.kv_hop,
                         t.gradient_hop));
        CHECK(backward_ticks(c) == 2 * ring_backward_fused(ranks, t.tile, t.kv_hop, t.gradient_hop));
      }
    }
  }
}

TEST_CASE("a backward ring that sums apart exposes the gradient's last hop home") {
  for (const int ranks : ring_sizes) {
    for (const double peak : {1e12, 2e12, 4e12, 8e12}) {
      for (const bool fp32 : {false, true}) {
        IdealCase c = ring_case(ranks, peak);
        c.layers = 2;
        c.hbm = 3e11;
        c.implementation.gradients_in_fp32 = fp32;
        c.implementation.merge = c.implementation.gradient_sum = Merge::kernel;
        const BackwardTimes t = backward_times(c);
        INFO(fmt::format("P = {}, tile {} ps, KV hop {} ps, gradient hop {} ps, sum {} ps", ranks, t.tile, t.kv_hop,
                         t.gradient_hop, t.sum));
        const Ticks expected = ring_backward_summed(ranks, t.tile, t.kv_hop, t.gradient_hop, t.sum);
        CHECK(backward_ticks(c) == 2 * expected);
        const bool compute_bound = t.tile + t.sum >= t.gradient_hop + t.kv_hop;
        if (ranks > 1 && compute_bound) CHECK(expected == ranks * t.tile + (ranks - 1) * t.sum + t.gradient_hop);
        const bool transfer_bound = t.tile <= std::min(t.kv_hop, t.gradient_hop) && t.sum <= t.kv_hop &&
                                    t.tile + t.sum <= t.gradient_hop + t.kv_hop;
        if (ranks > 1 && transfer_bound) {
          CHECK(expected == (ranks - 1) * t.kv_hop + ranks * t.gradient_hop + t.sum);
        }
      }
    }
  }
}

TEST_CASE("a backward ring from the last received block ends at home without another hop") {
  for (const int ranks : ring_sizes) {
    for (const double peak : {1e12, 2e12, 4e12, 8e12}) {
      IdealCase c = ring_case(ranks, peak);
      c.layers = 2;
      c.hbm = 3e11;
      c.implementation.ring_backward = RingBackward::last_received;
      const BackwardTimes t = backward_times(c);
      INFO(fmt::format("P = {}, tile {} ps, KV hop {} ps, joint hop {} ps", ranks, t.tile, t.kv_hop, t.joint_hop));
      CHECK(backward_ticks(c) == 2 * ring_backward_to_home_fused(ranks, t.tile, t.kv_hop, t.joint_hop, t.gradient_hop));
      c.implementation.merge = c.implementation.gradient_sum = Merge::kernel;
      CHECK(backward_ticks(c) ==
            2 * ring_backward_to_home_summed(ranks, t.tile, t.kv_hop, t.joint_hop, t.gradient_hop, t.sum));
    }
  }
}

TEST_CASE("a causal contiguous ring waits for its last rank") {
  for (const int ranks : ring_sizes) {
    for (const double peak : {0.4e12, 0.1e12, 1.6e12, 1e13}) {
      IdealCase c = ring_case(ranks, peak);
      c.causal = true;
      const Ticks diagonal = attention_ticks(c, causal_pairs(c.block()), c.heads);
      const Ticks tile = tile_ticks(c);
      // No barrier parts layers: where transfers bound, ranks with less work send the next layer's block early.
      c.layers = kv_hop(c) <= diagonal ? 2 : 1;
      REQUIRE((kv_hop(c) <= diagonal || kv_hop(c) >= tile));
      const SimulationResult result = run(c);
      INFO(fmt::format("P = {}, tile {} ps, hop {} ps", ranks, tile, kv_hop(c)));
      CHECK(result.end == c.layers * ring_forward_causal_contiguous(ranks, diagonal, tile, kv_hop(c)));
      for (Rank r = 0; r < ranks; ++r) CHECK(result.ranks[r].compute == c.layers * (diagonal + r * tile));
    }
  }
}

TEST_CASE("a causal ring sums the gradients of blocks it attends to, and of those it skips only if it adds zeros") {
  const int ranks = 4;
  for (const bool adds_zeros : {false, true}) {
    IdealCase c = ring_case(ranks, 1e12);
    c.causal = c.backward = true;
    c.hbm = 3e11;
    c.implementation.gradient_sum = Merge::kernel;
    c.implementation.sums_skipped_blocks = adds_zeros;
    const AttentionProgram program = program_of(c);
    const Ticks sum = backward_times(c).sum;  // the forward pass merges in its kernels
    for (Rank rank = 0; rank < ranks; ++rank) {
      Ticks sums = 0;
      for_each_op(program, rank, Category::merge, [&](const Op& op, auto) { sums += op.duration; });
      CHECK(sums == (adds_zeros ? ranks - 1 : rank) * sum);  // rank r sees the blocks of r others
    }
  }
}

TEST_CASE("a causal contiguous ring is P / (2P - 1) efficient") {
  for (const int ranks : ring_sizes) {
    IdealCase c = ring_case(ranks, 0.1e12);
    c.causal = true;
    const AttentionProgram program = program_of(c);
    const SimulationResult result = simulate(program, one_node(c));
    double mean = 0;
    for (Rank r = 0; r < ranks; ++r) mean += program.work_of(r).useful.si() / ranks;
    const double ideal = mean / c.matrix_peak * ticks_per_second;
    const double measured = ideal / static_cast<double>(result.end);
    CHECK_THAT(measured, WithinRel(contiguous_causal_efficiency_in_pairs(ranks, c.block()), 1e-6));
    // In half blocks: the diagonal counts as half of its c^2 pairs, off by c / 2 of them.
    CHECK(std::abs(measured - contiguous_causal_efficiency(ranks)) < 1.0 / static_cast<double>(c.block()));
  }
  // As printed for the unbalanced ring.
  const std::vector<std::pair<int, std::string>> printed = {{2, "66.7"},  {4, "57.1"},  {8, "53.3"},
                                                            {16, "51.6"}, {32, "50.8"}, {64, "50.4"}};
  for (const auto& [ranks, percent] : printed) {
    CHECK(fmt::format("{:.1f}", 100 * contiguous_causal_efficiency(ranks)) == percent);
  }
}

TEST_CASE("a zigzag ring is balanced exactly") {
  for (const int ranks : ring_sizes) {
    for (const double peak : {0.1e12, 0.4e12, 0.789e12, 1.6e12, 1e13}) {
      IdealCase c = ring_case(ranks, peak);
      c.causal = true;
      c.layers = 2;
      c.layout = "zigzag";
      const Ticks first = attention_ticks(c, zigzag_pairs(c.block(), 0), c.heads);
      const Ticks tile = attention_ticks(c, zigzag_pairs(c.block(), 1), c.heads);
      const AttentionProgram program = program_of(c);
      const SimulationResult result = simulate(program, one_node(c));
      INFO(fmt::format("P = {}, first tile {} ps, tile {} ps, hop {} ps", ranks, first, tile, kv_hop(c)));
      CHECK(result.end == 2 * ring_forward(ranks, first, tile, kv_hop(c)));
      for (Rank r = 0; r < ranks; ++r) {
        CHECK(result.ranks[r].compute == 2 * (first + (ranks - 1) * tile));
        CHECK(program.work_of(r).useful.si() == program.work_of(0).useful.si());
      }
    }
  }
}

TEST_CASE("a striped ring is balanced up to the diagonal") {
  for (const int ranks : ring_sizes) {
    for (const double peak : {0.1e12, 0.4e12, 1.6e12, 1e13}) {
      IdealCase c = ring_case(ranks, peak);
      c.causal = true;
      c.layout = "striped";
      const Ticks with_diagonal = attention_ticks(c, striped_pairs(c.block(), 1, 0), c.heads);
      const Ticks without = attention_ticks(c, striped_pairs(c.block(), 0, 1), c.heads);
      c.layers = kv_hop(c) <= without ? 2 : 1;  // as above
      const SimulationResult result = run(c);
      INFO(fmt::format("P = {}, tile {} ps, hop {} ps", ranks, with_diagonal, kv_hop(c)));
      // The last rank has the diagonal in every step; where transfers bound, nobody's tile delays a hop.
      CHECK(result.end == c.layers * ring_forward(ranks, with_diagonal, with_diagonal, kv_hop(c)));
      for (Rank r = 0; r < ranks; ++r) {
        CHECK(result.ranks[r].compute == c.layers * ((r + 1) * with_diagonal + (ranks - 1 - r) * without));
      }
    }
  }
}
