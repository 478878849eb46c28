// Ranks that all run the same ops are worked off in tiles; the event engine knows nothing of tiles.
#include <vector>

#include "tests/catch.hpp"
#include "tests/sim/programs.hpp"
#include "tests/sim/same_result.hpp"

using namespace orrery;
using namespace orrery::test;

namespace {

/// A ring with two buffers whose ranks below a limit, another one in every step, have less to do. Every few steps a
/// message also goes far, and is waited for a step later. An op that takes no time raises what the next hop waits for.
class EvenRing : public Program {
 public:
  EvenRing(Rank ranks, std::int64_t steps, Rank far, bool in_sets)
      : ranks_(ranks), steps_(steps), far_(far), in_sets_(in_sets) {}

  Rank ranks() const override { return ranks_; }
  std::int64_t blocks() const override { return steps_; }
  std::span<const std::string> signals() const override { return signals_; }
  std::span<const std::string> categories() const override { return categories_; }
  std::span<const std::string> phases() const override { return phases_; }
  std::string describe(Rank, std::int64_t block, std::int32_t index) const override {
    return fmt::format("step {} op {}", block, index);
  }

  void partition(std::int64_t block, std::vector<RankSet>& sets) const override {
    const Rank limit = limit_in(block);
    if (!in_sets_ || limit == 0) {
      sets.push_back({0, 1, ranks_});
      return;
    }
    sets.push_back({0, 1, limit});
    sets.push_back({limit, 1, ranks_ - limit});
  }

