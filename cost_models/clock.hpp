// The clock of a GPU under load, its power and its energy.
//
// A chip runs at its highest clock only while little is asked of it. Two things lower the clock under load:
//   at once      the tensor cores' current makes the regulator step back, the further the more they do per cycle
//   after a lag  the board's mean power reaches its limit, and the clock falls until it is met
// So a kernel of half a millisecond after a rest (a burst) and the same kernel for ten seconds (sustained) take
// different times, although they take the same cycles. The limit holds for the mean over everything the board does
// within the lag: pauses, and kernels that need less, let the others run faster. So a step whose kernels are shorter
// than the lag has one cap for all of them (scenarios/step_power.hpp).
#pragma once

#include <limits>

#include "cost_models/constant.hpp"
#include "sim/units.hpp"

namespace orrery {

/// How long the GPU has been under load: shorter than the power limit's lag, or much longer.
enum class Regime { burst, sustained };

/// How far the clock may rise: as far as a burst lets it; until launches of this kernel alone, back to back, meet the
/// power limit (sustained); or up to a cap that everything in a step shares.
class ClockCap {
 public:
  ClockCap(Regime regime = Regime::sustained) : each_alone_(regime == Regime::sustained) {}
  static ClockCap shared(double hz) {
    ClockCap cap(Regime::burst);
    cap.hz_ = hz;
    return cap;
  }
  bool each_alone() const { return each_alone_; }
  double hz() const { return hz_; }
  bool operator==(const ClockCap&) const = default;

 private:
  bool each_alone_;
  double hz_ = std::numeric_limits<double>::infinity();
};

using Joules = Quantity<0, 0, 0, 1>;

/// Of one GPU type, shared by all kernels.
struct ClockModel {
  Constant maximum_clock;   // Hz
  Constant burst_clock;     // Hz, of a burst that would leave the tensor cores idle
  Constant idle_power;      // W
  Constant power_limit;     // W
  Constant power_exponent;  // the SMs' power grows with clock^exponent: voltage rises with frequency
  Constant busy_power;      // W of SMs with work at the maximum clock, whatever their tensor cores do; optional: 0
  Constant hbm_energy;      // J per byte of kernels that only move bytes, their SMs included
  Constant tensor_flops_per_cycle;  // of the whole GPU, dense
  Constant power_lag;               // s under load until the limit holds
  // Relative standard deviations of the clock at the limit; optional: 0.
  Constant chip_spread;  // between chips of one type
  Constant wander;       // in time, over launches shorter than the lag
  Constant swing;        // in time, over longer ones; a step about as long lies between the two
};

/// Of one kind of kernel and data.
struct PowerModel {
  // Hz lost at full tensor load. Masked tiles droop the clock as others do (h200_sxm_rectangles), since only one side
  // of their products is zero; where both are, it droops a quarter as far (products of zeros in gemm.csv), which is
  // left out.
  Constant clock_droop;
  Constant tensor_power;  // W at full tensor load with other numbers and at the maximum clock
};

/// What a kernel does: part of its time passes in cycles of the SM clock, part does not depend on it (HBM, launch).
struct KernelLoad {
  double cycles = 0;
  Seconds unclocked;
  Seconds at_least;  // at any clock: what HBM needs for the traffic
  Flops flops;       // on the tensor cores, executed
  Flops with_zeros;  // of these, products with zeros, which take their time and droop the clock, but draw little power
  Bytes hbm_traffic;
  double busy_cycles = 0;    // of `cycles`, those in which an SM has work, in the mean over all
  double tail_cycles = 0;    // of `cycles`, at the end, with some SMs idle
  double beside_cycles = 0;  // instead of `cycles`, if others hold some SMs
};

struct KernelRun {
  Seconds duration;
  double clock_hz = 0;
  Watts power;
};

Seconds duration_at(double clock_hz, const KernelLoad& load);

KernelRun run_kernel(const KernelLoad& load, const ClockModel& clock, const PowerModel& power, ClockCap cap);

/// What a rank draws for messages of so many bytes that it sends while it receives as many: all are read from HBM here
/// and written there, by SMs as in a copy kernel, or by copy engines. Neglected: what links themselves draw.
Joules energy_of_messages(Bytes sent, bool by_sms, const ClockModel& clock);

/// The mean of the largest of so many draws from the standard normal distribution.
double expected_largest(int draws);

/// By how much the slowest of `gpus` falls behind at the power limit, as a fraction of its clock, in a step of that
/// length: chips differ, and the limit lets the clock of each wander by itself. Who waits for all waits for that one.
double slowest_lag(const ClockModel& clock, int gpus, Seconds step);

}  // namespace orrery
