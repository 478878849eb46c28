// What the first rank of each pipeline stage holds over the time of a step, as a CSV file.
#pragma once

#include <ostream>

#include "scenarios/memory_over_time.hpp"

namespace orrery {

/// A row for each visit that ran, stage by stage in the order of time.
void write_memory_csv(std::ostream& out, const StepProgram& program, const VisitTimes& times);

}  // namespace orrery
