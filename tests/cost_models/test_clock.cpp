// Clock, power and energy of a kernel under load.
#include "cost_models/clock.hpp"

#include "tests/catch.hpp"
#include "tests/cost_models/measured_models.hpp"

using namespace orrery;

namespace {

/// All cycles on the tensor cores: load 1.
KernelLoad tensor_load(double cycles) {
  KernelLoad load;
  load.cycles = cycles;
  load.flops = Flops::from_si(cycles * 1e5);
  return load;
}
PowerModel power(double droop, double watts) {
  return {number(droop), number(watts)};
}

}  // namespace

TEST_CASE("a burst runs at the burst clock less the droop times the tensor load") {
  const KernelRun run = run_kernel(tensor_load(1e6), steady_clock(), power(2e8, 1), Regime::burst);
  CHECK_THAT(run.clock_hz, WithinRel(1e9 - 2e8, 1e-6));
  CHECK_THAT(run.duration.si(), WithinRel(1e6 / 8e8, 1e-6));
}

TEST_CASE("half a tensor load droops half as far") {
  KernelLoad load = tensor_load(1e6);
  load.flops = load.flops * 0.5;
  CHECK_THAT(run_kernel(load, steady_clock(), power(2e8, 1), Regime::burst).clock_hz, WithinRel(1e9 - 1e8, 1e-6));
}

TEST_CASE("sustained, the clock falls until the power is at its limit") {
  ClockModel clock = steady_clock();
  clock.power_limit = number(500);
  // 100 W idle + 1000 W * (f / 1 GHz)^2 = 500 W.
  const KernelRun run = run_kernel(tensor_load(1e6), clock, power(0, 1000), Regime::sustained);
  CHECK_THAT(run.clock_hz, WithinRel(1e9 * std::sqrt(0.4), 1e-6));
  CHECK_THAT(run.power.si(), WithinRel(500.0, 1e-6));
  CHECK_THAT(run_kernel(tensor_load(1e6), clock, power(0, 1000), Regime::burst).clock_hz, WithinRel(1e9, 1e-6));
}

TEST_CASE("no load lowers the clock below a quarter of its maximum, neither by its droop nor by its power") {
  ClockModel clock = steady_clock();
  clock.power_limit = number(101);  // 1 W above idle, where a quarter of the clock takes 1000 W / 16
  CHECK_THAT(run_kernel(tensor_load(1e6), clock, power(0, 1000), Regime::sustained).clock_hz,
             WithinRel(test_clock / 4, 1e-9));
  CHECK_THAT(run_kernel(tensor_load(1e6), clock, power(0.9 * test_clock, 1), Regime::burst).clock_hz,
             WithinRel(test_clock / 4, 1e-9));
}

TEST_CASE("under a shared cap a kernel runs at the cap or at its own burst, whichever is slower") {
  const auto clock_at = [](double cap) {
    return run_kernel(tensor_load(1e6), steady_clock(), power(2e8, 1), ClockCap::shared(cap)).clock_hz;
  };
  CHECK_THAT(clock_at(7e8), WithinRel(7e8, 1e-9));
  CHECK_THAT(clock_at(9e8), WithinRel(1e9 - 2e8, 1e-6));
}

TEST_CASE("below the limit both regimes run at the same clock") {
  const KernelRun burst = run_kernel(tensor_load(1e6), steady_clock(), power(1e8, 1000), Regime::burst);
  const KernelRun sustained = run_kernel(tensor_load(1e6), steady_clock(), power(1e8, 1000), Regime::sustained);
  CHECK(burst.clock_hz == sustained.clock_hz);
}

TEST_CASE("a kernel without tensor work runs at the maximum clock, and HBM traffic costs its energy") {
  KernelLoad load;
  load.unclocked = Seconds::from_si(1e-3);
  load.hbm_traffic = Bytes::from_si(4e9);
  const KernelRun run = run_kernel(load, steady_clock(), PowerModel(), Regime::sustained);
  CHECK(run.duration == load.unclocked);
  CHECK_THAT(run.power.si(), WithinRel(100 + 1e-10 * 4e9 / 1e-3, 1e-9));
}

