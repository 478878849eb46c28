// Closed forms: what the simulator has to return to the picosecond.
#include "sim/simulate.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <stdexcept>

#include "tests/catch.hpp"
#include "tests/sim/programs.hpp"

using namespace orrery;
using namespace orrery::test;

namespace {

Ticks end_of(const Program& program, const Cluster& cluster) {
  return simulate(program, cluster).end;
}

}  // namespace

TEST_CASE("A ring takes (P-1) * max(tile, shift) + tile, with shift = latency + size / bandwidth") {
  for (const double latency_us : {0.0, 0.7}) {
    const Ticks shift = 1 * us + 2 * static_cast<Ticks>(std::llround(latency_us * us));  // 100 kB at 100 GB/s
    for (Rank ranks = 2; ranks <= 64; ++ranks) {
      const Cluster cluster = star(ranks, gigabytes_per_second(100), microseconds(latency_us));
      for (const Ticks tile : {shift / 7, shift - 1, shift, shift + 1, 3 * shift}) {
        CAPTURE(ranks, tile, latency_us);
        CHECK(end_of(RingProgram(ranks, 1, tile, bytes(100e3)), cluster) == (ranks - 1) * std::max(tile, shift) + tile);
      }
    }
  }
}

TEST_CASE("A compute op takes its duration, a transfer start-up + latency + size / bandwidth, each rounded once") {
  const Cluster cluster = star(2, gigabytes_per_second(300), microseconds(0.0000012));
  CHECK(end_of(ListProgram(1).add(0, compute_op(12345)), cluster) == 12345);
  const double size = 1e6 + 1;
  const Message message{0, 1, bytes(size), {}};
  const Ticks expected = 777 + std::llround(2 * 1.2) + std::llround(size / 300e9 * 1e12);
  CHECK(end_of(ListProgram(2).add(0, transfer_op(Stream::copy_out, 777), {message}), cluster) == expected);
}

TEST_CASE("Hops cut through: each adds its latency, and only the slowest link its serialisation") {
  for (int hops = 1; hops <= 6; ++hops) {
    Cluster line(GpuResources{});
    auto node = line.add_gpu("first");
    for (int hop = 1; hop < hops; ++hop) {
      const auto next = line.add_switch("switch");
      line.connect(node, next, gigabytes_per_second(100.0 + hop), microseconds(1));
      node = next;
    }
    line.connect(node, line.add_gpu("last"), gigabytes_per_second(50), microseconds(1));
    const ListProgram program = ListProgram(2).add(0, transfer_op(Stream::copy_out), {{0, 1, bytes(1e6), {}}});
    CHECK(end_of(program, line) == hops * us + 20 * us);
  }
}

TEST_CASE("Two transfers over one link take twice as long; one that comes halfway ends half a length later") {
  const Cluster cluster = star(3, gigabytes_per_second(1));
  const auto late = [](Ticks startup) {
    return ListProgram(3)
        .add(0, transfer_op(Stream::copy_out), {{0, 2, bytes(1e3), {}}})
        .add(1, transfer_op(Stream::copy_out, startup), {{1, 2, bytes(1e3), {}}});
  };
  CHECK(end_of(late(0), cluster) == 2 * us);
  // From 0.5 us both at half speed; the first has 0.5 us of work left and ends at 1.5, the second the same then and
  // goes on alone: 2 us.
  const auto result = simulate(late(us / 2), cluster);
  CHECK(result.end == 2 * us);
  CHECK(result.ranks[0].stream_busy[static_cast<int>(Stream::copy_out)] == 3 * us / 2);
  CHECK(result.critical_path.contention == us / 2);
}

TEST_CASE("The two directions of a link do not slow each other") {
  const Cluster cluster = star(2, gigabytes_per_second(1));
  const ListProgram program = ListProgram(2)
                                  .add(0, transfer_op(Stream::copy_out), {{0, 1, bytes(1e3), {}}})
                                  .add(1, transfer_op(Stream::copy_out), {{1, 0, bytes(1e3), {}}});
  CHECK(end_of(program, cluster) == us);
}

