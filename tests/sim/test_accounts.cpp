// Time accounts, link totals and the critical path: what adds up to what.
#include <algorithm>
#include <array>
#include <numeric>
#include <random>

#include "sim/rank_accounts.hpp"
#include "sim/simulate.hpp"
#include "tests/catch.hpp"
#include "tests/sim/programs.hpp"

using namespace orrery;
using namespace orrery::test;

namespace {

void check_identities(const SimulationResult& result) {
  for (const RankTotals& rank : result.ranks) {
    CHECK(rank.compute + rank.exposed_comm + rank.idle == result.end);
    CHECK(rank.exposed_comm <= rank.comm);
    CHECK(rank.idle >= 0);
    CHECK(std::accumulate(rank.stream_busy.begin(), rank.stream_busy.end(), Ticks{0}) ==
          std::accumulate(rank.category_busy.begin(), rank.category_busy.end(), Ticks{0}));
  }
  const CriticalPath& path = result.critical_path;
  CHECK(std::accumulate(path.by_category.begin(), path.by_category.end(), Ticks{0}) + path.contention + path.launch ==
        result.end);
  CHECK(path.contention >= 0);
  CHECK(path.launch >= 0);
  Ticks busy = 0;
  Seconds phases;
  for (const RankTotals& rank : result.ranks)
    busy = std::accumulate(rank.stream_busy.begin(), rank.stream_busy.end(), busy);
  for (const PhaseTotals& phase : result.phases) {
    phases += phase.compute_busy + phase.comm_busy;
    CHECK(phase.start <= phase.end);
    CHECK(phase.end <= result.end);
  }
  CHECK_THAT(phases.si(), WithinRel(to_seconds(busy).si(), 1e-12));
}

/// Ops with random durations, messages, SMs, HBM traffic and launch times; each waits for some earlier op.
ListProgram random_program(unsigned seed, Rank ranks) {
  std::mt19937 random(seed);
  const auto pick = [&](int below) { return static_cast<int>(random() % static_cast<unsigned>(below)); };
  ListProgram program(ranks, {"done", "arrived"});
  std::vector<std::int64_t> done(static_cast<std::size_t>(ranks));
  std::vector<std::int64_t> arrived(static_cast<std::size_t>(ranks));
  for (int i = 0; i < 60 * ranks; ++i) {
    const Rank rank = pick(ranks);
    Op op = compute_op(pick(4) * us / 3);
    op.launch = pick(2) * 1000;
    op.phase = static_cast<std::uint8_t>(pick(2));
    const Rank other = pick(ranks);
    // Streams of a rank may overtake each other, so counts are only sure to be reached, not in which order.
    if (done[other] > 0) op.wait_for({other, 0}, 1 + pick(static_cast<int>(done[other])));
    if (pick(3) == 0) {
      op.hbm_traffic = bytes(pick(5) * 1e6);
      op.finished[0] = {rank, 0};
      ++done[rank];
      program.add(rank, op);
      continue;
    }
    op.stream = static_cast<Stream>(1 + pick(streams_per_rank - 1));
    op.category = 1;
    op.sms = pick(8);
    std::vector<Message> messages;
    for (int m = pick(4); m > 0; --m) {
      const Rank destination = pick(ranks);
      messages.push_back({rank, destination, bytes(pick(3) * 1e4), {destination, 1}});
      ++arrived[destination];
    }
    op.finished[0] = {rank, 0};
    ++done[rank];
    program.add(rank, op, messages);
  }
  return program;
}

}  // namespace

TEST_CASE(
    "Compute, exposed communication and idle time add up to the end on every rank, and so does the critical path") {
  for (const Rank ranks : {1, 2, 3, 8, 31}) {
    for (const Ticks tile : {100, 1000, 5000}) {
      check_identities(simulate(RingProgram(ranks, 4, tile, bytes(1e3)), star(ranks, gigabytes_per_second(1))));
    }
  }
  for (unsigned seed = 0; seed < 60; ++seed) {
    const Rank ranks = 2 + static_cast<Rank>(seed % 7);
    const Cluster cluster = star(ranks, gigabytes_per_second(20), microseconds(0.3), {16, gigabytes_per_second(50)});
    const auto result = simulate(random_program(seed, ranks), cluster);
    CAPTURE(seed);
    CHECK(result.end > 0);
    check_identities(result);
    CHECK(simulate(random_program(seed, ranks), cluster).end == result.end);
  }
}

TEST_CASE("How a program is cut into blocks does not matter") {
  for (unsigned seed = 0; seed < 40; ++seed) {
    const Cluster cluster = star(4, gigabytes_per_second(20), microseconds(0.3), {16, gigabytes_per_second(50)});
    const auto whole = simulate(random_program(seed, 4), cluster);
    const auto in_blocks = simulate(random_program(seed, 4).split(12), cluster);
    CAPTURE(seed);
    CHECK(in_blocks.end == whole.end);
    CHECK(in_blocks.events == whole.events);
    // Eight ops at a time may take longer, but everything gets done.
    const auto one_by_one = simulate(random_program(seed, 4).split(1), cluster);
    check_identities(one_by_one);
    for (Rank rank = 0; rank < 4; ++rank) CHECK(one_by_one.ranks[rank].sent == whole.ranks[rank].sent);
  }
}

