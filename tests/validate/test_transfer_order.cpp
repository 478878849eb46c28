// When hops leave: the data, the slots and the kernels they wait for, to the picosecond.
#include <fmt/format.h>

#include <algorithm>

#include "tests/catch.hpp"
#include "tests/validate/ring_times.hpp"

using namespace orrery;

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
  const Ticks tile = tile_ticks(c);
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
  IdealCase slow = c;
  slow.bandwidth = c.bandwidth / 10;
  CHECK(transfer_starts(c, {.faults = &faults}) == std::vector<Ticks>{0, kv_hop(c), 2 * kv_hop(slow)});
}

TEST_CASE("a gather of some heads leaves when one of the two slots is free") {
  IdealCase c = ring_case(4, 0.2e12);
  c.schedule = "all_gather";
  c.kv_heads = 4;
  c.implementation.gather_kv_heads = 1;
  const Ticks part = attention_ticks(c, c.block() * c.tokens, 1);
  const Ticks hop = hop_ticks(c, kv_bytes(c.block(), 1, c.head_dim, c.element_bytes));
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
  const BackwardTimes t = backward_times(c);
  REQUIRE(t.tile > 4 * t.joint_hop);
  // Rank 2 sends to rank 1, which computes half as fast. Its second tile waits for the gradient that rank 0 sends it
  // with the block that rank 1 has let go at the end of its forward pass.
  const Perturbation slow(ranks, {}, {{.rank = 1, .speed = 0.5}});
  const std::vector<Ticks> starts = transfer_starts(c, {.perturbation = &slow}, 2);
  REQUIRE(starts.size() == 2 * ranks - 1);  // P - 1 hops forward, P backward
  const Ticks forward = ranks * tile_ticks(c);
  const Ticks second_tile_ends = 2 * forward + t.kv_hop + t.joint_hop + t.tile;
  CHECK(starts.back() == second_tile_ends);
  CHECK(second_tile_ends < 2 * forward + 2 * t.tile);  // rank 1 is at its first tile
}

TEST_CASE("the first gradient leaves behind the keys and values, on a stream of its own behind its tile") {
  IdealCase c = ring_case(3, 8e12);
  const Ticks forward = run(c).end;
  c.backward = true;
  const BackwardTimes t = backward_times(c);
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

TEST_CASE("a ring whose hops wait for the compute of their step overlaps nothing") {
  for (const int ranks : ring_sizes) {
    for (const double peak : {0.4e12, 1e13}) {
      IdealCase c = ring_case(ranks, peak);
      c.layers = 2;
      const Ticks tile = tile_ticks(c);
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
      const Ticks tile = tile_ticks(c), hop = kv_hop(c);
      INFO(fmt::format("P = {}, tile {} ps, hop {} ps", ranks, tile, hop));
      // Kernels of this profile have no last wave: SMs are free when they end.
      c.implementation.transfer_order = TransferOrder::free_sms;
      CHECK(run(c).end == 2 * (ranks * tile + (ranks - 1) * hop));
      c.implementation.transfer_order = TransferOrder::free_sms_when_ahead;
      const Ticks first = ranks > 1 ? std::max(tile, hop) : 0;
      CHECK(run(c).end == 2 * (first + tile + std::max(0, ranks - 2) * (tile + hop)));
      // Small kernels begin a backward pass, beside which there are SMs at once.
      const BackwardTimes t = backward_times(c);
      const Ticks backward = 2 * ring_backward_fused(ranks, t.tile, t.kv_hop, t.gradient_hop);
      CHECK(backward_ticks(c) == backward);
      c.implementation.transfer_order = TransferOrder::free_sms;
      CHECK(backward_ticks(c) == backward);
    }
  }
}

TEST_CASE("an order of transfers says which attention a hop waits for") {
  IdealCase c = ring_case(5, 0.4e12);
  const Ticks tile = tile_ticks(c), hop = kv_hop(c);
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

TEST_CASE("gathers of some heads that wait for the compute of their step overlap nothing") {
  for (const int ranks : {2, 3, 8}) {
    for (const double peak : {0.4e12, 1e13}) {
      IdealCase c = ring_case(ranks, peak);
      c.schedule = "all_gather";
      c.implementation.gather_kv_heads = 1;
      const Ticks part = attention_ticks(c, c.block() * c.tokens, c.heads / c.kv_heads);
      const Ticks hop = hop_ticks(c, kv_bytes(c.block(), 1, c.head_dim, c.element_bytes));
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
        const Ticks tile = tile_ticks(c);
        c.implementation.transfer_order = TransferOrder::same_step_compute;
        CHECK(run(c).end == ranks * tile + (ranks - 1) * kv_hop(c));
        c.implementation.transfer_order = TransferOrder::previous_compute;
        CHECK(run(c).end == ring_forward(ranks, tile, tile, kv_hop(c)));
      }
    }
  }
}
