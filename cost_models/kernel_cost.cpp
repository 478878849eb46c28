#include "cost_models/kernel_cost.hpp"

#include <algorithm>
#include <cmath>

#include "cost_models/attention_tiles.hpp"

namespace orrery {
namespace {

Seconds roofline(Flops flops, Bytes bytes, const Constant& efficiency, const GpuPeaks& peaks, const Profile& profile) {
  const Seconds matrix = flops / (peaks.matrix * efficiency.value);
  const Seconds memory = bytes / (peaks.hbm * profile.hbm_efficiency.value);
  return std::max(matrix, memory) + Seconds::from_si(profile.kernel_overhead.value);
}

/// The kernels were measured in 16-bit types; others have other tiles and rates.
bool measured_type(double element_bytes) {
  return element_bytes == 2;
}

std::int64_t tiles_along(double rows, double tile) {
  return static_cast<std::int64_t>(std::ceil(rows / tile));
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

KernelLoad attention_load(const AttentionShape& shape, const AttentionModel& model, const MeasuredKernels& kernels,
                          const GpuPeaks& peaks, double tile_query, double tile_key) {
  const std::int64_t query_tiles = tiles_along(shape.query_rows, tile_query);
  const std::int64_t key_tiles = tiles_along(shape.key_rows, tile_key);
  const bool forward = model.phase == Phase::forward;
  TileLists lists;
  lists.lists = forward ? query_tiles : key_tiles;
  lists.longest = static_cast<double>(forward ? key_tiles : query_tiles);
  lists.tiles = shape.pairs / (tile_query * tile_key);
  // A boundary tile loses half of its pairs on the average: the diagonal of a causal mask, either end of a window.
  lists.masked_tiles = std::min(lists.tiles, shape.masked_pairs / (tile_query * (tile_key - 1) / 2));
  lists.heads = static_cast<std::int64_t>(shape.heads * shape.batch);
  lists.longest_first = !forward;
  // Constants of another head_dim: products grow with it. Then the prediction is an extrapolation.
  const double scale = shape.head_dim / model.head_dim;
  const TileCycles cycles{model.list_start.value * scale, model.full_tile.value * scale,
                          model.masked_tile.value * scale};
  const double row = shape.heads * shape.head_dim * shape.batch;
  double traffic = model.query_traffic.value * shape.query_rows * row;
  if (shape.kv_heads < shape.heads) traffic += model.grouped_traffic.value * shape.key_rows * row;
  KernelLoad load;
  load.cycles = makespan(lists, cycles, peaks.sms);
  const StreamModel* copy = kernels.stream_of("copy_kernel");
  const double rate = copy != nullptr ? copy->bandwidth.value : peaks.hbm.si();
  load.unclocked = Seconds::from_si(model.launch.value + traffic / rate);
  load.flops = attention_flops(shape, model.phase);
  load.hbm_traffic = attention_bytes(shape, model.phase) + Bytes::from_si(traffic);
  return load;
}

KernelLoad gemm_load(const DenseShape& shape, const GemmModel& model, const ClockModel& clock) {
  KernelLoad load;
  load.unclocked = Seconds::from_si(model.launch.value * shape.products);
  load.cycles = shape.flops.si() / (model.efficiency.value * clock.tensor_flops_per_cycle.value) +
                shape.outputs * model.output_cycles.value;
  load.flops = shape.flops;
  load.hbm_traffic = shape.bytes;
  return load;
}

KernelCost attention_cost(const AttentionShape& shape, Phase phase, const GpuPeaks& peaks, const Profile& profile,
                          Regime regime) {
  const Flops flops = attention_flops(shape, phase);
  const Bytes bytes = attention_bytes(shape, phase);
  if (profile.kernels && measured_type(shape.element_bytes)) {
    if (const AttentionModel* model = profile.kernels->attention_of(phase, shape.head_dim)) {
      const KernelLoad load =
          attention_load(shape, *model, *profile.kernels, peaks, profile.tile_query.value, profile.tile_key.value);
      const KernelRun run = run_kernel(load, profile.kernels->clock, model->power, regime);
      return {run.duration, load.hbm_traffic, flops, run.power};
    }
  }
  const Constant& efficiency =
      phase == Phase::forward ? profile.attention_forward_efficiency : profile.attention_backward_efficiency;
  return {roofline(flops, bytes, efficiency, peaks, profile), bytes, flops, Watts()};
}

KernelCost streaming_cost(Bytes bytes, const GpuPeaks& peaks, const Profile& profile, std::string_view kernel) {
  if (profile.kernels) {
    const StreamModel* model = profile.kernels->stream_of(kernel);
    if (model == nullptr) model = profile.kernels->stream_of("other");
    if (model != nullptr) {
      KernelLoad load;
      load.unclocked = Seconds::from_si(model->launch.value + bytes.si() / model->bandwidth.value);
      load.hbm_traffic = bytes;
      const KernelRun run = run_kernel(load, profile.kernels->clock, PowerModel(), Regime::sustained);
      return {run.duration, bytes, Flops(), run.power};
    }
  }
  return {roofline(Flops(), bytes, profile.dense_efficiency, peaks, profile), bytes, Flops(), Watts()};
}

KernelCost dense_cost(const DenseShape& shape, const GpuPeaks& peaks, const Profile& profile, Regime regime) {
  if (profile.kernels && profile.kernels->gemm && measured_type(shape.element_bytes)) {
    const GemmModel& model = *profile.kernels->gemm;
    const KernelRun run =
        run_kernel(gemm_load(shape, model, profile.kernels->clock), profile.kernels->clock, model.power, regime);
    return {run.duration, shape.bytes, shape.flops, run.power};
  }
  return {roofline(shape.flops, shape.bytes, profile.dense_efficiency, peaks, profile), shape.bytes, shape.flops,
          Watts()};
}

KernelCost AttentionCosts::of(const AttentionShape& shape, Phase phase, const GpuPeaks& peaks, const Profile& profile,
                              Regime regime) {
  if (!profile.kernels) return attention_cost(shape, phase, peaks, profile, regime);
  const std::lock_guard lock(mutex_);
  const auto known =
      std::find_if(known_.begin(), known_.end(), [&](const Known& k) { return k.phase == phase && k.shape == shape; });
  if (known != known_.end()) return known->cost;
  known_.push_back({shape, phase, attention_cost(shape, phase, peaks, profile, regime)});
  return known_.back().cost;
}

}  // namespace orrery
