// Step times to the picosecond. Every expected value is a formula of validate/closed_form.hpp or stands in the test.
#include <fmt/format.h>

#include <algorithm>
#include <numeric>

#include "tests/catch.hpp"
#include "tests/each_op.hpp"
#include "tests/validate/ideal_runs.hpp"
#include "validate/closed_form.hpp"

using namespace orrery;

namespace {

constexpr int ring_sizes[] = {1, 2, 3, 4, 5, 7, 8, 13, 16, 31, 32, 64};

/// A ring of `ranks` with 64 tokens each. Its KV hop takes 1 us + 327.68 ns.
IdealCase ring_case(int ranks, double matrix_peak) {
  IdealCase c = ideal_case();
  c.groups = ranks;
  c.tokens = 64 * ranks;
  c.matrix_peak = matrix_peak;
  return c;
}

struct Times {
  Ticks tile, kv_hop, gradient_hop, joint_hop, sum;
};

Times backward_times(const IdealCase& c) {
  const double gradient_element = c.implementation.gradients_in_fp32 ? 4 : c.element_bytes;
  const Bytes kv = kv_bytes(c.block(), c.kv_heads, c.head_dim, c.element_bytes);
  const Bytes gradient = kv_bytes(c.block(), c.kv_heads, c.head_dim, gradient_element);
  const BytesPerSecond bandwidth = BytesPerSecond::from_si(c.bandwidth);
  return {attention_ticks(c, c.block() * c.block(), c.heads, Phase::backward),
          message_time({}, route_latency(c), kv, bandwidth), message_time({}, route_latency(c), gradient, bandwidth),
          message_time({}, route_latency(c), kv + gradient, bandwidth),
          to_ticks(3 * gradient / BytesPerSecond::from_si(c.hbm))};
}

Ticks kv_hop(const IdealCase& c) {
  return message_time({}, route_latency(c), kv_bytes(c.block(), c.kv_heads, c.head_dim, c.element_bytes),
                      BytesPerSecond::from_si(c.bandwidth));
}

/// Time in which a backward kernel reads Q, K, V, O, dO and writes dQ, dK, dV: four tensors on either side.
Ticks backward_memory_ticks(const IdealCase& c, Index query_rows, Index key_rows) {
  const double row = c.head_dim * c.element_bytes;
  const double bytes = 4 * row * static_cast<double>(query_rows * c.heads + key_rows * c.kv_heads);
  return to_ticks(Seconds::from_si(bytes / c.hbm));
}

/// Time of the backward pass of one layer: the program without it taken away.
Ticks backward_ticks(IdealCase c) {
  c.backward = false;
  const Ticks forward = run(c).end;
  c.backward = true;
  return run(c).end - forward;
}

}  // namespace

