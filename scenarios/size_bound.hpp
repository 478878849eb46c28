// What is certain of a candidate before it is simulated.
#pragma once

#include "scenarios/size_candidate.hpp"

namespace orrery {

/// In closed form, in about a microsecond. `time`: no simulation of the candidate can be faster.
struct Bound {
  Seconds time;
  Bytes memory;
  bool fits = false;
};
Bound bound_of(const SizeProblem& problem, const Candidate& candidate);

}  // namespace orrery
