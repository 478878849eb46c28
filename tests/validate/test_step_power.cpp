// The power limit of a step: its clock, its energy, and the interval of its time.
#include "scenarios/step_power.hpp"

#include <string>

#include "cost_models/fit_kernels.hpp"
#include "scenarios/data_files.hpp"
#include "scenarios/step_interval.hpp"
#include "scenarios/step_scenario.hpp"
#include "sim/topologies.hpp"
#include "tests/catch.hpp"
#include "tests/each_op.hpp"

using namespace orrery;

namespace {

/// One layer's forward pass of eight H200 in a ring, with the profile that was measured.
Scenario ring(const char* layout = "zigzag") {
  Scenario s = load_scenario(std::string(ORRERY_SOURCE_DIR) + "/scenarios/examples/llama3_8b_128k_" +
                             (layout == std::string("zigzag") ? "zigzag" : "ring") + "_h200.toml");
  s.layers = 1;
  s.backward = false;
  s.whole_layers = false;
  return s;
}

/// No chip is slower than another, and none wanders.
Scenario alike(Scenario s) {
  ClockModel& clock = s.profile.kernels->clock;
  clock.chip_spread = clock.wander = clock.swing = Constant();
  return s;
}

PoweredResult run_powered(const Scenario& s) {
  AttentionProgram program = build_program(s);
  return simulate_step(program, s);
}

}  // namespace

TEST_CASE("a step that needs more than the limit runs at the clock at which its mean power is the limit") {
  const Scenario s = alike(ring());
  const PoweredResult sustained = run_powered(s);
  REQUIRE(sustained.power);
  REQUIRE(sustained.power->clock_cap_hz > 0);
  CHECK_THAT(sustained.power->highest.si(), WithinRel(s.profile.kernels->clock.power_limit.value, 0.004));
  Scenario rested = s;
  rested.regime = Regime::burst;
  CHECK(run_powered(rested).result.end < sustained.result.end);
}

TEST_CASE(
    "at the power limit a step of eight GPUs runs at the clock of the slowest, and one of a single GPU at its own") {
  Scenario s = ring();
  ClockModel& clock = s.profile.kernels->clock;
  clock.chip_spread.value = 0.02;
  const double all_alike = run_powered(alike(s)).power->clock_cap_hz;
  const PoweredResult slowest = run_powered(s);
  const double lag = slowest_lag(clock, 8, to_seconds(slowest.result.end));
  // But for what does not go with the clock: the power of the memory and of messages.
  CHECK_THAT(slowest.power->clock_cap_hz, WithinRel(all_alike * (1 - lag), 0.3 * lag));
  CHECK(run_powered(alike(s)).result.end < slowest.result.end);
  s.regime = Regime::burst;
  CHECK(run_powered(alike(s)).result.end == run_powered(s).result.end);
}

TEST_CASE("the slowest GPU lags the less the further the limit is from binding the others, without a jump") {
  Scenario s = ring();
  ClockModel& clock = s.profile.kernels->clock;
  clock.chip_spread.value = 0.02;
  s.regime = Regime::burst;
  const PoweredResult burst = run_powered(s);
  s.regime = Regime::sustained;
  const auto time_with_limit = [&](double of_highest) {
    clock.power_limit.value = of_highest * burst.power->highest.si();
    return to_seconds(run_powered(s).result.end).si();
  };
  const double above = time_with_limit(1.001), below = time_with_limit(0.999);
  CHECK(below > above);
  CHECK_THAT(below, WithinRel(above, 0.002));
  CHECK_THAT(time_with_limit(1.5), WithinRel(to_seconds(burst.result.end).si(), 1e-12));
  CHECK(above > 1.005 * to_seconds(burst.result.end).si());
}

TEST_CASE("pauses count: a step whose mean power stays below the limit runs as fast as a burst") {
  Scenario s = ring();
  // Links so slow that every rank waits for most of the step.
  const double slow = 1e8;
  s.cluster = nvswitch(s.cluster.gpu(), {s.ranks(), {BytesPerSecond::from_si(slow), Seconds()}});
  const PoweredResult sustained = run_powered(s);
  REQUIRE(sustained.power);
  CHECK(sustained.power->clock_cap_hz == 0);
  CHECK(sustained.power->highest < Watts::from_si(s.profile.kernels->clock.power_limit.value));
  s.regime = Regime::burst;
  CHECK(run_powered(s).result.end == sustained.result.end);
}

