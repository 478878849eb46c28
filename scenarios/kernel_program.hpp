// A program whose compute ops are kernels with a power: what its ranks draw, and at which clock they run.
#pragma once

#include <vector>

#include "cost_models/clock.hpp"
#include "sim/program.hpp"

namespace orrery {

/// Sums over kernels, each alone on its GPU.
struct KernelWork {
  Seconds time;
  Joules energy;  // above what an idle GPU takes; of messages too

  KernelWork& operator+=(const KernelWork& other) {
    time += other.time;
    energy += other.energy;
    return *this;
  }
  KernelWork operator*(double times) const { return {time * times, energy * times}; }
};

class KernelProgram : public Program {
 public:
  /// From now on all ops are generated at this cap. Not while a simulation runs.
  virtual void cap_clock(ClockCap cap) = 0;
  /// Of one rank, and of all, over the whole program.
  virtual KernelWork kernel_work(Rank rank) const = 0;
  virtual std::vector<KernelWork> kernel_work_of_ranks() const = 0;
};

}  // namespace orrery
