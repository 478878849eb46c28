// Links that slow down or die and ranks that pause while a program runs, against closed forms.
#include "sim/faults.hpp"

#include <cmath>

#include "tests/catch.hpp"
#include "tests/sim/programs.hpp"
#include "tests/sim/same_result.hpp"

using namespace orrery;
using namespace orrery::test;

namespace {

constexpr Ticks ms = 1000 * us;

constexpr LinkId up = 0;  // of a star: gpu0 -> switch; those of gpu1 are 2 and 3

SimulationResult run(const Program& program, const Cluster& cluster, const Faults& faults) {
  return simulate(program, cluster, {.faults = &faults});
}

LinkFault slow(LinkId link, Ticks at, double bandwidth, Ticks until = std::numeric_limits<Ticks>::max()) {
  return {link, at, until, gigabytes_per_second(bandwidth), false};
}
LinkFault dead(LinkId link, Ticks at, bool reroutes, Ticks until = std::numeric_limits<Ticks>::max()) {
  return {link, at, until, {}, reroutes};
}

ListProgram one_transfer(double size, double sms = 0) {
  Op op = transfer_op(Stream::copy_out);
  op.sms = sms;
  return ListProgram(2).add(0, op, {{0, 1, bytes(size), {}}});
}

/// Three GPUs that forward: gpu0 - gpu1 with 1 GB/s and 2 us, and a way around by gpu2 with 0.5 GB/s and 3 + 4 us.
Cluster triangle() {
  Cluster cluster({});
  const auto a = cluster.add_gpu("gpu0"), b = cluster.add_gpu("gpu1"), c = cluster.add_gpu("gpu2");
  cluster.connect(a, b, gigabytes_per_second(1), microseconds(2));    // links 0 and 1
  cluster.connect(a, c, gigabytes_per_second(0.5), microseconds(3));  // 2 and 3
  cluster.connect(c, b, gigabytes_per_second(2), microseconds(4));    // 4 and 5
  cluster.set_gpus_forward(true);
  return cluster;
}

ListProgram transfers_of_a_triangle(int count) {
  ListProgram program(3);
  for (int i = 0; i < count; ++i) program.add(0, transfer_op(Stream::copy_out), {{0, 1, bytes(1e6), {}}});
  return program;
}

}  // namespace

TEST_CASE("A transfer on a link that slows down takes what it has left over the new bandwidth") {
  const Cluster cluster = star(2, gigabytes_per_second(1));
  CHECK(run(one_transfer(1e6), cluster, {{slow(up, 400 * us, 0.25)}, {}}).end == 400 * us + 600 * us * 4);
  // Slow from the begin, and as before from the end of the fault.
  CHECK(run(one_transfer(1e6), cluster, {{slow(up, 0, 0.25)}, {}}).end == 4 * ms);
  CHECK(run(one_transfer(1e6), cluster, {{slow(up, 400 * us, 0.25, 800 * us)}, {}}).end == 1300 * us);
  // The next fault begins when one ends: 200 KB, 100 KB, and the rest at a quarter.
  CHECK(run(one_transfer(1e6), cluster, {{slow(up, 400 * us, 0.25), slow(up, 200 * us, 0.5, 400 * us)}, {}}).end ==
        400 * us + 700 * us * 4);
  // One fault after the other, on both links of the route; the slower of the two counts.
  CHECK(run(one_transfer(1e6), cluster, {{slow(up, 200 * us, 0.5), slow(3, 600 * us, 0.2)}, {}}).end ==
        600 * us + 600 * us * 5);
}

TEST_CASE("What is left over the new bandwidth is rounded once, to the nearest picosecond") {
  for (const double latency_us : {0.0, 1.7}) {
    const Cluster cluster = star(2, gigabytes_per_second(3), microseconds(latency_us / 2));
    const Ticks latency = 2 * to_ticks(microseconds(latency_us / 2));
    for (const Ticks at : {Ticks{2'000'001}, Ticks{77'777'777}, Ticks{300'000'000}}) {
      const double left = 1e6 - 3e9 * static_cast<double>(at - latency) / 1e12;
      CHECK(run(one_transfer(1e6), cluster, {{slow(up, at, 0.7)}, {}}).end == at + std::llround(left / 0.7e9 * 1e12));
    }
  }
}

