// Which ranks are alike: the same ops all along, equally fast, over equal routes, with neighbours that are alike.
#pragma once

#include <optional>

#include "sim/block_store.hpp"
#include "sim/columns.hpp"
#include "sim/perturbation.hpp"
#include "sim/survey.hpp"

namespace orrery {

/// The coarsest classes of which every member sees, `distance` ranks up or down, members of one class; by colour
/// refinement. `perturbation` without noise, or null. Nothing if there are more than half as many classes as ranks.
std::optional<Columns> rank_classes(BlockStore& blocks, const Survey& survey, const Perturbation* perturbation);

}  // namespace orrery