TEST_CASE("An op may send many messages: it ends with the last, and each delivery raises its own signal") {
  // 3 messages leave by one link of 1 GB/s: all at a third; sizes 1, 2, 3 kB end at 3, 5 and 6 us.
  const Cluster cluster = star(4, gigabytes_per_second(1));
  ListProgram program(4, {"arrived"});
  program.add(0, transfer_op(Stream::collective),
              {{0, 1, bytes(1e3), {1, 0}}, {0, 2, bytes(2e3), {2, 0}}, {0, 3, bytes(3e3), {3, 0}}});
  for (Rank rank = 1; rank < 4; ++rank) {
    Op op = compute_op(1);
    op.wait_for({rank, 0}, 1);
    program.add(rank, op);
  }
  const auto result = simulate(program, cluster);
  CHECK(result.ranks[1].exposed_comm == 3 * us);
  CHECK(result.ranks[2].exposed_comm == 5 * us);
  CHECK(result.ranks[3].exposed_comm == 6 * us);
  CHECK(result.end == 6 * us + 1);
  CHECK(result.ranks[0].sent.si() == 6e3);
  CHECK(result.ranks[3].received.si() == 3e3);
}

TEST_CASE("Messages to oneself and of no bytes arrive at once, after the start-up; markers take no time") {
  const Cluster cluster = star(2, gigabytes_per_second(1), microseconds(1));
  ListProgram program(2, {"arrived"});
  program.add(0, transfer_op(Stream::copy_out, 100), {{0, 0, bytes(1e6), {0, 0}}, {0, 1, bytes(0), {0, 0}}});
  Op marker;
  marker.wait_for({0, 0}, 2);
  program.add(0, marker).add(0, compute_op(7));
  CHECK(end_of(program, cluster) == 107);
  CHECK(end_of(ListProgram(1).add(0, Op{}), cluster) == 0);
  CHECK(end_of(ListProgram(2), cluster) == 0);
}

TEST_CASE("A transfer that holds m of S SMs leaves compute the fraction (S - m) / S while it runs") {
  const Ticks work = 100 * us;
  const auto program = [&](double sms, double size) {
    Op transfer = transfer_op(Stream::collective);
    transfer.sms = sms;
    return ListProgram(2).add(0, compute_op(work)).add(0, transfer, {{0, 1, bytes(size), {}}});
  };
  const Cluster cluster = star(2, gigabytes_per_second(1), {}, GpuResources{132, {}});
  // The transfer outlasts the compute op.
  const auto slow = simulate(program(32, 1e6), cluster);
  CHECK(slow.ranks[0].compute == std::llround(static_cast<double>(work) * 132 / 100));
  // It lasts 40 us: work left at that time = 100 us - 40 us * 100 / 132.
  const auto partly = simulate(program(32, 40e3), cluster);
  CHECK(partly.end == 40 * us + std::llround(100e6 - 40e6 * (100.0 / 132)));
  // More SMs than there are: one is left.
  CHECK(simulate(program(200, 40e3), cluster).end == 40 * us + std::llround(100e6 - 40e6 / 132));
  // Nobody else's SMs, and no SMs at all: no effect.
  CHECK(end_of(program(0, 40e3), cluster) == work);
  CHECK(end_of(program(32, 40e3), star(2, gigabytes_per_second(1))) == work);
}

TEST_CASE(
    "Messages, in and out, slow compute by their share of HBM bandwidth as far as compute asks for more than half of "
    "it") {
  const double hbm = 1000e9;
  const Ticks work = 100 * us;
  const auto program = [&](double share_of_hbm, bool both_ways) {
    Op compute = compute_op(work);
    compute.hbm_traffic = bytes(hbm * share_of_hbm * 100e-6);
    ListProgram list(2);
    list.add(0, compute).add(0, transfer_op(Stream::copy_out), {{0, 1, bytes(1e9), {}}});
    if (both_ways) list.add(0, transfer_op(Stream::copy_in), {{1, 0, bytes(1e9), {}}});
    return list;
  };
  const Cluster cluster = star(2, gigabytes_per_second(100), {}, GpuResources{0, BytesPerSecond::from_si(hbm)});
  const auto compute_time = [&](double share, bool both) {
    return simulate(program(share, both), cluster).ranks[0].compute;
  };
  CHECK(compute_time(1.0, false) == std::llround(100e6 / 0.9));
  CHECK(compute_time(1.0, true) == std::llround(100e6 / 0.8));
  CHECK(compute_time(0.75, false) == std::llround(100e6 / (1 - 0.5 * 0.1)));
  CHECK(compute_time(0.75, true) == std::llround(100e6 / (1 - 0.5 * 0.2)));
  CHECK(compute_time(0.5, true) == work);
  CHECK(compute_time(0, true) == work);
}

