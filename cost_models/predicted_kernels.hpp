// What a profile says of the rows of measured files, and how sure that is.
#pragma once

#include <optional>

#include "cost_models/measured_kernels.hpp"

namespace orrery {

/// Time of that row by the profile; 0 if the profile has no model of it.
Seconds predicted_time(const MeasuredKernel& row, const GpuPeaks& peaks, const Profile& profile);

/// The range of a band grows to hold that row; a band without a group begins with it.
void stretch(ErrorBand& band, const MeasuredKernel& row);
/// Whether the row is of a shape among those that the band was measured on.
bool within(const ErrorBand& band, const MeasuredKernel& row);

struct KernelInterval {
  double half_width = 0;  // as a fraction of the prediction
  bool extrapolated = false;
};

/// How far off the constants of the other measured head_dims are for each that was measured, at this shape: as
/// uncertain is a head_dim that was not.
double error_of_other_head_dims(const AttentionShape& shape, Phase phase, Regime regime, const GpuPeaks& peaks,
                                const Profile& profile);

/// The 90 % interval of predicted_time; nothing if no such kernels were measured. Attention of a head_dim that was not
/// is as uncertain as the measured head_dims are when predicted from each other.
std::optional<KernelInterval> interval_of(const MeasuredKernel& row, const GpuPeaks& peaks, const Profile& profile);

/// What a stream took longer because L2 was flushed before it.
Seconds written_first(const MeasuredKernel& row, const StreamModel& model);

}  // namespace orrery