  void generate(Rank rank, std::int64_t block, OpBuffer& buffer) const override {
    const Rank next = (rank + 1) % ranks_, far = (rank + far_) % ranks_;
    const auto phase = static_cast<std::uint8_t>(block * 2 / steps_);
    Op send = transfer_op(Stream::copy_out, 2 * us);
    send.phase = phase;
    if (block > 0) send.wait_for({rank, arrived}, block);
    send.wait_for({next, marked}, block - 1);
    const Message message{rank, next, bytes(10'000), {next, arrived}};
    buffer.add(send, {&message, 1});

    Op compute = compute_op(rank < limit_in(block) ? 7 * us : 20 * us);
    compute.phase = phase;
    if (block > 0) compute.wait_for({rank, arrived}, block);
    if (block % period == 1) compute.wait_for({rank, come_far}, block / period + 1);
    compute.finished[0] = {rank, computed};
    buffer.add(compute);
    for (int i = 0; i < 10 && block % 5 == 2; ++i) {  // while other streams rest
      Op small = compute_op(us);
      small.phase = phase;
      small.wait_for({rank, arrived}, block);
      buffer.add(small);
    }
    Op marker;
    marker.phase = phase;
    marker.finished[0] = {rank, marked};
    buffer.add(marker);

    if (block % period != 0) return;
    Op jump = transfer_op(Stream::network);
    jump.category = 2;
    jump.phase = phase;
    jump.wait_for({rank, computed}, block + 1);
    const Message over{rank, far, bytes(50'000), {far, come_far}};
    buffer.add(jump, {&over, 1});
  }

 private:
  enum Signal : std::int32_t { arrived, computed, marked, come_far };
  static constexpr std::int64_t period = 12;
  Rank limit_in(std::int64_t block) const { return in_sets_ ? static_cast<Rank>(block * 37 % ranks_) : 0; }

  Rank ranks_;
  std::int64_t steps_;
  Rank far_;
  bool in_sets_;
  std::vector<std::string> signals_ = {"arrived", "computed", "marked", "come_far"};
  std::vector<std::string> categories_ = {"attention", "transfer", "jump"};
  std::vector<std::string> phases_ = {"first half", "second half"};
};

/// A switch between any two ranks that talk, so that no link is shared; so many latencies take turns.
Cluster with_lines_between(Rank ranks, Rank far, Rank latencies = 3) {
  Cluster cluster({});
  for (Rank rank = 0; rank < ranks; ++rank) cluster.add_gpu(fmt::format("gpu{}", rank));
  for (const Rank distance : {1, far}) {
    for (Rank rank = 0; rank < ranks; ++rank) {
      const auto line = cluster.add_switch(fmt::format("line {} from {}", distance, rank));
      cluster.connect(static_cast<Cluster::Node>(rank), line, gigabytes_per_second(1), microseconds(rank % latencies));
      cluster.connect(line, static_cast<Cluster::Node>((rank + distance) % ranks), gigabytes_per_second(1), {});
    }
  }
  return cluster;
}

}  // namespace

TEST_CASE("Tiles of ranks that run ahead of each other give what the event engine gives") {
  struct Case {
    Rank ranks;
    std::int64_t steps;
    Rank far;
    bool in_sets;
  };
  // From 4096 ranks on there are several tiles; they reach far for near jumps and stop before far ones.
  const Case cases[] = {{70, 40, 3, true}, {300, 30, 140, false}, {4097, 30, 5, true}, {4500, 26, 1700, false}};
  for (const auto& [ranks, steps, far, in_sets] : cases) {
    INFO(ranks << " ranks, messages as far as " << far);
    const EvenRing program(ranks, steps, far, in_sets);
    const Cluster cluster = with_lines_between(ranks, far);
    const Perturbation noise(ranks, {Noise::uniform, 0.1, 3}, {{2, 0.5}});
    for (const Perturbation* perturbation : {&noise, static_cast<const Perturbation*>(nullptr)}) {
      const SimulationResult events =
          simulate(program, cluster, {.engine = Engine::event, .perturbation = perturbation});
      const SimulationResult tiles =
          simulate(program, cluster, {.engine = Engine::dependency, .perturbation = perturbation});
      CHECK(tiles.engine == Engine::dependency);
      check_same(events, tiles);
    }
  }
}

TEST_CASE("Slow ranks that repeat themselves round a ring leave few classes of ranks") {
  constexpr Rank ranks = 64, apart = 16;
  const EvenRing program(ranks, 30, apart, false);
  const Cluster cluster = with_lines_between(ranks, apart, 1);
  const Perturbation slow(ranks, {}, {{3, 0.5}, {3 + apart, 0.5}, {3 + 2 * apart, 0.5}, {3 + 3 * apart, 0.5}});
  const SimulationResult events = simulate(program, cluster, {.engine = Engine::event, .perturbation = &slow});
  const SimulationResult automatic = simulate(program, cluster, {.perturbation = &slow});
  CHECK(automatic.engine == Engine::lumped);
  check_same(events, automatic);
  const Perturbation one(ranks, {}, {{3, 0.5}});
  CHECK(simulate(program, cluster, {.perturbation = &one}).engine_reason == "slow ranks set them apart");
}

TEST_CASE("Halves of the ranks that raise or wait differently give what the event engine gives") {
  struct Halves : ListProgram {
    using ListProgram::ListProgram;
    void partition(std::int64_t, std::vector<RankSet>& sets) const override { sets = {{0, 1, 32}, {32, 1, 32}}; }
  };
  for (const bool begins : {true, false}) {
    INFO((begins ? "half of them raise when they begin too" : "half of them wait for the second raise"));
    Halves program(64, {"computed"});
    for (Rank rank = 0; rank < 64; ++rank) {
      Op compute = compute_op(500);
      compute.finished[0] = {rank, 0};
      if (begins && rank >= 32) compute.started = {rank, 0};
      Op copy = transfer_op(Stream::copy_out, 100);
      copy.wait_for({rank, 0}, !begins && rank >= 32 ? 2 : 1);
      program.add(rank, compute).add(rank, copy);
      if (!begins) program.add(rank, compute);  // else it would hide when the copy began
    }
    const Cluster cluster = star(64, gigabytes_per_second(1));
    const SimulationResult events = simulate(program, cluster, {.engine = Engine::event});
    CHECK(events.ranks[0].exposed_comm == (begins ? 100 : 0));
    CHECK(events.ranks[63].exposed_comm == (begins ? 0 : 100));
    check_same(events, simulate(program, cluster, {.engine = Engine::dependency}));
  }
}
