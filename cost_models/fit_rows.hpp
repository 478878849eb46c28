// The rows of a fit, and what they ask of the GPU by the constants found so far.
#pragma once

#include "cost_models/unknowns.hpp"

namespace orrery {

/// Those of the rows that `keep` holds for.
template <class Keep>
MeasuredRows those(const MeasuredRows& rows, Keep keep) {
  MeasuredRows kept;
  std::copy_if(rows.begin(), rows.end(), std::back_inserter(kept), [&](const auto* row) { return keep(*row); });
  return kept;
}

/// Of a row of attention.
AttentionModel& model_of(const MeasuredKernel& row, MeasuredKernels& kernels);

/// Of a row of attention, or of a matrix product.
KernelLoad load_of(const MeasuredKernel& row, const GpuPeaks& peaks, Profile& profile);

/// How far off the load is, as a fraction of the row's time.
double error_at_measured_clock(const KernelLoad& load, const MeasuredKernel& row);

}  // namespace orrery