// Transfer and compute op start together; the op is over first.
TEST_CASE(
    "Beside a compute op that slows transfers k times, one that holds SMs moves 1 / k of its bytes, and ends later") {
  const Cluster cluster = star(3, gigabytes_per_second(1));
  const Ticks busy = 30 * us, alone = 100 * us;  // 100 kB at 1 GB/s
  const auto end = [&](double sms, Rank where, Ticks startup) {
    Op compute = compute_op(busy);
    compute.slows_transfers = 3;
    Op transfer = transfer_op(Stream::collective, startup);
    transfer.sms = sms;
    ListProgram list(3);
    list.add(where, compute).add(0, transfer, {{0, 1, bytes(100e3), {}}});
    return simulate(list, cluster);
  };
  const Ticks later = busy - busy / 3;
  for (const Rank end_of_message : {0, 1}) {
    const auto result = end(8, end_of_message, 0);
    CHECK(result.end == alone + later);
    CHECK(result.critical_path.contention == later);
  }
  CHECK(end(8, 2, 0).end == alone);  // on a rank that is neither source nor destination
  CHECK(end(0, 0, 0).end == alone);  // a copy engine
  // What it takes longer than its links would is spread over its bytes, so that it is slowed too.
  CHECK(end(8, 0, 50 * us).end == alone + 50 * us + later);
  CHECK(end(0, 0, 50 * us).end == alone + 50 * us);
}

TEST_CASE("Two transfers that hold SMs and are slower than their link share it without loss") {
  // Alone each takes 50 us more than the 100 us of its bytes: 1.5 of the link's two thirds. Together half of it each.
  ListProgram list(3);
  for (const Rank rank : {0, 1}) {
    Op compute = compute_op(1);
    compute.slows_transfers = 1.5;
    Op transfer = transfer_op(Stream::collective, 50 * us);
    transfer.sms = 8;
    list.add(rank, compute).add(rank, transfer, {{rank, 2, bytes(100e3), {}}});
  }
  const Ticks end = simulate(list, star(3, gigabytes_per_second(1))).end;
  CHECK(std::abs(end - 200 * us) <= 2);  // for one tick it was slowed
}

TEST_CASE("An op cannot speed transfers up") {
  Op op = compute_op(1);
  op.slows_transfers = 0.5;
  CHECK_THROWS_AS(end_of(ListProgram(1).add(0, op), star(1, gigabytes_per_second(1))), std::invalid_argument);
}

// A merge that saturates HBM, then attention, which has HBM to spare; beside them a copy of 40 MB, which lies beside
// the merge for a longer part of its bytes the faster the link. No rule that slows ops by what runs beside them avoids
// this.
TEST_CASE("A faster link slows a merge beside a copy that outlasts it, and with it the step") {
  const double hbm = 1000e9;
  const auto end_at = [&](double link_gb) {
    Op merge = compute_op(100 * us);
    merge.hbm_traffic = bytes(hbm * 100e-6);
    ListProgram list(2);
    list.add(0, merge).add(0, compute_op(400 * us));
    list.add(0, transfer_op(Stream::copy_out), {{0, 1, bytes(40e6), {}}});
    return simulate(list, star(2, gigabytes_per_second(link_gb), {}, GpuResources{0, BytesPerSecond::from_si(hbm)}));
  };
  const auto slow = end_at(100), fast = end_at(200);  // the copy takes 400 and 200 us
  CHECK(slow.end == std::llround(100e6 / 0.9) + 400 * us);
  CHECK(fast.end == std::llround(100e6 / 0.8) + 400 * us);
  CHECK(fast.critical_path.contention == fast.end - 500 * us);
}

TEST_CASE("When launches take longer than kernels the host sets the pace") {
  const Cluster cluster = star(1, gigabytes_per_second(1));
  for (const Ticks launch : {Ticks{3}, Ticks{10}, Ticks{40}}) {
    ListProgram program(1);
    for (int i = 0; i < 100; ++i) {
      Op op = compute_op(10);
      op.launch = launch;
      program.add(0, op);
    }
    const auto result = simulate(program, cluster);
    CHECK(result.end == std::max(100 * launch + 10, launch + 100 * 10));
    if (launch > 10) CHECK(result.critical_path.launch == 100 * launch);
    if (launch <= 10) CHECK(result.critical_path.by_category[0] >= 10);
  }
}