TEST_CASE("a forward ring takes the first tile and P - 1 times the longer of tile and hop") {
  for (const int ranks : ring_sizes) {
    for (const double peak : {0.5e12, 1e12, 1.6e12, 2e12, 1e13, 1e15}) {
      for (const int layers : {1, 3}) {
        IdealCase c = ring_case(ranks, peak);
        c.layers = layers;
        const Ticks tile = attention_ticks(c, c.block() * c.block(), c.heads);
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
    const Ticks slow_tile = attention_ticks(slow, slow.block() * slow.block(), slow.heads);
    REQUIRE(slow_tile > kv_hop(slow));
    for (const RankTotals& rank : run(slow).ranks) {
      CHECK(rank.exposed_comm == 0);
      CHECK(rank.compute == ranks * slow_tile);
    }
    const IdealCase fast = ring_case(ranks, 1e13);
    const Ticks tile = attention_ticks(fast, fast.block() * fast.block(), fast.heads);
    REQUIRE(tile < kv_hop(fast));
    for (const RankTotals& rank : run(fast).ranks) CHECK(rank.exposed_comm == (ranks - 1) * (kv_hop(fast) - tile));
  }
}

TEST_CASE("start-up and launch enter a ring once per hop and once per op") {
  IdealCase c = ring_case(8, 1e15);
  c.implementation.message_startup = constant(3e-6);
  const Ticks tile = attention_ticks(c, c.block() * c.block(), c.heads);
  for (const int messages : {1, 2}) {
    c.implementation.kv_messages = messages;
    const Ticks hop = message_time(Seconds::from_si(3e-6 * messages), route_latency(c),
                                   kv_bytes(c.block(), c.kv_heads, c.head_dim, c.element_bytes),
                                   BytesPerSecond::from_si(c.bandwidth));
    CHECK(run(c).end == ring_forward(8, tile, tile, hop));
    const Times t = backward_times(c);
    const Ticks startups = to_ticks(Seconds::from_si(3e-6 * messages));  // of keys and values as of their gradients
    CHECK(backward_ticks(c) == ring_backward_fused(8, t.tile, t.kv_hop + startups, t.gradient_hop + startups));
  }
  // The host issues the hop first, then the kernel; launches alone decide if they are long.
  c.implementation.message_startup = constant(0);
  c.implementation.launch = constant(1e-3);
  const Ticks launch = to_ticks(Seconds::from_si(1e-3));
  CHECK(run(c).end == (7 * 2 + 1) * launch + tile);
}

namespace {

/// Start times of one rank's ops of a stream, in order.
struct Starts : SpanSink {
  Rank rank;
  Stream stream;
  std::vector<Ticks> starts{};
  Starts(Rank of_rank, Stream of_stream) : rank(of_rank), stream(of_stream) {}
  void ops(std::span<const Span> spans) override {
    for (const Span& span : spans) {
      if (span.rank == rank && span.stream == stream) starts.push_back(span.start);
    }
  }
  void links(std::span<const LinkSpan>) override {}
};

std::vector<Ticks> transfer_starts(const IdealCase& c, SimulationOptions options = {}, Rank rank = 1) {
  Starts starts(rank, c.implementation.transport == Transport::nccl ? Stream::collective : Stream::copy_out);
  options.sink = &starts;
  simulate(program_of(c), one_node(c), options);
  return starts.starts;
}

}  // namespace

TEST_CASE("a hop leaves when the block is there and one of the receiver's two slots is free") {
  IdealCase c = ring_case(8, 0.4e12);
  const Ticks tile = attention_ticks(c, c.block() * c.block(), c.heads);
  REQUIRE(tile > 2 * kv_hop(c));
  std::vector<Ticks> expected = {0, kv_hop(c)};
  for (int step = 2; step < 7; ++step) expected.push_back(step * tile);  // step - 1 attended, the slot is free
  for (const Transport transport : {Transport::copy_engine, Transport::nccl}) {
    c.implementation.transport = transport;
    CHECK(transfer_starts(c) == expected);
  }
}

TEST_CASE("a hop into a slot that nothing was in yet waits for no hop of its receiver") {
  const IdealCase c = ring_case(4, 1e15);
  const Cluster cluster = one_node(c);
  Faults faults;
  for (std::size_t link = 0; link < cluster.links().size(); ++link) {
    if (cluster.links()[link].name != "gpu2 -> nvswitch") continue;
    faults.links.push_back({.link = static_cast<LinkId>(link), .bandwidth = BytesPerSecond::from_si(c.bandwidth / 10)});
  }
  REQUIRE(faults.links.size() == 1);
  // Hop 2 fills the slot that hop 0 filled, which GPU 2 has to have passed on: at a tenth of the bandwidth, its second.
  const Ticks slow = message_time({}, route_latency(c), kv_bytes(c.block(), c.kv_heads, c.head_dim, c.element_bytes),
                                  BytesPerSecond::from_si(c.bandwidth / 10));
  CHECK(transfer_starts(c, {.faults = &faults}) == std::vector<Ticks>{0, kv_hop(c), 2 * slow});
}

TEST_CASE("a gather of some heads leaves when one of the two slots is free") {
  IdealCase c = ring_case(4, 0.2e12);
  c.schedule = "all_gather";
  c.kv_heads = 4;
  c.implementation.gather_kv_heads = 1;
  const Ticks part = attention_ticks(c, c.block() * c.tokens, 1);
  const Ticks hop = kv_hop([&] {
    IdealCase one_head = c;
    one_head.kv_heads = 1;
    return one_head;
  }());
  REQUIRE(part > 3 * hop);
  std::vector<Ticks> expected;
  for (const Ticks start : {Ticks{0}, 3 * hop, 3 * hop + part, 3 * hop + 2 * part}) {
    for (int i = 0; i < 3; ++i) expected.push_back(start + i * hop);
  }
  for (const Transport transport : {Transport::copy_engine, Transport::nccl}) {
    c.implementation.transport = transport;
    CHECK(transfer_starts(c) == expected);
  }
}

TEST_CASE("the last gradient leaves while its receiver still adds the one before, which lies in the other slot") {
  const int ranks = 3;
  IdealCase c = ring_case(ranks, 0.2e12);
  c.backward = true;
  c.implementation.ring_backward = RingBackward::last_received;
  const Times t = backward_times(c);
  REQUIRE(t.tile > 4 * t.joint_hop);
  // Rank 2 sends to rank 1, which computes half as fast. Its second tile waits for the gradient that rank 0 sends it
  // with the block that rank 1 has let go at the end of its forward pass.
  const Perturbation slow(ranks, {}, {{.rank = 1, .speed = 0.5}});
  const std::vector<Ticks> starts = transfer_starts(c, {.perturbation = &slow}, 2);
  REQUIRE(starts.size() == 2 * ranks - 1);  // P - 1 hops forward, P backward
  const Ticks forward = ranks * attention_ticks(c, c.block() * c.block(), c.heads);
  const Ticks second_tile_ends = 2 * forward + t.kv_hop + t.joint_hop + t.tile;
  CHECK(starts.back() == second_tile_ends);
  CHECK(second_tile_ends < 2 * forward + 2 * t.tile);  // rank 1 is at its first tile
}

TEST_CASE("a ring whose hops wait for the compute of their step overlaps nothing") {
  for (const int ranks : ring_sizes) {
    for (const double peak : {0.4e12, 1e13}) {
      IdealCase c = ring_case(ranks, peak);
      c.layers = 2;
      const Ticks tile = attention_ticks(c, c.block() * c.block(), c.heads);
      c.implementation.transfer_order = TransferOrder::same_step_compute;
      CHECK(run(c).end == 2 * (ranks * tile + (ranks - 1) * kv_hop(c)));
      c.implementation.transfer_order = TransferOrder::previous_compute;
      CHECK(run(c).end == 2 * ring_forward(ranks, tile, tile, kv_hop(c)));
    }
  }
}

TEST_CASE("hops that wait for SMs leave as attention's last wave does, ahead of it only the first of a pass") {
  for (const int ranks : ring_sizes) {
    for (const double peak : {0.4e12, 1e13}) {
      IdealCase c = ring_case(ranks, peak);
      c.layers = 2;
      const Ticks tile = attention_ticks(c, c.block() * c.block(), c.heads), hop = kv_hop(c);
      INFO(fmt::format("P = {}, tile {} ps, hop {} ps", ranks, tile, hop));
      // Kernels of this profile have no last wave: SMs are free when they end.
      c.implementation.transfer_order = TransferOrder::free_sms;
      CHECK(run(c).end == 2 * (ranks * tile + (ranks - 1) * hop));
      c.implementation.transfer_order = TransferOrder::free_sms_when_ahead;
      const Ticks first = ranks > 1 ? std::max(tile, hop) : 0;
      CHECK(run(c).end == 2 * (first + tile + std::max(0, ranks - 2) * (tile + hop)));
      // Small kernels begin a backward pass, beside which there are SMs at once.
      const Times t = backward_times(c);
      const Ticks backward = 2 * ring_backward_fused(ranks, t.tile, t.kv_hop, t.gradient_hop);
      CHECK(backward_ticks(c) == backward);
      c.implementation.transfer_order = TransferOrder::free_sms;
      CHECK(backward_ticks(c) == backward);
    }
  }
}

TEST_CASE("an order of transfers says which attention a hop waits for") {
  IdealCase c = ring_case(5, 0.4e12);
  const Ticks tile = attention_ticks(c, c.block() * c.block(), c.heads), hop = kv_hop(c);
  REQUIRE(tile > 2 * hop);
  const auto starts = [&](TransferOrder order) {
    c.implementation.transfer_order = order;
    return transfer_starts(c);
  };
  using Hops = std::vector<Ticks>;
  CHECK(starts(TransferOrder::data) == Hops{0, hop, 2 * tile, 3 * tile});
  CHECK(starts(TransferOrder::previous_compute) == Hops{0, tile, 2 * tile, 3 * tile});
  const Hops after_own = {tile, 2 * tile + hop, 3 * tile + 2 * hop, 4 * tile + 3 * hop};
  CHECK(starts(TransferOrder::same_step_compute) == after_own);
  CHECK(starts(TransferOrder::free_sms) == after_own);
  CHECK(starts(TransferOrder::free_sms_when_ahead) == Hops{0, 2 * tile, 3 * tile + hop, 4 * tile + 2 * hop});
}

TEST_CASE("a kernel whose last wave is told apart takes one launch and one gap, as in one op") {
  IdealCase c = ring_case(4, 0.4e12);
  c.implementation.kernel_gap = constant(2e-6);
  c.implementation.launch = constant(1e-9);
  const Ticks tile = attention_ticks(c, c.block() * c.block(), c.heads), gap = to_ticks(Seconds::from_si(2e-6));
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
      const Ticks tile = attention_ticks(c, c.block() * c.block(), c.heads);
      INFO(fmt::format("P = {}, tile {} ps, hop {} ps", ranks, tile, kv_hop(c)));
      CHECK(run(c).end == 2 * ring_forward_full_circle(ranks, tile, kv_hop(c)));
      const Times t = backward_times(c);
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
        const Times t = backward_times(c);
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
        const Times t = backward_times(c);
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

TEST_CASE("the first gradient leaves behind the keys and values, on a stream of its own behind its tile") {
  IdealCase c = ring_case(3, 8e12);
  const Ticks forward = run(c).end;
  c.backward = true;
  const Times t = backward_times(c);
  REQUIRE(t.tile < t.kv_hop);
  const auto starts = [&](Stream stream) {
    Starts found(1, stream);
    simulate(program_of(c), one_node(c), {.sink = &found});
    return found.starts;
  };
  std::vector<Ticks> hops = starts(Stream::copy_out);
  REQUIRE(hops.size() == 2 + 2 + 3);  // of keys and values forward and backward, and of gradients
  CHECK(hops[3] == forward + t.kv_hop);
  c.implementation.gradients_apart = true;
  CHECK(starts(Stream::copy_out).size() == 2 + 2);
  hops = starts(Stream::network);
  REQUIRE(hops.size() == 3);
  CHECK(hops[0] == forward + t.tile);
}

TEST_CASE("a backward ring from the last received block ends at home without another hop") {
  for (const int ranks : ring_sizes) {
    for (const double peak : {1e12, 2e12, 4e12, 8e12}) {
      IdealCase c = ring_case(ranks, peak);
      c.layers = 2;
      c.hbm = 3e11;
      c.implementation.ring_backward = RingBackward::last_received;
      const Times t = backward_times(c);
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
      const Ticks tile = attention_ticks(c, c.block() * c.block(), c.heads);
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

TEST_CASE("NCCL gathers over N nodes in N - 1 hops of one block, then inside a node in L - 1 hops of N blocks") {
  IdealCase c = ring_case(8, 1e12);
  c.schedule = "all_gather";
  c.implementation.transport = Transport::nccl;
  c.implementation.message_startup = constant(2e-6);
  const Bytes block = kv_bytes(c.block(), c.kv_heads, c.head_dim, 2);
  const auto hop = [&](int blocks) {
    return message_time(Seconds::from_si(2e-6), route_latency(c), blocks * block, BytesPerSecond::from_si(c.bandwidth));
  };
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
      const BytesPerSecond bandwidth = BytesPerSecond::from_si(c.bandwidth);
      const Seconds startup = Seconds::from_si(2e-6);
      const Bytes block = kv_bytes(c.block(), c.kv_heads, c.head_dim, 2);
      const Ticks hop = message_time(startup, route_latency(c), block, bandwidth);
      const Ticks whole = attention_ticks(c, c.block() * c.tokens, c.heads);
      INFO(fmt::format("P = {}, attention {} ps, hop {} ps", ranks, whole, hop));
      CHECK(run(c).end == 2 * all_gather_forward(ranks, 1, hop, whole));
      const Ticks whole_backward = attention_ticks(c, c.block() * c.tokens, c.heads, Phase::backward);
      CHECK(backward_ticks(c) == 2 * all_gather_backward(ranks, hop, whole_backward, hop));
      c.implementation.gradients_in_fp32 = true;
      const Ticks fp32_hop = message_time(startup, route_latency(c), 2 * block, bandwidth);
      CHECK(backward_ticks(c) == 2 * all_gather_backward(ranks, hop, whole_backward, fp32_hop));

      c.implementation.gather_kv_heads = 1;
      c.layers = 1;
      const Ticks part_hop = message_time(startup, route_latency(c), block / c.kv_heads, bandwidth);
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
      const Ticks tile = attention_ticks(c, c.block() * c.block(), c.heads);
      const Times t = backward_times(c);
      CHECK(run(c).end == all_gather_forward_per_rank(ranks, tile, t.kv_hop));
      CHECK(backward_ticks(c) == all_gather_backward_ring_fused(ranks, t.tile, t.kv_hop, t.gradient_hop));
      c.implementation.merge = c.implementation.gradient_sum = Merge::kernel;
      CHECK(backward_ticks(c) == all_gather_backward_ring_summed(ranks, t.tile, t.kv_hop, t.gradient_hop, t.sum));
    }
  }
}

namespace {

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
      const Ticks hop =
          message_time({}, route_latency(c), kv_bytes(group_block, c.kv_heads / members, c.head_dim, 2), bandwidth);
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
      const Ticks tile = attention_ticks(c, c.block() * c.block(), c.heads);
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
      const Ticks hop =
          message_time({}, route_latency(c), kv_bytes(halo_rows(left, 0, block), c.kv_heads, c.head_dim, 2),
                       BytesPerSecond::from_si(c.bandwidth));
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
        const Ticks way_back = message_time({}, route_latency(c), gradient, BytesPerSecond::from_si(c.bandwidth));
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

TEST_CASE("gathers of some heads that wait for the compute of their step overlap nothing") {
  for (const int ranks : {2, 3, 8}) {
    for (const double peak : {0.4e12, 1e13}) {
      IdealCase c = ring_case(ranks, peak);
      c.schedule = "all_gather";
      c.implementation.gather_kv_heads = 1;
      const Ticks part = attention_ticks(c, c.block() * c.tokens, c.heads / c.kv_heads);
      const Ticks hop = message_time({}, route_latency(c), kv_bytes(c.block(), 1, c.head_dim, c.element_bytes),
                                     BytesPerSecond::from_si(c.bandwidth));
      c.implementation.transfer_order = TransferOrder::same_step_compute;
      CHECK(run(c).end == c.kv_heads * ((ranks - 1) * hop + part));
      c.implementation.transfer_order = TransferOrder::previous_compute;
      CHECK(run(c).end == all_gather_forward(ranks, c.kv_heads, hop, part));
    }
  }
}

TEST_CASE("a double ring whose hops wait for the compute of their step overlaps nothing") {
  for (const int ranks : {2, 4, 8}) {
    for (const int inner : {1, ranks}) {  // one kind of hop at a time, so that none shares a link
      for (const double peak : {0.4e12, 1e13}) {
        IdealCase c = ring_case(ranks, peak);
        c.schedule = "double_ring";
        c.inner_ring = inner;
        const Ticks tile = attention_ticks(c, c.block() * c.block(), c.heads);
        c.implementation.transfer_order = TransferOrder::same_step_compute;
        CHECK(run(c).end == ranks * tile + (ranks - 1) * kv_hop(c));
        c.implementation.transfer_order = TransferOrder::previous_compute;
        CHECK(run(c).end == ring_forward(ranks, tile, tile, kv_hop(c)));
      }
    }
  }
}