TEST_CASE("After a link has slowed down, those who share other links with its flows get what these leave") {
  // Both send to rank 2 at half its bandwidth, until rank 0 has a fifth: rank 1 gets four.
  const ListProgram program = ListProgram(3)
                                  .add(0, transfer_op(Stream::copy_out), {{0, 2, bytes(1e6), {}}})
                                  .add(1, transfer_op(Stream::copy_out), {{1, 2, bytes(1e6), {}}});
  const Cluster cluster = star(3, gigabytes_per_second(1));
  const SimulationResult result = run(program, cluster, {{slow(up, ms, 0.2)}, {}});
  CHECK(result.ranks[0].comm == ms + 500 * us * 5);
  CHECK(result.ranks[1].comm == ms + 500 * us * 5 / 4);
  // A dead link leaves all of it, and gets its half back.
  const SimulationResult dies = run(program, cluster, {{dead(up, ms, false, ms + 200 * us)}, {}});
  CHECK(dies.ranks[1].comm == ms + 200 * us + 300 * us * 2);
  CHECK(dies.ranks[0].comm == dies.ranks[1].comm + 200 * us);
}

TEST_CASE("Messages over a dead link wait until it is back") {
  const Cluster cluster = star(2, gigabytes_per_second(1));
  CHECK(run(one_transfer(1e6), cluster, {{dead(up, 400 * us, false, 5 * ms)}, {}}).end == 5 * ms + 600 * us);
  CHECK(run(one_transfer(1e6), cluster, {{dead(up, 0, false, 5 * ms)}, {}}).end == 6 * ms);
}

TEST_CASE("If a dead link does not come back, the end is a message that names the ops and the link") {
  const Cluster cluster = star(2, gigabytes_per_second(1));
  ListProgram program(2, {"arrived"});
  Op waits = compute_op(10);
  waits.wait_for({1, 0}, 1);
  program.add(0, transfer_op(Stream::copy_out), {{0, 1, bytes(1e6), {1, 0}}}).add(1, waits);
  const Faults faults{{dead(up, 400 * us, false)}, {}};
  CHECK_THROWS_AS(run(program, cluster, faults), DeadlockError);
  CHECK_THROWS_WITH(
      run(program, cluster, faults),
      ContainsSubstring("2 ops can never start or end") &&
          ContainsSubstring("rank 0 copy_out \"op 0\" waits for link gpu0 -> switch, which is dead since 400 us") &&
          ContainsSubstring("rank 1 compute \"op 0\" waits for signal arrived of rank 1"));
}

TEST_CASE(
    "Around a dead link messages go by the best other route: what departs later wholly, what is under way in part") {
  const Cluster cluster = triangle();
  const Ticks alone = 2 * us + ms, around = 7 * us + 2 * ms;
  CHECK(run(transfers_of_a_triangle(1), cluster, {}).end == alone);
  // From the begin.
  CHECK(run(transfers_of_a_triangle(1), cluster, {{dead(0, 0, true)}, {}}).end == around);
  // 400 KB have arrived; the others take the latency and the bandwidth of the way around.
  const SimulationResult half = run(transfers_of_a_triangle(1), cluster, {{dead(0, 402 * us, true)}, {}});
  CHECK(half.end == 402 * us + 7 * us + 1200 * us);
  CHECK(half.links[0].bytes.si() == 4e5);
  CHECK(half.links[2].bytes.si() == 6e5);
  CHECK(half.links[4].bytes.si() == 6e5);
  CHECK(half.ranks[0].sent.si() == 1e6);
  CHECK(half.ranks[1].received.si() == 1e6);
  // The first byte finds the link dead.
  CHECK(run(transfers_of_a_triangle(1), cluster, {{dead(0, us, true)}, {}}).end == 2 * us + around);
  // The second of three departs while the link is dead, the third when it is back.
  CHECK(run(transfers_of_a_triangle(3), cluster, {{dead(0, alone, true, alone + us)}, {}}).end ==
        alone + around + alone);
  // The other direction is another link.
  CHECK(run(transfers_of_a_triangle(1), cluster, {{dead(1, 0, true)}, {}}).end == alone);
}