TEST_CASE("the energy of a step is that of idle GPUs and of the kernels, rank by rank") {
  const Scenario s = alike(ring("ring"));  // causal and contiguous: every rank has other work
  AttentionProgram program = build_program(s);
  const PoweredResult done = simulate_step(program, s);
  double joules = 0, most = 0;
  const double idle = s.profile.kernels->clock.idle_power.value, seconds = to_seconds(done.result.end).si();
  for (Rank rank = 0; rank < s.ranks(); ++rank) {
    const double of_rank = idle * seconds + program.kernel_work(rank).energy.si();
    joules += of_rank;
    most = std::max(most, of_rank);
  }
  CHECK_THAT(done.power->energy.si(), WithinRel(joules, 1e-9));
  CHECK_THAT(done.power->mean.si(), WithinRel(joules / seconds / s.ranks(), 1e-9));
  CHECK_THAT(done.power->highest.si(), WithinRel(most / seconds, 1e-9));
}

TEST_CASE("the kernels of a whole step's ranks are those that its ops take time for") {
  Scenario s = load_scenario(std::string(ORRERY_SOURCE_DIR) + "/scenarios/steps/llama3_8b_1m_context_h200.toml");
  s.layers = 2;
  s.regime = Regime::burst;
  StepProgram program = build_step(s);
  program.cap_clock(Regime::burst);
  const KernelWork work = program.kernel_work(0);
  Ticks ops = 0;
  for_each_op(program, 0, [&](const Op& op, auto) {
    if (op.stream == Stream::compute) ops += op.duration;
  });
  CHECK_THAT(work.time.si(), WithinRel(to_seconds(ops).si(), 1e-6));
  CHECK(work.energy > Joules());
}

TEST_CASE("what a step's collectives send costs energy: of SMs that copy with NCCL, of the memory with copy engines") {
  Scenario s = load_scenario(std::string(ORRERY_SOURCE_DIR) + "/scenarios/steps/llama3_8b_8k_fsdp_64.toml");
  s.layers = 2;
  s.regime = Regime::burst;
  const auto energy_with = [&](Transport transport) {
    s.implementation.transport = transport;
    return build_step(s).kernel_work(0).energy.si();
  };
  s.implementation.transport = Transport::nccl;
  const StepProgram program = build_step(s);
  Bytes sent;
  for_each_op(program, 0, [&](const Op&, std::span<const Message> messages) {
    for (const Message& message : messages) sent += message.size;
  });
  const ClockModel& clock = s.profile.kernels->clock;
  const Joules more = energy_of_messages(sent, true, clock) - energy_of_messages(sent, false, clock);
  REQUIRE(more > Joules());
  CHECK_THAT(energy_with(Transport::nccl) - energy_with(Transport::copy_engine), WithinRel(more.si(), 1e-6));
}

TEST_CASE("what a ring sends costs energy: of SMs that copy with NCCL, of the memory with copy engines") {
  Scenario s = ring();
  s.regime = Regime::burst;
  const auto energy_with = [&](Transport transport) {
    s.implementation.transport = transport;
    return build_program(s).kernel_work(0).energy.si();
  };
  const double rows = static_cast<double>(s.tokens) / s.ranks(), hops = s.ranks() - 1;
  const Bytes sent = Bytes::from_si(hops * 2 * rows * static_cast<double>(s.model.kv_heads * s.model.head_dim) * 2);
  const ClockModel& clock = s.profile.kernels->clock;
  const Joules more = energy_of_messages(sent, true, clock) - energy_of_messages(sent, false, clock);
  REQUIRE(more > Joules());
  CHECK_THAT(energy_with(Transport::nccl) - energy_with(Transport::copy_engine), WithinRel(more.si(), 1e-6));
}

TEST_CASE("without a power model a step has no energy, and without bands no interval") {
  Scenario s = ring();
  s.profile.kernels.reset();
  AttentionProgram program = build_program(s);
  const PoweredResult done = simulate_step(program, s);
  CHECK_FALSE(done.power);
  CHECK_FALSE(step_interval(s, program, done.result));
}

TEST_CASE("an interval is wider, and says so, where no run of the implementation was measured") {
  Scenario s = ring();
  AttentionProgram program = build_program(s);
  const PoweredResult done = simulate_step(program, s);
  const double propagated = propagated_half_width(s, program, done.result).value();
  const double seconds = to_seconds(done.result.end).si();
  s.profile.kernels->runs = {{s.implementation.name,
                              "copy_engine",
                              {std::string(s.schedule->name)},
                              1.5,
                              9,
                              8,
                              seconds / 2,
                              seconds * 2,
                              "test"}};
  const StepInterval inside = step_interval(s, program, done.result).value();
  CHECK_FALSE(inside.extrapolated);
  CHECK_THAT(inside.half_width, WithinRel(1.5 * propagated, 1e-12));
  s.profile.kernels->runs.front().schedules = {"ulysses"};
  CHECK(step_interval(s, program, done.result).value().extrapolated);
  s.profile.kernels->runs.front().schedules = {};
  CHECK_FALSE(step_interval(s, program, done.result).value().extrapolated);
  s.profile.kernels->runs.front().schedules = {std::string(s.schedule->name)};
  s.profile.kernels->runs.front().most_gpus = 4;
  const StepInterval outside = step_interval(s, program, done.result).value();
  CHECK(outside.extrapolated);
  CHECK_THAT(outside.half_width, WithinRel(2 * 1.5 * propagated, 1e-12));
}

