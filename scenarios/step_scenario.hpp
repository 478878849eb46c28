// A whole step as a scenario describes it: its memory, its program, its closed forms.
#pragma once

#include "scenarios/scenario.hpp"
#include "scenarios/step_program.hpp"

namespace orrery {

MemoryInput memory_input(const Scenario& scenario);
/// The scenario, whose model the program refers to, outlives it.
struct Folds {
  int data = 1, context = 1, steps = 1;  // see StepProgramInput; the scenario's context is divided already
};
StepProgram build_step(const Scenario& scenario, const Folds& folds = {});

/// Rows that a rank fetches for its pattern, at most, over its own rows; contiguous blocks. `whole_windows`: those of
/// Implementation::halo_of_whole_windows.
double fetched_share(const std::vector<Primitive>& primitives, double tokens, int groups, bool whole_windows = false);

/// What a schedule holds of other ranks' keys and gradients. `kept`: until its backward pass.
VisitingBlocks visiting_blocks(const ScheduleKind& schedule, int groups, int members, double fetched_share,
                               bool kept = false);

}  // namespace orrery
