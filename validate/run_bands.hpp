// Interval widths of whole runs, from runs that are set aside for it. Predictions are never fitted to them.
#pragma once

#include <vector>

#include "cost_models/profile.hpp"
#include "validate/runs.hpp"

namespace orrery {

/// Rows that calibrate: half of the shapes, by a bit of the digest of their plain cells (another digest would draw
/// other halves), as a coin would choose them: in the order of a file every other shape may be one without a mask. All
/// passes of a shape share its use. In overlap.csv, every other kind of transfer. Times play no part. The other rows
/// test the interval.
std::vector<bool> calibrating_rows(const MeasuredTable& table);

/// Adds to `profile` what the calibrating rows of these files say: a RunBand for each implementation, and a band of
/// slow-downs. Throws FitError for a file that has no row of either, and a row that is off ten times.
void calibrate_runs(const std::vector<MeasuredTable>& tables, Profile& profile);

}  // namespace orrery