TEST_CASE("In a ring that is bound by transfers all but the first tile of compute is waiting") {
  const Ticks tile = us / 4;
  const Rank ranks = 6;
  const auto result = simulate(RingProgram(ranks, 1, tile, bytes(1e3)), star(ranks, gigabytes_per_second(1)));
  for (const RankTotals& rank : result.ranks) {
    CHECK(rank.compute == ranks * tile);
    CHECK(rank.comm == (ranks - 1) * us);
    CHECK(rank.exposed_comm == (ranks - 1) * (us - tile));
    CHECK(rank.idle == 0);
    CHECK(rank.sent.si() == (ranks - 1) * 1e3);
    CHECK(rank.received.si() == (ranks - 1) * 1e3);
  }
  CHECK(result.critical_path.by_category == std::vector<Ticks>{tile, (ranks - 1) * us});
  CHECK(result.critical_path.contention == 0);
}

TEST_CASE("In a ring that is bound by compute no communication is exposed") {
  const Ticks tile = 2 * us;
  const Rank ranks = 6;
  const auto result = simulate(RingProgram(ranks, 1, tile, bytes(1e3)), star(ranks, gigabytes_per_second(1)));
  for (const RankTotals& rank : result.ranks) CHECK(rank.exposed_comm == 0);
  CHECK(result.critical_path.by_category == std::vector<Ticks>{ranks * tile, 0});
}

TEST_CASE("Every link on the way of a message counts its bytes and its time") {
  const auto result = simulate(RingProgram(4, 2, us, bytes(1e3)), star(4, gigabytes_per_second(2)));
  for (const LinkTotals& link : result.links) {
    CHECK(link.bytes.si() == 2 * 3 * 1e3);
    CHECK(link.busy == 2 * 3 * us / 2);
  }
}

TEST_CASE("A link of one flow alone is in use as long as the flow, which shares others on its way") {
  // 1 kB takes 1 us. Sizes 1, 2, 3 kB start at 0, 1, 2 us: the first is alone and ends at 1, the second is alone for 1
  // us and shares for 2, so it ends at 4, and the third has then 2 kB left and ends at 6.
  ListProgram program(4);
  for (Rank rank = 0; rank < 3; ++rank) {
    program.add(rank, transfer_op(Stream::copy_out, rank * us), {{rank, 3, bytes((rank + 1) * 1e3), {}}});
  }
  const Cluster cluster = star(4, gigabytes_per_second(1), microseconds(1));
  const auto together = simulate(program, cluster);
  const auto busy = [&](Rank from, Rank to, std::size_t hop) {
    return together.links[static_cast<std::size_t>(cluster.route(from, to).links[hop])].busy;
  };
  CHECK(busy(0, 3, 0) == 1 * us);
  CHECK(busy(1, 3, 0) == 3 * us);
  CHECK(busy(2, 3, 0) == 4 * us);
  CHECK(busy(0, 3, 1) == 6 * us);
}

TEST_CASE("Phases start with their first op and end with their last") {
  ListProgram program(2, {"done"});
  Op forward = compute_op(10);
  forward.finished[0] = {1, 0};
  Op backward = compute_op(30);
  backward.phase = 1;
  backward.wait_for({1, 0}, 1);
  Op copy = transfer_op(Stream::copy_out, 25);
  copy.phase = 1;
  program.add(0, forward).add(1, backward).add(0, copy);
  const auto result = simulate(program, star(2, gigabytes_per_second(1)));
  CHECK(result.phases[0].start == 0);
  CHECK(result.phases[0].end == 10);
  CHECK(result.phases[1].start == 0);
  CHECK(result.phases[1].end == 40);
  CHECK(result.phases[0].compute_busy == to_seconds(10));
  CHECK(result.phases[1].compute_busy == to_seconds(30));
  CHECK(result.phases[1].comm_busy == to_seconds(25));
  CHECK(result.ranks[0].exposed_comm == 25 - 10);
  CHECK(result.ranks[0].idle == 40 - 25);
}

TEST_CASE("Sums over ranks do not wrap around where the times of each do not") {
  const Ticks day = Ticks{86'400} * 1'000'000'000'000;
  ListProgram program(200);
  for (Rank rank = 0; rank < 200; ++rank) program.add(rank, compute_op(day));
  for (const Engine engine : {Engine::event, Engine::automatic}) {
    const SimulationResult result = simulate(program, star(200, gigabytes_per_second(1)), {.engine = engine});
    CHECK_THAT(result.phases[0].compute_busy.si(), WithinRel(200 * 86'400.0, 1e-12));
  }
}

TEST_CASE("What covers time counts it once, whether the end is known at the begin or not") {
  std::mt19937 random(5);
  for (int turn = 0; turn < 200; ++turn) {
    constexpr Ticks length = 60;
    std::array<bool, length> is_covered{};
    std::array<int, length + 1> leaves{};  // of open stretches, by time
    Cover cover;
    for (Ticks now = 0; now <= length; ++now) {
      for (int& left = leaves[static_cast<std::size_t>(now)]; left > 0; --left) cover.leave(now);
      if (now == length || random() % 4 != 0) continue;
      const Ticks end = std::min<Ticks>(length, now + static_cast<Ticks>(random() % 9));
      for (Ticks t = now; t < end; ++t) is_covered[static_cast<std::size_t>(t)] = true;
      if (random() % 2 == 0) {
        cover.add(now, end);
      } else {
        cover.enter(now);
        if (end == now) cover.leave(now);
        if (end > now) ++leaves[static_cast<std::size_t>(end)];
      }
    }
    CHECK(cover.sum() == std::count(is_covered.begin(), is_covered.end(), true));
  }
}