TEST_CASE("A rendezvous: the message leaves when the peer's op has started too, and holds its SMs from the start") {
  const Cluster cluster = star(2, gigabytes_per_second(1), {}, GpuResources{100, {}});
  ListProgram program(2, {"ready"});
  Op send = transfer_op(Stream::collective, 5);
  send.sms = 50;
  send.wait_for({1, 0}, 1, WaitStage::transfer);
  program.add(0, compute_op(10 * us)).add(0, send, {{0, 1, bytes(1e3), {}}});
  Op receive = transfer_op(Stream::collective);
  receive.started = {1, 0};
  program.add(1, compute_op(4 * us));
  Op gate = transfer_op(Stream::collective);  // the receive comes after 4 us
  gate.duration = 4 * us;
  program.add(1, gate).add(1, receive);
  const auto result = simulate(program, cluster);
  CHECK(result.ranks[0].stream_busy[static_cast<int>(Stream::collective)] == 5 * us);
  CHECK(result.end == 5 * us + (10 * us - 5 * us / 2));
}

TEST_CASE("A receive ends when its finish wait is met") {
  const Cluster cluster = star(2, gigabytes_per_second(1));
  ListProgram program(2, {"arrived", "received"});
  program.add(0, transfer_op(Stream::copy_out, 2 * us), {{0, 1, bytes(1e3), {1, 0}}});
  Op receive = transfer_op(Stream::copy_in);
  receive.wait_for({1, 0}, 1, WaitStage::finish);
  receive.finished[0] = {1, 1};
  Op compute = compute_op(us);
  compute.wait_for({1, 1}, 1);
  program.add(1, receive).add(1, compute);
  const auto result = simulate(program, cluster);
  CHECK(result.ranks[1].stream_busy[static_cast<int>(Stream::copy_in)] == 3 * us);
  CHECK(result.end == 4 * us);
}

TEST_CASE("Waits may be given in any order of stages") {
  const Cluster cluster = star(1, gigabytes_per_second(1));
  ListProgram program(1, {"a", "b"});
  Op late = transfer_op(Stream::copy_in);
  late.wait_for({0, 1}, 1, WaitStage::finish);
  late.wait_for({0, 0}, 1, WaitStage::start);
  Op first = compute_op(10);
  first.finished[0] = {0, 0};
  Op second = compute_op(20);
  second.finished[0] = {0, 1};
  program.add(0, first).add(0, second).add(0, late);
  const auto result = simulate(program, cluster);
  CHECK(result.ranks[0].stream_busy[static_cast<int>(Stream::copy_in)] == 20);
}

TEST_CASE("A deadlock names the ops, the signals, and the counts they have and want") {
  const Cluster cluster = star(2, gigabytes_per_second(1));
  ListProgram program(2, {"kv_arrived", "free"});
  Op waits_for_other = compute_op(10);
  waits_for_other.wait_for({1, 0}, 3);
  Op raises_once = compute_op(5);
  raises_once.finished[0] = {1, 0};
  Op receive = transfer_op(Stream::copy_in);
  receive.wait_for({0, 1}, 1, WaitStage::finish);
  program.add(0, waits_for_other).add(1, raises_once).add(1, receive);
  CHECK_THROWS_AS(simulate(program, cluster), DeadlockError);
  CHECK_THROWS_WITH(
      simulate(program, cluster),
      ContainsSubstring("2 ops") &&
          ContainsSubstring("rank 0 compute \"op 0\" waits for signal kv_arrived of rank 1: it has been "
                            "raised 1 times, wanted are 3") &&
          ContainsSubstring("rank 1 copy_in \"op 1\" waits for signal free of rank 0: it has been raised 0 "
                            "times, wanted are 1"));
}

TEST_CASE("Ops that wait for each other in a circle are named, by any engine") {
  ListProgram program(2, {"done"});
  for (const Rank rank : {0, 1}) {
    Op op = compute_op(10);
    op.wait_for({1 - rank, 0}, 1);
    op.finished[0] = {rank, 0};
    program.add(rank, op);
  }
  const Cluster cluster = star(2, gigabytes_per_second(1));
  for (const Engine engine : {Engine::automatic, Engine::event}) {
    CHECK_THROWS_WITH(simulate(program, cluster, {.engine = engine}),
                      ContainsSubstring("rank 0 compute \"op 0\" waits for signal done of rank 1") &&
                          ContainsSubstring("rank 1 compute \"op 0\" waits for signal done of rank 0"));
  }
  for (const Engine engine : {Engine::dependency, Engine::lumped}) {
    CHECK_THROWS_WITH(simulate(program, cluster, {.engine = engine}), ContainsSubstring("use --engine auto"));
  }
}