TEST_CASE(
    "Of faults of one tick all are known at once, whatever their order, and no way around is kept for later ones") {
  // gpu0 - gpu1, with ways around by gpu2 (0.5 GB/s, 3 + 4 us) and by gpu3 (0.25 GB/s, 5 + 6 us).
  Cluster cluster({});
  std::vector<Cluster::Node> gpus;
  for (int i = 0; i < 4; ++i) gpus.push_back(cluster.add_gpu(fmt::format("gpu{}", i)));
  cluster.connect(gpus[0], gpus[1], gigabytes_per_second(1), microseconds(2));    // links 0 and 1
  cluster.connect(gpus[0], gpus[2], gigabytes_per_second(0.5), microseconds(3));  // 2 and 3
  cluster.connect(gpus[2], gpus[1], gigabytes_per_second(0.5), microseconds(4));
  cluster.connect(gpus[0], gpus[3], gigabytes_per_second(0.25), microseconds(5));
  cluster.connect(gpus[3], gpus[1], gigabytes_per_second(0.25), microseconds(6));
  cluster.set_gpus_forward(true);
  ListProgram program(4);
  program.add(0, transfer_op(Stream::copy_out), {{0, 1, bytes(1e6), {}}});
  const LinkFault direct = dead(0, 402 * us, true), by_gpu2 = dead(2, 402 * us, true);
  const Ticks expected = 402 * us + 11 * us + 600 * us * 4;
  CHECK(run(program, cluster, {{direct, by_gpu2}, {}}).end == expected);
  CHECK(run(program, cluster, {{by_gpu2, direct}, {}}).end == expected);
  // The first message goes around by gpu2, since the direct link alone is dead. The second goes by that link until it
  // dies again, now with that to gpu2.
  program.add(0, transfer_op(Stream::copy_out), {{0, 1, bytes(1e6), {}}});
  const Ticks second = 7 * us + 2000 * us, again = second + 2 * us + 400 * us;
  const Faults later = {{dead(0, 0, true, 1000 * us), dead(0, again, true), dead(2, again, true)}, {}};
  CHECK(run(program, cluster, later).end == again + 11 * us + 600 * us * 4);
}

TEST_CASE("The dead link that all wait for is named first, however many wait") {
  constexpr Rank ranks = 20;
  ListProgram program(ranks, {"arrived"});
  for (Rank rank = 0; rank < ranks - 1; ++rank) {
    Op op = compute_op(1);
    op.wait_for({0, 0}, 1);
    program.add(rank, op);
  }
  program.add(ranks - 1, transfer_op(Stream::copy_out), {{ranks - 1, 0, bytes(1), {0, 0}}});
  const Cluster cluster = star(ranks, gigabytes_per_second(1));
  const Faults faults = {{dead(2 * (ranks - 1), 0, false)}, {}};
  CHECK_THROWS_WITH(run(program, cluster, faults), ContainsSubstring("end\n  rank 19 copy_out \"op 0\" waits for link "
                                                                     "gpu19 -> switch, which is dead"));
}

