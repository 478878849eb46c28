// What is certain of a candidate before it is simulated.
#pragma once

#include "scenarios/size_candidate.hpp"

namespace orrery {

/// In closed form, in less than a microsecond. `time`: no simulation of the candidate can be faster.
struct Bound {
  Seconds time;
  Seconds beside_kernels;  // of a step, at least: when a rank has no kernel to run
  Bytes memory;
  bool fits = false;
};
Bound bound_of(const SizeProblem& problem, const Candidate& candidate);

}  // namespace orrery
