#include "scenarios/step_power.hpp"

#include <algorithm>
#include <cmath>

#include "scenarios/report.hpp"

namespace orrery {
namespace {

constexpr int most_passes = 4;
constexpr double close_enough = 3e-3;   // of the power limit
constexpr int bisections = 16;          // 2^-16 of the clock
constexpr double slowest_share = 0.25;  // of the maximum clock

class Settling {
 public:
  Settling(KernelProgram& program, const ClockModel& clock) : program_(program), clock_(clock) {}

  double power(const KernelWork& work, double step_s) const {
    return clock_.idle_power.value + (step_s > 0 ? work.energy.si() / step_s : 0);
  }

  /// The highest cap at which `rank` meets the limit, if a step takes what it took but for `exposed` of the time that
  /// kernels gain or lose.
  ClockCap cap_for(Rank rank, double step_s, const KernelWork& at_present, double exposed) const {
    double low = slowest_share * clock_.maximum_clock.value, high = clock_.maximum_clock.value;
    for (int i = 0; i < bisections; ++i) {
      const double middle = (low + high) / 2;
      program_.cap_clock(ClockCap::shared(middle));
      const KernelWork work = program_.kernel_work(rank);
      const double step = step_s + exposed * (work.time - at_present.time).si();
      (power(work, step) > clock_.power_limit.value ? high : low) = middle;
    }
    return ClockCap::shared(low);
  }

 private:
  KernelProgram& program_;
  const ClockModel& clock_;
};

Rank hottest(const std::vector<KernelWork>& ranks) {
  const auto most =
      std::max_element(ranks.begin(), ranks.end(), [](const auto& a, const auto& b) { return a.energy < b.energy; });
  return static_cast<Rank>(most - ranks.begin());
}

StepPower power_of(const std::vector<KernelWork>& ranks, const ClockModel& clock, const SimulationResult& result,
                   double cap_hz) {
  StepPower power;
  const Watts idle = Watts::from_si(clock.idle_power.value);
  const Seconds step = to_seconds(result.end);
  Joules highest;
  for (const KernelWork& work : ranks) {
    power.energy += idle * step + work.energy;
    highest = std::max(highest, work.energy);
  }
  power.clock_cap_hz = cap_hz;
  if (result.end == 0) return power;
  power.mean = power.energy / step / static_cast<double>(result.ranks.size());
  power.highest = idle + highest / step;
  return power;
}

}  // namespace

PoweredResult simulate_step(KernelProgram& program, const Scenario& s, SimulationOptions options) {
  // Profiles of published rates know no power: their limit is 0.
  if (!s.profile.kernels || !(s.profile.kernels->clock.power_limit.value > 0)) {
    return {simulate(program, s, options), std::nullopt};
  }
  if (options.perturbation == nullptr) options.perturbation = s.variation.perturbation.get();
  options.faults = s.fault_plan.faults.get();
  const Cluster& cluster = s.cluster;
  const ClockModel& clock = s.profile.kernels->clock;
  const double limit = clock.power_limit.value;
  const Settling settling(program, clock);
  SimulationOptions quiet = options;
  quiet.sink = nullptr;
  program.cap_clock(Regime::burst);
  SimulationResult result = simulate(program, cluster, quiet);
  const Rank rank = hottest(program.kernel_work_of_ranks());
  const double burst_s = to_seconds(result.end).si();
  const KernelWork burst = program.kernel_work(rank);
  double cap_hz = 0;
  if (s.regime == Regime::sustained && settling.power(burst, burst_s) > limit) {
    double exposed = 1;  // of the time that kernels lose; the first guess is that nothing hides it
    for (int pass = 1; pass < most_passes; ++pass) {
      const ClockCap cap = settling.cap_for(rank, burst_s, burst, exposed);
      program.cap_clock(cap);
      cap_hz = cap.hz();
      result = simulate(program, cluster, quiet);
      const KernelWork work = program.kernel_work(rank);
      const double step_s = to_seconds(result.end).si(), lost_s = (work.time - burst.time).si();
      if (std::abs(settling.power(work, step_s) / limit - 1) < close_enough || !(lost_s > 0)) break;
      exposed = std::max(0.0, (step_s - burst_s) / lost_s);
    }
  }
  // Power and energy are those of GPUs alike, which wait for the slowest.
  const std::vector<KernelWork> alike = program.kernel_work_of_ranks();
  const double lag = cap_hz > 0 ? slowest_lag(clock, s.ranks(), to_seconds(result.end)) : 0;
  if (lag > 0) {
    cap_hz *= 1 - lag;
    program.cap_clock(ClockCap::shared(cap_hz));
  }
  if (lag > 0 || options.sink != nullptr) result = simulate(program, cluster, options);
  s.fault_plan.check_end(result.end);
  const StepPower power = power_of(alike, clock, result, cap_hz);
  return {std::move(result), power};
}

}  // namespace orrery
