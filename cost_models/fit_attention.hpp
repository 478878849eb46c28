#pragma once

#include "cost_models/fit_rows.hpp"

namespace orrery {

/// Cycles of the attention kernels of a pass at the clock that was measured, a model for each head_dim of the rows.
/// `guarded`: rows of kernels that guard the end of the keys, which differ from others by one constant; that alone is
/// fitted to them.
void fit_attention(Phase phase, const MeasuredRows& fitted, const MeasuredRows& guarded, const GpuPeaks& peaks,
                   Profile& profile);

}  // namespace orrery
