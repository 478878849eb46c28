// The engines agree on random programs, and say why one does not apply.
#include <algorithm>
#include <random>
#include <string>

#include "tests/catch.hpp"
#include "tests/sim/programs.hpp"
#include "tests/sim/same_result.hpp"

using namespace orrery;
using namespace orrery::test;

namespace {

Cluster mesh(Rank ranks, bool unequal) {
  return mesh_of(ranks, [&](Rank a, Rank b) {
    return std::pair(unequal ? 1.0 + (a * 7 + b * 3) % 5 : 2.0, unequal ? 0.1 * (a + b) : 0.3);
  });
}

/// Ops that wait for any earlier op of any rank, with ties in plenty. Every signal has one stream that raises it, and
/// every link one that sends over it.
ListProgram program_of_many_shapes(unsigned seed, Rank ranks) {
  std::mt19937 random(seed);
  const auto pick = [&](int below) { return static_cast<int>(random() % static_cast<unsigned>(below)); };
  std::vector<std::string> signals;
  for (int stream = 0; stream < streams_per_rank; ++stream) signals.push_back(fmt::format("done on {}", stream));
  for (Rank from = 0; from < ranks; ++from) signals.push_back(fmt::format("arrived from {}", from));
  for (int stream = 0; stream < streams_per_rank; ++stream) signals.push_back(fmt::format("begun on {}", stream));
  ListProgram program(ranks, signals);
  std::vector<std::vector<std::int64_t>> raised(static_cast<std::size_t>(ranks),
                                                std::vector<std::int64_t>(signals.size()));
  const bool launches = pick(3) == 0;
  const bool says_when_it_begins = pick(2) == 0;  // if not, and nothing is launched, many ops take the shortest way
  for (int i = 0; i < 40 * ranks; ++i) {
    const Rank rank = pick(ranks);
    Op op = compute_op(pick(4) * 1000);
    op.launch = launches ? pick(3) * 200 : 0;
    op.phase = static_cast<std::uint8_t>(pick(2));
    op.category = static_cast<std::uint8_t>(pick(2));
    if (pick(2) == 0) op.stream = static_cast<Stream>(1 + pick(streams_per_rank - 1));
    for (int w = pick(4); w > 0; --w) {
      const Rank other = pick(ranks);
      const int signal = pick(static_cast<int>(signals.size()));
      const std::int64_t count = raised[other][signal];
      if (count > 0)
        op.wait_for({other, signal}, std::max<std::int64_t>(1, count - pick(6)), static_cast<WaitStage>(pick(3)));
    }
    const auto stream = static_cast<int>(op.stream);
    std::vector<Message> messages;
    // Rank r sends to rank d on one stream only, which depends on d.
    const Rank to = (rank + 1 + pick(ranks)) % ranks;
    if (stream == to % 3 && pick(3) > 0) {
      messages.push_back({rank, to, bytes(pick(4) * 1500), {to, streams_per_rank + rank}});
      ++raised[to][streams_per_rank + rank];
    }
    if (says_when_it_begins && pick(2) == 0) {
      op.started = {rank, streams_per_rank + ranks + stream};
      ++raised[rank][streams_per_rank + ranks + stream];
    }
    op.finished[0] = {rank, stream};
    ++raised[rank][stream];
    program.add(rank, op, messages);
  }
  return program.split(1 + pick(7));
}

}  // namespace

TEST_CASE("On random programs the dependency engine gives what the event engine gives") {
  for (unsigned seed = 0; seed < 400; ++seed) {
    INFO("seed " << seed);
    const Rank ranks = 1 + static_cast<Rank>(seed % 7);
    const ListProgram program = program_of_many_shapes(seed, ranks);
    const Cluster cluster = mesh(ranks, seed % 2 == 0);
    const SimulationResult events = simulate(program, cluster, {.engine = Engine::event});
    const SimulationResult dependencies = simulate(program, cluster, {.engine = Engine::dependency});
    CHECK(dependencies.engine == Engine::dependency);
    check_same(events, dependencies);
  }
}

TEST_CASE("An engine that does not apply says why, and auto takes one that does") {
  const Cluster cluster = star(3, gigabytes_per_second(1), {}, {132, gigabytes_per_second(100)});
  const auto refusal = [&](const Program& program, const std::string& reason) {
    CHECK_THROWS_WITH(simulate(program, cluster, {.engine = Engine::dependency}),
                      ContainsSubstring("the dependency engine cannot run") && ContainsSubstring(reason));
    const SimulationResult result = simulate(program, cluster, {});
    CHECK(result.engine == Engine::event);
    CHECK_THAT(result.engine_reason, ContainsSubstring(reason));
  };
  Op holds = transfer_op(Stream::collective, 5);
  holds.sms = 4;
  refusal(ListProgram(1).add(0, holds), "op 0\" holds SMs");
  Op hungry = compute_op(1000);
  hungry.hbm_traffic = bytes(90);
  refusal(ListProgram(2).add(0, hungry).add(0, transfer_op(Stream::copy_out), {{0, 1, bytes(10), {}}}),
          "wants the HBM bandwidth");
  refusal(ListProgram(3)
              .add(0, transfer_op(Stream::copy_out), {{0, 2, bytes(10), {}}})
              .add(1, transfer_op(Stream::copy_out), {{1, 2, bytes(10), {}}}),
          "link switch -> gpu2 carries transfers of several streams or ranks");
  Op late = compute_op(9), early = transfer_op(Stream::copy_out, 2), waits = compute_op(1);
  late.finished[0] = early.finished[0] = {0, 0};
  waits.wait_for({0, 0}, 1);
  waits.stream = Stream::network;
  refusal(ListProgram(1, {"either"}).add(0, late).add(0, early).add(0, waits),
          "in an order that depends on their times");

  const RingProgram ring(3, 4, 1000, bytes(10));
  CHECK(simulate(ring, cluster, {}).engine == Engine::dependency);
  Op unlike = compute_op(1);
  CHECK_THROWS_WITH(simulate(ListProgram(2).add(0, unlike), cluster, {.engine = Engine::lumped}),
                    ContainsSubstring("hardly two ranks are alike"));
}

TEST_CASE("A program that can never end is told from one that only the event engine can run") {
  Op op = compute_op(1);
  op.wait_for({0, 0}, 1);
  const ListProgram program = ListProgram(1, {"never"}).add(0, op);
  CHECK_THROWS_AS(simulate(program, star(1, gigabytes_per_second(1)), {}), DeadlockError);
}

TEST_CASE("Beyond what a double counts exactly the event engine takes over") {
  const Ticks day = Ticks{86'400} * 1'000'000'000'000;
  const ListProgram program = ListProgram(1).add(0, compute_op(day + 1)).add(0, compute_op(day));
  const SimulationResult result = simulate(program, star(1, gigabytes_per_second(1)), {});
  CHECK(result.end == 2 * day + 1);
  CHECK_THAT(result.engine_reason, ContainsSubstring("2^53 ps"));
}
