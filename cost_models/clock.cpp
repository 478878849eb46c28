#include "cost_models/clock.hpp"

#include <algorithm>
#include <cmath>

namespace orrery {
namespace {

constexpr int bisections = 40;  // 2^-40 of the clock range is far below a tick of any kernel
// J per byte of HBM by itself: 3.92 pJ per bit (O'Connor et al., Fine-Grained DRAM, MICRO 2017, of HBM2). What a copy
// draws per byte beyond that are its SMs, and those of kernels with products are part of their tensor power.
constexpr double memory_alone = 8 * 3.92e-12;
// Of the lag: launches of 40 ms were measured to go at the clock of a burst, of 60 ms not (power_lag of the profiles).
constexpr double swing_begins = 0.8, swing_holds = 1.2;
constexpr double slowest_share = 0.25;  // of the maximum clock; below it no GPU of this kind throttles

/// FLOPs per cycle over what the tensor cores could do, on the average over the kernel.
double tensor_load_at(double clock_hz, Flops flops, const KernelLoad& load, const ClockModel& clock) {
  const double cycles = duration_at(clock_hz, load).si() * clock_hz;
  return cycles > 0 ? flops.si() / cycles / clock.tensor_flops_per_cycle.value : 0;
}

double energy_per_byte(bool sms_copy, const ClockModel& clock) {
  return sms_copy ? clock.hbm_energy.value : std::min(clock.hbm_energy.value, memory_alone);
}

double power_at(double clock_hz, const KernelLoad& load, const ClockModel& clock, const PowerModel& power) {
  const double voltage_and_clock = std::pow(clock_hz / clock.maximum_clock.value, clock.power_exponent.value);
  const double seconds = duration_at(clock_hz, load).si();
  const double busy = seconds > 0 ? load.busy_cycles / clock_hz / seconds : 0;
  const double memory =
      seconds > 0 ? energy_per_byte(load.flops == Flops(), clock) * load.hbm_traffic.si() / seconds : 0;
  const double switching = tensor_load_at(clock_hz, load.flops - load.with_zeros, load, clock);
  const double at_maximum = clock.busy_power.value * busy + power.tensor_power.value * switching;
  return clock.idle_power.value + at_maximum * voltage_and_clock + memory;
}

double burst_clock(const KernelLoad& load, const ClockModel& clock, const PowerModel& power) {
  if (load.flops == Flops()) return clock.maximum_clock.value;
  // The load per cycle depends a little on the clock, through the time that does not: more per cycle if it is slower.
  double low = slowest_share * clock.maximum_clock.value, high = clock.maximum_clock.value;
  for (int i = 0; i < bisections; ++i) {
    const double f = (low + high) / 2;
    const double settled =
        clock.burst_clock.value - power.clock_droop.value * tensor_load_at(f, load.flops, load, clock);
    (settled > f ? low : high) = f;
  }
  return low;
}

}  // namespace

Seconds duration_at(double clock_hz, const KernelLoad& load) {
  return std::max(load.unclocked + Seconds::from_si(load.cycles / clock_hz), load.at_least);
}

KernelRun run_kernel(const KernelLoad& load, const ClockModel& clock, const PowerModel& power, ClockCap cap) {
  double f = std::min(burst_clock(load, clock, power), cap.hz());
  if (cap.each_alone() && power_at(f, load, clock, power) > clock.power_limit.value) {
    double low = slowest_share * clock.maximum_clock.value, high = f;
    for (int i = 0; i < bisections; ++i) {
      const double middle = (low + high) / 2;
      (power_at(middle, load, clock, power) > clock.power_limit.value ? high : low) = middle;
    }
    f = low;
  }
  return {duration_at(f, load), f, Watts::from_si(power_at(f, load, clock, power))};
}

Joules energy_of_messages(Bytes sent, bool by_sms, const ClockModel& clock) {
  return Joules::from_si(2 * sent.si() * energy_per_byte(by_sms, clock));
}

double expected_largest(int draws) {
  // E[max] = integral of (1 - F^n) over x > 0, minus that of F^n over x < 0; far beyond 8 nothing is left.
  constexpr double end = 8, step = 1.0 / 64;
  double sum = 0;
  for (double x = -end + step / 2; x < end; x += step) {
    const double all_below = std::pow(std::erfc(-x / std::sqrt(2.0)) / 2, draws);
    sum += step * (x > 0 ? 1 - all_below : -all_below);
  }
  return sum;
}

double slowest_lag(const ClockModel& clock, int gpus, Seconds step) {
  if (gpus < 2) return 0;
  const double share =
      std::clamp((step.si() / clock.power_lag.value - swing_begins) / (swing_holds - swing_begins), 0.0, 1.0);
  const double in_time = (1 - share) * clock.wander.value + share * clock.swing.value;
  return expected_largest(gpus) * std::hypot(clock.chip_spread.value, in_time);
}

}  // namespace orrery