TEST_CASE("Of many waiting ops a deadlock names a dozen") {
  ListProgram program(20, {"never"});
  for (Rank rank = 0; rank < 20; ++rank) {
    Op op = compute_op(1);
    op.wait_for({rank, 0}, 1);
    program.add(rank, op);
  }
  CHECK_THROWS_WITH(simulate(program, star(20, gigabytes_per_second(1))),
                    ContainsSubstring("20 ops") && ContainsSubstring("rank 11") && !ContainsSubstring("rank 12 ") &&
                        ContainsSubstring("and 8 more"));
}

TEST_CASE("A stream may wait for an op that its rank issues thousands of blocks later") {
  const auto program = [](std::int64_t blocks_later) {
    ListProgram list(1, {"later"});
    Op first = transfer_op(Stream::copy_in);
    first.wait_for({0, 0}, 1);
    list.add(0, first);
    for (std::int64_t i = 1; i < blocks_later; ++i) list.add(0, compute_op(10));
    Op last = compute_op(10);
    last.finished[0] = {0, 0};
    return list.add(0, last).split(1);
  };
  const Cluster cluster = star(1, gigabytes_per_second(1));
  for (const std::int64_t blocks : {1, 8, 10000}) CHECK(end_of(program(blocks), cluster) == blocks * 10);
}

TEST_CASE("Time beyond 2^63 ticks is an error that names the op") {
  const Cluster cluster = star(2, gigabytes_per_second(1));
  const Ticks half = std::numeric_limits<Ticks>::max() / 2;
  const ListProgram twice = ListProgram(1).add(0, compute_op(half)).add(0, compute_op(half + 10));
  CHECK_THROWS_AS(simulate(twice, cluster), std::overflow_error);
  CHECK_THROWS_WITH(simulate(twice, cluster), ContainsSubstring("\"op 1\""));
  CHECK(end_of(ListProgram(1).add(0, compute_op(half)).add(0, compute_op(half)), cluster) == 2 * half);
  const ListProgram huge = ListProgram(2).add(0, transfer_op(Stream::copy_out), {{0, 1, bytes(1e30), {}}});
  CHECK_THROWS_AS(simulate(huge, cluster), std::overflow_error);
  CHECK_THROWS_WITH(simulate(huge, cluster), ContainsSubstring("rank 0 copy_out \"op 0\""));
  // Enough ops that end at the last tick for the queue to sort them.
  ListProgram last(40);
  for (Rank rank = 0; rank < 40; ++rank) last.add(rank, compute_op(half)).add(rank, compute_op(half + 1));
  CHECK_THROWS_WITH(simulate(last, star(40, gigabytes_per_second(1))), ContainsSubstring("rank 0 compute \"op 1\""));
  const Perturbation slow(1, {}, {{0, 0.001}});
  CHECK_THROWS_WITH(simulate(ListProgram(1).add(0, compute_op(half)), cluster, {.perturbation = &slow}),
                    ContainsSubstring("rank 0 compute \"op 0\""));
  Op op = compute_op(1);
  op.launch = half + 1;
  CHECK_THROWS_AS(simulate(ListProgram(1).add(0, op).add(0, op), cluster), std::overflow_error);
  CHECK_THROWS_WITH(simulate(ListProgram(1).add(0, op).add(0, op), cluster), ContainsSubstring("\"op 1\" is issued"));
}

