// The profile of one GPU for another, which was not measured.
#pragma once

#include "cost_models/kernel_cost.hpp"
#include "cost_models/profile.hpp"

namespace orrery {

/// Every kernel of `to` does the same fraction of its peaks as on the lender's GPU, at the same clocks and the same
/// shares of the power limit. All constants are assumed then; error bands, which were measured, are left out.
Profile lend(Profile lender, const GpuPeaks& from, const GpuPeaks& to);

}  // namespace orrery
