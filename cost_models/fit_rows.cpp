#include "cost_models/fit_rows.hpp"

namespace orrery {

AttentionModel& model_of(const MeasuredKernel& row, MeasuredKernels& kernels) {
  for (AttentionModel& model : kernels.attention) {
    if (model.phase == row.phase && model.head_dim == static_cast<int>(row.attention.head_dim)) return model;
  }
  throw FitError(row.place + ": no model of this head_dim");  // cannot happen: models are made from the rows
}

KernelLoad load_of(const MeasuredKernel& row, const GpuPeaks& peaks, Profile& profile) {
  MeasuredKernels& kernels = *profile.kernels;
  if (row.kind == MeasuredKernel::Kind::gemm) return gemm_load(row.dense, *kernels.gemm, kernels, peaks);
  return attention_load(row.attention, model_of(row, kernels), kernels, peaks, profile.tile_query.value,
                        profile.tile_key.value);
}

double error_at_measured_clock(const KernelLoad& load, const MeasuredKernel& row) {
  return duration_at(row.clock_hz, load) / row.time - 1;
}

}  // namespace orrery