TEST_CASE("A way around shares its links with others") {
  // gpu0 - gpu2 - gpu1 carries a message of its own to gpu2 when that of the dead link joins it.
  const Cluster cluster = triangle();
  ListProgram program(3);
  program.add(0, transfer_op(Stream::copy_out), {{0, 1, bytes(1e6), {}}});
  program.add(0, transfer_op(Stream::network), {{0, 2, bytes(1e6), {}}});
  const SimulationResult result = run(program, cluster, {{dead(0, 0, true)}, {}});
  // The other is ahead by 4 us; then both have a quarter GB/s each.
  const Ticks ahead = 4 * us, other_end = 3 * us + ahead + 2 * (2 * ms - ahead);
  CHECK(result.ranks[2].comm == other_end);
  CHECK(result.end == other_end + ahead);
}

TEST_CASE("A rank that pauses computes later by that, and its copy engines go on") {
  const Cluster cluster = star(2, gigabytes_per_second(1), {}, GpuResources{100, {}});
  const auto computes = [&](const Faults& faults) {
    const ListProgram program = ListProgram(2)
                                    .add(0, compute_op(ms))
                                    .add(0, compute_op(ms))
                                    .add(0, transfer_op(Stream::copy_out), {{0, 1, bytes(1e6), {}}})
                                    .add(1, compute_op(ms));
    return run(program, cluster, faults);
  };
  for (const Ticks at : {Ticks{0}, 300 * us, ms, 1999 * us}) {
    const SimulationResult result = computes({{}, {{0, at, at + 5 * ms}}});
    CHECK(result.end == 7 * ms);
    CHECK(result.ranks[1].compute == ms);
    CHECK(result.ranks[1].comm == ms);
    CHECK(result.critical_path.contention == 5 * ms);
  }
  CHECK(computes({{}, {{0, 2 * ms, 5 * ms}}}).end == 2 * ms);  // it has ended
  CHECK(computes({{}, {{0, 300 * us, 400 * us}, {0, 1200 * us, 1500 * us}}}).end == 2 * ms + 400 * us);
}

TEST_CASE("Messages of transfers that hold SMs stand still while an end of theirs pauses") {
  const Cluster cluster = star(2, gigabytes_per_second(1), {}, GpuResources{100, {}});
  for (const Rank rank : {0, 1}) {
    CHECK(run(one_transfer(1e6, 4), cluster, {{}, {{rank, 400 * us, 900 * us}}}).end == 1500 * us);
    CHECK(run(one_transfer(1e6, 4), cluster, {{}, {{rank, 0, 900 * us}}}).end == 1900 * us);
    CHECK(run(one_transfer(1e6, 4), cluster, {{}, {{rank, ms, 2 * ms}}}).end == ms);
  }
  CHECK(run(one_transfer(1e6, 4), cluster, {{}, {{0, 400 * us, 900 * us}, {1, 600 * us, 950 * us}}}).end == 1550 * us);
  CHECK(run(one_transfer(1e6), cluster, {{}, {{0, 400 * us, 900 * us}}}).end == ms);
}

TEST_CASE("A ring without slack ends later by the pause of one rank, wherever it falls") {
  const RingProgram ring(5, 3, ms, bytes(100));
  const Cluster cluster = star(5, gigabytes_per_second(1));
  const Ticks before = simulate(ring, cluster).end;
  for (const Ticks at : {Ticks{0}, 4567 * us, 14 * ms}) {
    CHECK(run(ring, cluster, {{}, {{2, at, at + 333 * us}}}).end == before + 333 * us);
  }
}

TEST_CASE("Faults that change nothing change nothing") {
  const Cluster cluster = star(4, gigabytes_per_second(1), microseconds(0.3), GpuResources{100, {}});
  const RingProgram ring(4, 3, 900 * us, bytes(1e6));
  const SimulationResult before = simulate(ring, cluster, {.engine = Engine::event});
  // The same bandwidth, and a pause after the end.
  const Faults faults{{slow(2, 500 * us, 1), slow(4, 700 * us, 1, 2 * ms)}, {{1, before.end, before.end + ms}}};
  check_same(before, run(ring, cluster, faults));
  check_same(before, simulate(ring, cluster, {.engine = Engine::event, .faults = &faults}));
  const Faults none;
  CHECK(simulate(ring, cluster, {.faults = &none}).engine == Engine::dependency);
}

