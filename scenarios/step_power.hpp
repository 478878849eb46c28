// The power limit holds for the mean over a step: its clock, its energy.
//
// Boards average their power over tens of milliseconds. A step whose kernels are shorter than that runs all of them
// under one cap of the clock, the highest at which the mean power of the rank that draws most stays at the limit.
// Pauses and memory-bound kernels count, so a ring that waits for messages runs faster than its kernels would back to
// back. GPUs differ in the clock they reach at the limit, so a step of several is as slow as the slowest is on the
// average. Neglected: ranks that draw less could run faster, but wait for the others anyway; what links and waiting
// kernels draw; of messages the memory at both ends counts.
#pragma once

#include <optional>

#include "scenarios/kernel_program.hpp"
#include "scenarios/scenario.hpp"
#include "sim/simulate.hpp"

namespace orrery {

struct StepPower {
  Joules energy;            // of all GPUs in a step
  Watts mean, highest;      // of a GPU: over all, and of the one that draws most
  double clock_cap_hz = 0;  // that the power limit puts on the kernels of the slowest; 0: none
};

/// A step as settling its clock needs it: simulated at a cap, or the work of the rank that draws most at one.
class PoweredStep {
 public:
  virtual ~PoweredStep() = default;
  virtual Seconds simulate(ClockCap cap) = 0;
  virtual KernelWork hottest(ClockCap cap) = 0;
};

/// Simulates bursts, finds the cap of the clock, and simulates once more if there is one (at most `most_passes` times
/// in all). The last simulation is at the cap that it returns, in Hz; 0: none.
double settle_clock(PoweredStep& step, const ClockModel& clock, Regime regime);

/// The highest cap at which the rank that draws most meets the limit, if a step takes `step` at the caps at which its
/// kernels are `at_present`, and loses or gains what they do. `lag`: of a GPU whose clock at the limit is lower by that
/// part. The limit may bind it alone, and then the less the further the others are from it.
ClockCap cap_at_limit(PoweredStep& powered, const ClockModel& clock, Seconds step, const KernelWork& at_present,
                      double lag = 0);

/// Of the rank whose kernels are `work`.
Watts mean_power(const ClockModel& clock, const KernelWork& work, Seconds step);

/// Whether the profile has a power model; those of published rates have none.
bool has_power_limit(const Profile& profile);

struct PoweredResult {
  SimulationResult result;
  std::optional<StepPower> power;  // if the profile has a power model
};

/// Settles the clock and leaves the program at its cap. `options.sink` sees the last simulation alone.
PoweredResult simulate_step(KernelProgram& program, const Scenario& scenario, SimulationOptions options = {});

}  // namespace orrery
