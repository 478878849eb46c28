// How far a predicted step time may be off: the interval that 90 % of measured steps lie in.
#pragma once

#include <optional>
#include <string>

#include "scenarios/scenario.hpp"
#include "sim/simulate.hpp"

namespace orrery {

struct StepInterval {
  double half_width = 0;      // as a fraction of the predicted time
  bool extrapolated = false;  // no run of this implementation on so many GPUs, of such a length and mask was measured
};

/// The kind of mask that every layer has and the layout that shares it, e.g. "causal zigzag"; "full" alone, of which
/// every layout makes the same blocks.
std::string mask_and_layout(const Scenario& scenario);

/// The bands of the kernels and messages on the critical path, each by its share of it. Errors of one kind go the same
/// way in every op, so half widths add up. Nothing if the profile has no bands.
std::optional<double> propagated_half_width(const Scenario& scenario, const Program& program,
                                            const SimulationResult& result);

/// That, times the factor that measured runs of the implementation need on top (RunBand of the profile): what the
/// simulator leaves out. Beyond their range it is doubled; without such runs it is twice the least that implementations
/// of the same transport need.
std::optional<StepInterval> step_interval(const Scenario& scenario, const Program& program,
                                          const SimulationResult& result);

}  // namespace orrery
