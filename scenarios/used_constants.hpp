// Which constants of a profile a scenario's prediction rests on, and where it goes beyond what they were measured for.
#pragma once

#include <string>
#include <vector>

#include "scenarios/scenario.hpp"

namespace orrery {

/// In the order of Profile::constants().
std::vector<const Constant*> used_constants(const Scenario& scenario);

/// A choice of the scenario that the measured kernels do not cover.
struct Extrapolation {
  std::string name, value, source;
};
std::vector<Extrapolation> extrapolations(const Scenario& scenario);

}  // namespace orrery