TEST_CASE("Programs that make no sense are refused, naming the op") {
  const Cluster cluster = star(2, gigabytes_per_second(1));
  const auto with = [](auto change) {
    Op op = compute_op(1);
    change(op);
    return ListProgram(2, {"signal"}).add(1, op);
  };
  CHECK_THROWS_WITH(simulate(with([](Op& op) { op.duration = -1; }), cluster),
                    ContainsSubstring("rank 1 compute \"op 0\""));
  CHECK_THROWS_AS(simulate(with([](Op& op) { op.launch = -1; }), cluster), std::invalid_argument);
  CHECK_THROWS_AS(simulate(with([](Op& op) { op.category = 9; }), cluster), std::invalid_argument);
  CHECK_THROWS_AS(simulate(with([](Op& op) { op.phase = 9; }), cluster), std::invalid_argument);
  CHECK_THROWS_AS(simulate(with([](Op& op) { op.sms = -1; }), cluster), std::invalid_argument);
  CHECK_THROWS_AS(simulate(with([](Op& op) { op.started = {0, 1}; }), cluster), std::invalid_argument);
  CHECK_THROWS_AS(simulate(with([](Op& op) { op.wait_for({2, 0}, 1); }), cluster), std::invalid_argument);
  CHECK_THROWS_AS(simulate(ListProgram(2).add(0, Op{}, {{0, 5, bytes(1), {}}}), cluster), std::invalid_argument);
  CHECK_THROWS_AS(simulate(ListProgram(2).add(0, Op{}, {{0, 1, bytes(-1), {}}}), cluster), std::invalid_argument);
  CHECK_THROWS_AS(simulate(ListProgram(3), cluster), std::invalid_argument);
  Op full;
  for (int i = 0; i < Op::max_waits; ++i) full.wait_for({0, 0}, 1);
  CHECK_THROWS_AS(full.wait_for({0, 0}, 1), std::logic_error);
}

namespace {

/// `compute` in every block and `copy_out` in every 100th.
class SparseProgram : public RingProgram {
 public:
  SparseProgram() : RingProgram(1, 1000, 10, bytes(0)) {}
  std::int64_t blocks() const override { return 1000; }
  void generate(Rank, std::int64_t block, OpBuffer& buffer) const override {
    Op op = compute_op(10);
    op.finished[0] = {0, 1};
    buffer.add(op);
    if (block % 100 != 0) return;
    Op copy = transfer_op(Stream::copy_out, 5);
    copy.wait_for({0, 1}, block + 1);
    buffer.add(copy);
  }
};

}  // namespace

TEST_CASE("A rank in two of the sets that a block's ops are for is refused") {
  struct Twice : ListProgram {
    using ListProgram::ListProgram;
    void partition(std::int64_t, std::vector<RankSet>& sets) const override { sets = {{0, 1, 2}, {1, 1, 2}}; }
  };
  CHECK_THROWS_WITH(simulate(Twice(4), star(4, gigabytes_per_second(1))), ContainsSubstring("rank 1 in two sets"));
}

TEST_CASE("More kinds of ops than accounts can tell apart are refused") {
  struct Kinds : ListProgram {
    using ListProgram::ListProgram;
    std::span<const std::string> categories() const override { return names; }
    std::span<const std::string> phases() const override { return names; }
    std::vector<std::string> names = std::vector<std::string>(256, "kind");
  };
  Kinds program(1);
  Op op = compute_op(1);
  for (int kind = 0; kind < 65536; ++kind) {
    op.category = static_cast<std::uint8_t>(kind / 256);
    op.phase = static_cast<std::uint8_t>(kind % 256);
    program.add(0, op);
  }
  program.add(0, transfer_op(Stream::copy_out));
  CHECK_THROWS_WITH(simulate(program, star(1, gigabytes_per_second(1))), ContainsSubstring("more than 65536 kinds"));
}

TEST_CASE("A stream that is hardly used gets its ops in time") {
  const auto result = simulate(SparseProgram(), star(1, gigabytes_per_second(1)));
  CHECK(result.end == 1000 * 10);
  CHECK(result.ranks[0].stream_busy[static_cast<int>(Stream::copy_out)] == 10 * 5);
  CHECK(result.ranks[0].exposed_comm == 0);
}

TEST_CASE("More bandwidth never slows a ring, and the same input gives the same output") {
  for (const Rank ranks : {2, 5, 16}) {
    const RingProgram program(ranks, 3, 900, bytes(1e3));
    Ticks before = std::numeric_limits<Ticks>::max();
    for (double bandwidth = 0.1; bandwidth < 100; bandwidth *= 2) {
      const Cluster cluster = star(ranks, gigabytes_per_second(bandwidth));
      const auto result = simulate(program, cluster);
      CHECK(result.end <= before);
      before = result.end;
      const auto again = simulate(program, cluster);
      CHECK(again.end == result.end);
      CHECK(again.events == result.events);
      CHECK(again.critical_path.by_category == result.critical_path.by_category);
    }
  }
}