TEST_CASE("an implementation without measured runs has twice the widest of those with some, or twice its parts alone") {
  Scenario s = ring();
  AttentionProgram program = build_program(s);
  const SimulationResult result = simulate_step(program, s).result;
  const double propagated = propagated_half_width(s, program, result).value();
  s.profile.kernels->runs = {{"wide", "copy_engine", {}, 1.5, 9, 8, 0, 1, "test"},
                             {"narrow", "copy_engine", {}, 1.2, 9, 8, 0, 1, "test"}};
  CHECK(step_interval(s, program, result)->extrapolated);
  CHECK_THAT(step_interval(s, program, result)->half_width, WithinRel(2 * 1.5 * propagated, 1e-12));
  s.profile.kernels->runs.clear();
  CHECK(step_interval(s, program, result)->extrapolated);
  CHECK_THAT(step_interval(s, program, result)->half_width, WithinRel(2 * propagated, 1e-12));
}

TEST_CASE("waiting for launches and sharing links are as uncertain as messages") {
  Scenario s = ring("ring");
  s.profile.kernels->bands = {{"attention forward", 0.02, 0.04, 1, 1e15, 9},
                              {"copies >= 1 MB", 0.03, 0.06, 1, 1e15, 9}};
  AttentionProgram program = build_program(s);
  SimulationResult result = simulate_step(program, s).result;
  for (Ticks& part : result.critical_path.by_category) part = 0;
  result.critical_path.by_category[static_cast<std::size_t>(Category::attention)] = result.end;
  for (const auto part : {&CriticalPath::launch, &CriticalPath::contention}) {
    result.critical_path.launch = result.critical_path.contention = 0;
    CHECK_THAT(propagated_half_width(s, program, result).value(), WithinRel(0.02, 1e-12));
    result.critical_path.*part = result.end;
    CHECK_THAT(propagated_half_width(s, program, result).value(), WithinRel(0.02 + 0.03, 1e-12));
  }
}

TEST_CASE("what no band is of is as uncertain as the worst that was measured, also on links nobody measured") {
  Scenario s = ring("ring");
  MeasuredKernels& kernels = *s.profile.kernels;
  kernels.runs.clear();
  AttentionProgram program = build_program(s);
  SimulationResult result = simulate_step(program, s).result;
  // A step that is nothing but messages.
  for (Ticks& part : result.critical_path.by_category) part = 0;
  result.critical_path.contention = result.critical_path.launch = 0;
  result.critical_path.by_category[static_cast<std::size_t>(Category::kv_transfer)] = result.end;
  kernels.bands = {{"attention forward", 0.02, 0.04, 1, 1e15, 9},
                   {"copies < 1 MB", 0.3, 0.6, 1, 1e6, 9},
                   {"copies >= 1 MB", 0.03, 0.06, 1, 1e15, 9}};
  CHECK_THAT(propagated_half_width(s, program, result).value(), WithinRel(0.03, 1e-12));
  s.links.front().type.name = "another";
  kernels.bands.push_back({"gemm", 0.05, 0.1, 1, 1e15, 9});
  CHECK_THAT(propagated_half_width(s, program, result).value(), WithinRel(0.05, 1e-12));
  // A step of products alone: how far chips differ is no band of products.
  SimulationResult dense = result;
  dense.critical_path.by_category[static_cast<std::size_t>(Category::kv_transfer)] = 0;
  dense.critical_path.by_category[static_cast<std::size_t>(Category::dense)] = result.end;
  kernels.bands = {{"attention forward", 0.02, 0.04, 1, 1e15, 9}, {other_chip, 0.01, 0.02, 1, 1e15, 9}};
  CHECK_THAT(propagated_half_width(s, program, dense).value(), WithinRel(0.02, 1e-12));
  kernels.bands.push_back({"gemm", 0.005, 0.01, 1, 1e15, 9});
  CHECK_THAT(propagated_half_width(s, program, dense).value(), WithinRel(0.01, 1e-12));
  s.links.front().type.name = "nvlink4";
  kernels.bands = {{"attention forward", 0.02, 0.04, 1, 1e15, 9}, {"copies < 1 MB", 0.3, 0.6, 1, 1e6, 9}};
  CHECK_THAT(propagated_half_width(s, program, result).value(), WithinRel(0.02, 1e-12));
}
