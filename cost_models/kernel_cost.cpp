#include "cost_models/kernel_cost.hpp"

#include <algorithm>

namespace orrery {
namespace {

Seconds roofline(Flops flops, Bytes bytes, const Constant& efficiency, const GpuPeaks& peaks, const Profile& profile) {
  const Seconds matrix = flops / (peaks.matrix * efficiency.value);
  const Seconds memory = bytes / (peaks.hbm * profile.hbm_efficiency.value);
  return std::max(matrix, memory) + Seconds::from_si(profile.kernel_overhead.value);
}

}  // namespace

Flops attention_flops(const AttentionShape& shape, Phase phase) {
  const double forward = 4.0 * shape.pairs * shape.head_dim * shape.heads * shape.batch;
  return Flops::from_si(phase == Phase::forward ? forward : 2.5 * forward);
}

Bytes attention_bytes(const AttentionShape& shape, Phase phase) {
  const double row = shape.head_dim * shape.element_bytes * shape.batch;
  const double queries = shape.query_rows * shape.heads * row;
  const double keys = shape.key_rows * shape.kv_heads * row;
  return Bytes::from_si(phase == Phase::forward ? 2 * queries + 2 * keys : 4 * queries + 4 * keys);
}

KernelCost attention_cost(const AttentionShape& shape, Phase phase, const GpuPeaks& peaks, const Profile& profile) {
  const Constant& efficiency =
      phase == Phase::forward ? profile.attention_forward_efficiency : profile.attention_backward_efficiency;
  const Flops flops = attention_flops(shape, phase);
  const Bytes bytes = attention_bytes(shape, phase);
  return {roofline(flops, bytes, efficiency, peaks, profile), bytes, flops};
}

KernelCost streaming_cost(Bytes bytes, const GpuPeaks& peaks, const Profile& profile) {
  return {roofline(Flops(), bytes, profile.dense_efficiency, peaks, profile), bytes, Flops()};
}

KernelCost dense_cost(Flops flops, Bytes bytes, const GpuPeaks& peaks, const Profile& profile) {
  return {roofline(flops, bytes, profile.dense_efficiency, peaks, profile), bytes, flops};
}

}  // namespace orrery
