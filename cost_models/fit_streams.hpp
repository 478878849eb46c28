#pragma once

#include <vector>

#include "cost_models/unknowns.hpp"

namespace orrery {

/// Kernels that move bytes, a model for each kind, and last "other", fitted to all kinds. A kind with few sizes shares
/// the constants of all.
std::vector<StreamModel> fit_streams(const MeasuredRows& rows, Bytes cache);

}  // namespace orrery