TEST_CASE("the largest of two and three normal draws is 1 / sqrt(pi) and 3 / (2 sqrt(pi)) on the average") {
  CHECK_THAT(expected_largest(1), WithinAbs(0, 1e-9));
  CHECK_THAT(expected_largest(2), WithinRel(0.5641895835, 1e-4));
  CHECK_THAT(expected_largest(3), WithinRel(0.8462843753, 1e-4));
}

TEST_CASE("the slowest of several GPUs lags by the spread of chips and in time, of short steps or of long ones") {
  ClockModel clock = steady_clock();
  CHECK(slowest_lag(clock, 8, Seconds::from_si(1)) == 0);  // nothing measured
  clock.chip_spread = number(0.03);
  clock.wander = number(0.04);
  clock.swing = number(0.072);
  CHECK(slowest_lag(clock, 1, Seconds::from_si(1)) == 0);
  CHECK_THAT(slowest_lag(clock, 2, Seconds::from_si(0.04)), WithinRel(expected_largest(2) * 0.05, 1e-12));
  CHECK_THAT(slowest_lag(clock, 2, Seconds::from_si(0.06)), WithinRel(expected_largest(2) * 0.078, 1e-12));
}

TEST_CASE("products with zeros take their time and droop the clock, but draw no power") {
  KernelLoad load = tensor_load(1e6);
  load.with_zeros = load.flops * 0.5;
  CHECK_THAT(run_kernel(load, steady_clock(), power(2e8, 1), Regime::burst).clock_hz, WithinRel(1e9 - 2e8, 1e-6));
  const double whole = run_kernel(tensor_load(1e6), steady_clock(), power(0, 1000), Regime::burst).power.si();
  CHECK_THAT(run_kernel(load, steady_clock(), power(0, 1000), Regime::burst).power.si(),
             WithinRel(100 + (whole - 100) / 2, 1e-9));
}

TEST_CASE(
    "a step of about the lag lies between what shorter and longer ones lag: nothing jumps, and longer is never less") {
  ClockModel clock = steady_clock();
  clock.wander = number(0.01);
  clock.swing = number(0.04);
  const double half_way = expected_largest(2) * (0.01 + 0.04) / 2;
  CHECK_THAT(slowest_lag(clock, 2, Seconds::from_si(clock.power_lag.value)), WithinRel(half_way, 1e-12));
  const double all = slowest_lag(clock, 2, Seconds::from_si(1)) - slowest_lag(clock, 2, Seconds::from_si(0.001));
  double before = slowest_lag(clock, 2, Seconds::from_si(0.03));
  for (double step = 0.03; step < 0.07; step += 0.0001) {
    const double lag = slowest_lag(clock, 2, Seconds::from_si(step));
    CHECK(lag >= before);
    CHECK(lag - before < all / 100);  // 0.1 ms of the 20 ms between
    before = lag;
  }
}

TEST_CASE("SMs with work draw power whatever their tensor cores do, and idle ones none") {
  ClockModel clock = steady_clock();
  clock.power_limit = number(500);
  clock.busy_power = number(200);
  KernelLoad load = tensor_load(1e6);
  load.busy_cycles = 0.5e6;
  // 100 W idle + (1000 W + 200 W / 2) * (f / 1 GHz)^2 = 500 W.
  CHECK_THAT(run_kernel(load, clock, power(0, 1000), Regime::sustained).clock_hz,
             WithinRel(1e9 * std::sqrt(400.0 / 1100), 1e-6));
}

TEST_CASE(
    "messages are read from HBM and written there, by SMs at the energy of a copy, by copy engines at the memory's") {
  const ClockModel clock = steady_clock();
  const Bytes sent = Bytes::from_si(1e9);
  CHECK_THAT(energy_of_messages(sent, true, clock).si(), WithinRel(2e9 * 1e-10, 1e-12));
  CHECK_THAT(energy_of_messages(sent, false, clock).si(), WithinRel(2e9 * 8 * 3.92e-12, 1e-12));
}
