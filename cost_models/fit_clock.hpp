#pragma once

#include "cost_models/fit_rows.hpp"

namespace orrery {

/// Clock and power of the chip and of its kernels, once the cycles of these are known: of bursts, then at the power
/// limit.
void fit_clocks(const MeasuredRows& fitted, const GpuPeaks& peaks, Profile& profile);

/// How far samples of one row lie apart where the power limit holds.
void spread_in_time(const MeasuredRows& fitted, ClockModel& clock);

}  // namespace orrery
