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
  Settling(PoweredStep& step, const ClockModel& clock) : step_(step), clock_(clock) {}

  double power(const KernelWork& work, double step_s) const {
    return clock_.idle_power.value + (step_s > 0 ? work.energy.si() / step_s : 0);
  }

  /// The highest cap at which the rank meets the limit, if a step takes what it took but for `exposed` of the time that
  /// kernels gain or lose.
  ClockCap cap_for(double step_s, const KernelWork& at_present, double exposed) const {
    double low = slowest_share * clock_.maximum_clock.value, high = clock_.maximum_clock.value;
    for (int i = 0; i < bisections; ++i) {
      const double middle = (low + high) / 2;
      const KernelWork work = step_.hottest(ClockCap::shared(middle));
      const double step = step_s + exposed * (work.time - at_present.time).si();
      (power(work, step) > clock_.power_limit.value ? high : low) = middle;
    }
    return ClockCap::shared(low);
  }

 private:
  PoweredStep& step_;
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

/// A program of its own.
class WholeStep : public PoweredStep {
 public:
  WholeStep(KernelProgram& program, const Cluster& cluster, const SimulationOptions& options)
      : program_(program), cluster_(cluster), options_(options) {}

  Seconds simulate(ClockCap cap) override {
    program_.cap_clock(cap);
    result_ = orrery::simulate(program_, cluster_, options_);
    return to_seconds(result_.end);
  }
  KernelWork hottest(ClockCap cap) override {
    program_.cap_clock(cap);
    if (!rank_) rank_ = orrery::hottest(program_.kernel_work_of_ranks());
    return program_.kernel_work(*rank_);
  }
  SimulationResult take() { return std::move(result_); }

 private:
  KernelProgram& program_;
  const Cluster& cluster_;
  const SimulationOptions& options_;
  SimulationResult result_;
  std::optional<Rank> rank_;
};

}  // namespace

Watts mean_power(const ClockModel& clock, const KernelWork& work, Seconds step) {
  return Watts::from_si(clock.idle_power.value) + work.energy / step;
}

ClockCap cap_at_limit(PoweredStep& powered, const ClockModel& clock, Seconds step, const KernelWork& at_present,
                      double lag) {
  // It draws as much at its clock as the others at theirs, and they would so much less at its.
  const double idle = clock.idle_power.value;
  const double limit = idle + (clock.power_limit.value - idle) * std::pow(1 - lag, clock.power_exponent.value);
  const auto excess = [&](double hz) {
    const KernelWork work = powered.hottest(ClockCap::shared(hz));
    return mean_power(clock, work, step + (work.time - at_present.time)).si() / limit - 1;
  };
  double high = clock.maximum_clock.value, low = slowest_share * high;
  double over = excess(high), under = excess(low);
  if (over <= 0) return ClockCap::shared(high);
  if (under >= 0) return ClockCap::shared(low);
  // False position, with the Illinois rule: what keeps its place twice counts half.
  constexpr double near = 1e-4;
  double found = low;
  for (int i = 0, side = 0; i < bisections; ++i) {
    found = (low * over - high * under) / (over - under);
    const double here = excess(found);
    if (std::abs(here) < near) break;
    if (here > 0) {
      high = found, over = here;
      if (side == 1) under /= 2;
      side = 1;
    } else {
      low = found, under = here;
      if (side == -1) over /= 2;
      side = -1;
    }
  }
  return ClockCap::shared(found);
}

bool has_power_limit(const Profile& profile) {
  return profile.kernels && profile.kernels->clock.power_limit.value > 0;
}

double settle_clock(PoweredStep& step, const ClockModel& clock, Regime regime) {
  const double limit = clock.power_limit.value;
  const Settling settling(step, clock);
  const double burst_s = step.simulate(Regime::burst).si();
  const KernelWork burst = step.hottest(Regime::burst);
  if (regime != Regime::sustained || settling.power(burst, burst_s) <= limit) return 0;
  double cap_hz = 0;
  double exposed = 1;  // of the time that kernels lose; the first guess is that nothing hides it
  for (int pass = 1; pass < most_passes; ++pass) {
    const ClockCap cap = settling.cap_for(burst_s, burst, exposed);
    cap_hz = cap.hz();
    const double step_s = step.simulate(cap).si();
    const KernelWork work = step.hottest(cap);
    const double lost_s = (work.time - burst.time).si();
    if (std::abs(settling.power(work, step_s) / limit - 1) < close_enough || !(lost_s > 0)) break;
    exposed = std::max(0.0, (step_s - burst_s) / lost_s);
  }
  return cap_hz;
}

PoweredResult simulate_step(KernelProgram& program, const Scenario& s, SimulationOptions options) {
  if (!has_power_limit(s.profile)) return {simulate(program, s, options), std::nullopt};
  if (options.perturbation == nullptr) options.perturbation = s.variation.perturbation.get();
  options.faults = s.fault_plan.faults.get();
  const ClockModel& clock = s.profile.kernels->clock;
  SimulationOptions quiet = options;
  quiet.sink = nullptr;
  WholeStep step(program, s.cluster, quiet);
  double cap_hz = settle_clock(step, clock, s.regime);
  SimulationResult result = step.take();
  // Power and energy are those of GPUs alike, which wait for the slowest.
  const std::vector<KernelWork> alike = program.kernel_work_of_ranks();
  const Seconds length = to_seconds(result.end);
  const double lag = s.regime == Regime::sustained ? slowest_lag(clock, s.ranks(), length) : 0;
  ClockCap cap = cap_hz > 0 ? ClockCap::shared(cap_hz) : ClockCap(Regime::burst);
  bool lags = false;
  if (lag > 0) {
    const ClockCap of_slowest = cap_at_limit(step, clock, length, step.hottest(cap), lag);
    lags = of_slowest.hz() < std::min(cap.hz(), clock.maximum_clock.value);
    if (lags) cap = of_slowest;
  }
  if (lags) cap_hz = cap.hz();
  program.cap_clock(cap);
  if (lags || options.sink != nullptr) result = simulate(program, s.cluster, options);
  s.fault_plan.check_end(result.end);
  const StepPower power = power_of(alike, clock, result, cap_hz);
  return {std::move(result), power};
}

}  // namespace orrery
