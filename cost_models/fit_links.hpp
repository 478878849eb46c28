#pragma once

#include <vector>

#include "cost_models/link_table.hpp"
#include "cost_models/unknowns.hpp"

namespace orrery {

/// Kinds of message of which too few sizes were measured have no table.
std::vector<LinkTable> tabulate_links(const MeasuredRows& messages);

}  // namespace orrery
