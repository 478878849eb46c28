// Kinds of rows of measured files, each predicted in a way of its own: the parts of predict_runs.
#pragma once

#include <functional>
#include <span>
#include <vector>

#include "validate/runs.hpp"

namespace orrery {

using ProfileOfRow = std::function<const Profile&(std::size_t row)>;

/// Each loaded once. `profile`: see predict_runs. The table outlives it.
ProfileOfRow profiles_of(const MeasuredTable& table, const std::string& profile);

/// Rows of single kernels and messages.
std::vector<Prediction> predict_kernels(const MeasuredTable& table, std::span<const MeasuredKernel> rows,
                                        const ProfileOfRow& profile);

/// Why the run of this row cannot be simulated; empty if it can.
std::string cannot_simulate(const MeasuredTable& table, std::size_t row);

/// A row of attention on several GPUs.
Prediction predict_attention_run(const MeasuredTable& table, std::size_t row, const Profile& profile);

/// Rows of overlap.csv: the kernel's time beside a transfer from its time alone.
std::vector<Prediction> predict_overlap(const MeasuredTable& table, const ProfileOfRow& profile_of_row);

/// Rows of power.csv: a kernel in a burst, and launched back to back for seconds.
std::vector<Prediction> predict_power(const MeasuredTable& table, const ProfileOfRow& profile_of_row);

}  // namespace orrery
