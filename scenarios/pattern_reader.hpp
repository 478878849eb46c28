// The list `pattern` of the [attention] table of a scenario.
#pragma once

#include <vector>

#include "scenarios/pattern.hpp"
#include "scenarios/reader.hpp"

namespace orrery {

/// Throws InputError.
std::vector<Primitive> read_pattern(const Table& attention, bool causal, int layers);

}  // namespace orrery