TEST_CASE("Faults need the event engine, which says so") {
  const Cluster cluster = star(2, gigabytes_per_second(1));
  const Faults link{{slow(up, 2 * ms, 0.5)}, {{1, 3 * ms, 4 * ms}}}, pause{{}, {{1, 3 * ms, 4 * ms}}};
  const SimulationResult result = run(one_transfer(1e6), cluster, link);
  CHECK(result.engine == Engine::event);
  CHECK(result.engine_reason == "link gpu0 -> switch slows down at 2 ms");
  CHECK(run(one_transfer(1e6), cluster, pause).engine_reason == "rank 1 pauses at 3 ms");
  for (const Engine engine : {Engine::dependency, Engine::lumped}) {
    CHECK_THROWS_WITH(simulate(one_transfer(1e6), cluster, {.engine = engine, .faults = &link}),
                      ContainsSubstring("link gpu0 -> switch slows down at 2 ms"));
  }
}

TEST_CASE("Faults that cannot happen are refused with the reason") {
  const Cluster cluster = star(2, gigabytes_per_second(1));
  const auto refused = [&](const Faults& faults, const std::string& words) {
    CHECK_THROWS_WITH(check(faults, cluster), ContainsSubstring(words));
    CHECK_THROWS_AS(run(one_transfer(1), cluster, faults), std::invalid_argument);
  };
  refused({{slow(4, 0, 0.5)}, {}}, "there is no link number 4");
  refused({{slow(-1, 0, 0.5)}, {}}, "there is no link number -1");
  refused({{slow(0, -1, 0.5)}, {}}, "link gpu0 -> switch fails before the run begins");
  refused({{slow(0, ms, 0.5, ms)}, {}}, "fails at 1 ms and is back at 1 ms (not later)");
  refused({{slow(0, 0, 2)}, {}}, "link gpu0 -> switch would go on at 2 GB/s (it has 1 GB/s), give less");
  refused({{slow(0, 0, -1)}, {}}, "give less");
  refused({{slow(0, ms, 0.5), dead(0, 2 * ms, false)}, {}}, "fails at 1 ms and at 2 ms, before it is back");
  refused({{slow(0, 2 * ms, 0.5), dead(0, ms, false, 3 * ms)}, {}}, "fails at 2 ms and at 1 ms, before it is back");
  CHECK_NOTHROW(check({{slow(0, ms, 0.5, 2 * ms), dead(0, 2 * ms, false), dead(1, ms, false)}, {}}, cluster));
  refused({{dead(0, ms, true)}, {}},
          "no way around link gpu0 -> switch at 1 ms (rank 0 (gpu0) cannot reach rank 1 (gpu1)");
  refused({{dead(1, ms, true)}, {}}, "no way around link switch -> gpu0 at 1 ms (rank 1 (gpu1) cannot reach rank 0");
  refused({{LinkFault{0, 0, ms, gigabytes_per_second(0.5), true}}, {}}, "slow, not dead");
  refused({{}, {{2, 0, ms}}}, "rank 2 pauses (there are 2, counted from 0)");
  refused({{}, {{1, ms, ms}}}, "rank 1 pauses at 1 ms and is back at 1 ms");
  refused({{}, {{1, 0, 2 * ms}, {1, ms, 3 * ms}}}, "rank 1 pauses at 0 s and at 1 ms");
  // Each of the two has a way around, but not both at the same time.
  const Cluster ring = triangle();
  CHECK_NOTHROW(check({{dead(0, ms, true, 2 * ms), dead(2, 2 * ms, true)}, {}}, ring));
  CHECK_THROWS_WITH(check({{dead(0, ms, true), dead(2, 2 * ms, true)}, {}}, ring),
                    ContainsSubstring("no way around link gpu0 -> gpu2 at 2 ms"));
}
