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

/// What a thread block loads before its first tile and stores after its last: Q and O, backward K, V, dK and dV.
Bytes ends_of_list(const AttentionShape& shape, double tile, bool forward) {
  return Bytes::from_si((forward ? 2 : 4) * tile * shape.head_dim * shape.element_bytes);
}

std::int64_t tiles_along(double rows, double tile) {
  return static_cast<std::int64_t>(std::ceil(rows / tile));
}

/// Backward kernels go through the queries in steps of 64 (FlashAttention-2 and 3 at head_dim 128, cuDNN by
/// h200_sxm_odd and h200_sxm_windows).
constexpr double backward_step = 64;

/// How much of the last tile of `tile` queries no list goes through, where all lists reach it. Under a
/// window only the last ones do, and the kernel's end is theirs or others'.
double unused_part_of_last_tile(const AttentionShape& shape, double tile) {
  const double last = std::fmod(shape.query_rows, tile);
  const bool lists_reach_it = !shape.window && shape.pairs >= shape.query_rows * shape.key_rows / 2;
  return last > 0 && lists_reach_it ? 1 - std::ceil(last / backward_step) * backward_step / tile : 0;
}

/// What was written or read last is still in L2, as far as it fits in; if L2 is not known, it fits.
bool comes_from_hbm(const AttentionShape& shape, Phase phase, const MeasuredKernels& kernels) {
  const StreamModel* copy = kernels.stream_of("copy_kernel");
  const double cache = copy != nullptr ? copy->cache.value : 0;
  return shape.cold || (cache > 0 && attention_bytes(shape, phase).si() > cache);
}

/// Under a window, tiles that a list of a backward kernel has less than whole tiles of queries: it ends with the last
/// step that any of its keys is seen by. Blocks no longer than that are neglected.
double steps_saved(const AttentionShape& shape, double tile) {
  const double n = shape.key_rows, useful = shape.pairs - shape.masked_pairs - shape.pairs_beyond;
  if (!shape.window || shape.query_rows != n) return 0;
  // A window over as many queries as keys has n w - w (w - 1) / 2 pairs.
  const double width = std::round((2 * n + 1 - std::sqrt(std::max(0.0, (2 * n + 1) * (2 * n + 1) - 8 * useful))) / 2);
  const double seen_by = tile - 1 + width;
  return seen_by > n ? 0 : std::ceil(seen_by / tile) - std::ceil(seen_by / backward_step) * backward_step / tile;
}

/// With a mask it is another kernel, whose every tile has the code for masking around it; a window's has more of it.
TileCycles tile_cycles(const AttentionShape& shape, const AttentionModel& model, double tile_query, double tile_key,
                       bool own_start) {
  const bool forward = model.phase == Phase::forward;
  const bool window_kernel = shape.window && model.window_kernel.value > 0;
  const bool masked_kernel = !window_kernel && shape.masked_pairs > 0 && model.masked_kernel.value > 0;
  const bool guarded = shape.guarded(model.phase, tile_key);
  const double more = guarded && own_start ? model.guarded_window.value : 0;
  double full = model.full_tile.value;
  if (window_kernel) full *= model.window_kernel.value;
  if (masked_kernel) full *= model.masked_kernel.value;
  if (guarded && !own_start && model.guarded_kernel.value > 0) full *= model.guarded_kernel.value;
  if (!forward) full += more;
  // Constants of another head_dim, beyond all that were measured: products grow with it.
  const double scale = shape.head_dim / model.head_dim;
  TileCycles cycles{model.list_start.value * scale, full * scale, model.masked_tile.value * scale};
  if (own_start) cycles.list_start += model.window_start.value;
  if (forward) cycles.list_start += more;
  if (!forward) cycles.list_start -= cycles.full_tile * unused_part_of_last_tile(shape, tile_query);
  return cycles;
}

/// Of a kernel that goes through all `pairs` of a rectangle, wherever the mask lies.
AttentionShape whole_rectangle(AttentionShape shape, double pairs) {
  shape.pairs = pairs;
  shape.masked_pairs = 0;
  shape.window = false;
  return shape;
}

}  // namespace

BytesPerSecond memory_rate(const MeasuredKernels& kernels, const GpuPeaks& peaks) {
  const StreamModel* copy = kernels.stream_of("copy_kernel");
  return copy != nullptr ? BytesPerSecond::from_si(copy->bandwidth.value) : peaks.hbm;
}

bool AttentionShape::guarded(Phase phase, double tile_key) const {
  if (phase == Phase::forward) return (window || masked_pairs == 0) && std::fmod(key_rows, tile_key) != 0;
  return std::fmod(key_rows, backward_step) != 0;
}

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

KernelLoad attention_load(const AttentionShape& given, const AttentionModel& model, const MeasuredKernels& kernels,
                          const GpuPeaks& peaks, double tile_query, double tile_key, SmsBeside beside) {
  const std::int64_t query_tiles = tiles_along(given.query_rows, tile_query);
  const std::int64_t key_tiles = tiles_along(given.key_rows, tile_key);
  const bool forward = model.phase == Phase::forward;
  const bool whole = given.masked_rectangle() && model.rectangle_edge.value > 0;
  const double tile = tile_query * tile_key;
  const AttentionShape shape =
      whole ? whole_rectangle(given, static_cast<double>(query_tiles * key_tiles) * tile) : given;
  TileLists lists;
  lists.lists = forward ? query_tiles : key_tiles;
  lists.longest = static_cast<double>(forward ? key_tiles : query_tiles);
  lists.slope = forward ? tile_query / tile_key : tile_key / tile_query;
  if (forward) lists.lead = std::max(0.0, shape.key_rows - shape.query_rows) / tile_key;
  lists.tiles = shape.pairs / tile;
  if (!forward) lists.tiles -= steps_saved(shape, tile_query) * static_cast<double>(lists.lists);
  // A boundary tile loses half of its pairs on the average: the diagonal of a causal mask, either end of a window.
  // The edges of a window cost a list that the end cuts as much as others.
  const double tiled = !shape.window ? 1
                       : forward     ? static_cast<double>(query_tiles) * tile_query / shape.query_rows
                                     : static_cast<double>(key_tiles) * tile_key / shape.key_rows;
  lists.masked_tiles = std::min(lists.tiles, tiled * shape.masked_pairs / (tile_query * (tile_key - 1) / 2));
  const bool window = shape.window && model.window_start.value != 0;  // whose edges that has
  if (window) lists.masked_tiles = 0;
  lists.heads = static_cast<std::int64_t>(shape.heads * shape.batch);
  lists.longest_first = !forward;
  TileCycles cycles = tile_cycles(shape, model, tile_query, tile_key, window);
  if (whole) cycles.full_tile += (given.window ? 2 : 1) * model.rectangle_edge.value;
  if (shape.masked_rectangle()) cycles.list_start += model.rectangle_start.value;
  const double row = shape.heads * shape.head_dim * shape.batch;
  double traffic = model.query_traffic.value * shape.query_rows * row;
  double launch = model.launch.value;
  if (comes_from_hbm(shape, model.phase, kernels)) launch += model.cold_start.value;
  if (window) launch += model.window_launch.value;
  if (shape.kv_heads < shape.heads) {
    traffic += model.grouped_traffic.value * shape.key_rows * row;
    launch += model.grouped_launch.value;
  }
  KernelLoad load;
  const Makespan busy = makespan(lists, cycles, peaks.sms, beside.to_start);
  load.cycles = busy.cycles;
  load.tail_cycles = busy.tail;
  load.busy_cycles = busy.busy;
  if (beside.held > 0) load.beside_cycles = makespan(lists, cycles, std::max(1, peaks.sms - beside.held)).cycles;
  const double in_step = starts_in_step(lists, peaks.sms, model.waves_in_step.value) * peaks.sms *
                         ends_of_list(shape, forward ? tile_query : tile_key, forward).si();
  load.unclocked = Seconds::from_si(launch + (traffic + in_step) / memory_rate(kernels, peaks).si());
  load.flops = attention_flops(shape, model.phase);
  // Where the mask is, P and dS are zero: one of two products forward, three of five backward. Beyond the ends all is.
  const double zeros = forward ? 1.0 / 2 : 3.0 / 5;
  AttentionShape hidden = shape;
  hidden.pairs = zeros * (given.masked_pairs + shape.pairs - given.pairs) + given.pairs_beyond;
  load.with_zeros = attention_flops(hidden, model.phase);
  load.hbm_traffic = attention_bytes(shape, model.phase) + Bytes::from_si(traffic);
  return load;
}

Flops DenseShape::flops() const {
  double sum = 0;
  for (const MatrixProduct& p : products) sum += 2 * p.rows * p.columns * p.inner;
  return Flops::from_si(sum);
}

Bytes DenseShape::bytes() const {
  double sum = 0;
  for (const MatrixProduct& p : products) {
    sum += element_bytes * (p.rows * p.inner + p.inner * p.columns) + result_bytes * p.rows * p.columns;
  }
  return Bytes::from_si(sum);
}

DenseShape gradients_of(const DenseShape& forward) {
  DenseShape backward = forward;
  backward.products.clear();
  for (const MatrixProduct& p : forward.products) {
    backward.products.push_back({p.rows, p.inner, p.columns});
    backward.products.push_back({p.inner, p.columns, p.rows});
  }
  return backward;
}

int row_alignment(std::initializer_list<double> widths, double element_bytes) {
  int alignment = 16;
  for (const double width : widths) {
    while (alignment > 1 && std::fmod(std::ceil(width) * element_bytes, alignment) != 0) alignment /= 2;
  }
  return alignment;
}

// A product of few rows is as long as its weights take to come.
KernelLoad gemm_load(const DenseShape& shape, const GemmModel& model, const MeasuredKernels& kernels,
                     const GpuPeaks& peaks) {
  KernelLoad load;
  load.unclocked = Seconds::from_si(model.launch.value * static_cast<double>(shape.products.size()));
  load.at_least = load.unclocked + shape.bytes() / memory_rate(kernels, peaks);
  load.flops = shape.flops();
  load.hbm_traffic = shape.bytes();
  const double flops_per_cycle = kernels.clock.tensor_flops_per_cycle.value;
  const auto of_rows = GemmModel::of_rows(shape.row_alignment, shape.phase);
  if (of_rows != nullptr && (model.*of_rows).value > 0) {
    load.cycles = load.busy_cycles = load.flops.si() / ((model.*of_rows).value * flops_per_cycle);
    return load;
  }
  constexpr double partial_sum_bytes = 2 * 4;  // fp32, written and read
  const ProductRates rates{
      .multiply_adds = model.efficiency.value * flops_per_cycle / 2 / peaks.sms,
      .operand_elements = model.operand_rate.value / shape.element_bytes,
      .tile_ends = model.tile_ends.value,
      .partial_sums = memory_rate(kernels, peaks).si() / kernels.clock.maximum_clock.value / partial_sum_bytes,
      .sms = peaks.sms};
  for (const MatrixProduct& product : shape.products) {
    const TiledProduct tiled = tile_product(product, rates);
    load.cycles += tiled.cycles;
    load.busy_cycles += tiled.busy;
  }
  return load;
}

namespace {

KernelCost cost_of(const KernelLoad& load, const MeasuredKernels& kernels, const PowerModel& power, ClockCap cap,
                   Constant NcclBeside::*beside) {
  const KernelRun run = run_kernel(load, kernels.clock, power, cap);
  return {run.duration,
          load.hbm_traffic,
          load.flops,
          (run.power - Watts::from_si(kernels.clock.idle_power.value)) * run.duration,
          Seconds::from_si(load.tail_cycles / run.clock_hz),
          1 + std::max(0.0, load.beside_cycles - load.cycles) / run.clock_hz / run.duration.si(),
          kernels.nccl_beside ? ((*kernels.nccl_beside).*beside).value : 1};
}

Constant NcclBeside::*beside_attention(Phase phase) {
  return phase == Phase::forward ? &NcclBeside::attention_forward : &NcclBeside::attention_backward;
}

const AttentionModel* model_of(const AttentionShape& shape, Phase phase, const Profile& profile,
                               AttentionModel& between) {
  return profile.kernels && measured_type(shape.element_bytes)
             ? profile.kernels->attention_at(phase, shape.head_dim, between)
             : nullptr;
}

KernelLoad load_of(const AttentionShape& shape, const AttentionModel& model, const GpuPeaks& peaks,
                   const Profile& profile, SmsBeside beside) {
  return attention_load(shape, model, *profile.kernels, peaks, profile.tile_query.value, profile.tile_key.value,
                        beside);
}

}  // namespace

KernelCost attention_cost(const AttentionShape& shape, Phase phase, const GpuPeaks& peaks, const Profile& profile,
                          ClockCap cap, SmsBeside beside) {
  AttentionModel between;
  if (const AttentionModel* model = model_of(shape, phase, profile, between)) {
    return cost_of(load_of(shape, *model, peaks, profile, beside), *profile.kernels, model->power, cap,
                   beside_attention(phase));
  }
  const Flops flops = attention_flops(shape, phase);
  const Bytes bytes = attention_bytes(shape, phase);
  const Constant& efficiency =
      phase == Phase::forward ? profile.attention_forward_efficiency : profile.attention_backward_efficiency;
  return {roofline(flops, bytes, efficiency, peaks, profile), bytes, flops, Joules(), Seconds()};
}

KernelCost streaming_cost(Bytes bytes, const GpuPeaks& peaks, const Profile& profile, std::string_view kernel) {
  if (profile.kernels) {
    if (const StreamModel* model = profile.kernels->stream_or_other(kernel)) {
      KernelLoad load;
      load.unclocked = model->time(bytes);
      load.hbm_traffic = bytes;
      return cost_of(load, *profile.kernels, PowerModel(), Regime::burst, &NcclBeside::streams);
    }
  }
  return {roofline(Flops(), bytes, profile.dense_efficiency, peaks, profile), bytes, Flops(), Joules(), Seconds()};
}

KernelCost dense_cost(const DenseShape& shape, const GpuPeaks& peaks, const Profile& profile, ClockCap cap) {
  if (profile.kernels && profile.kernels->gemm && measured_type(shape.element_bytes)) {
    const GemmModel& model = *profile.kernels->gemm;
    return cost_of(gemm_load(shape, model, *profile.kernels, peaks), *profile.kernels, model.power, cap,
                   &NcclBeside::matrix_products);
  }
  return {roofline(shape.flops(), shape.bytes(), profile.dense_efficiency, peaks, profile), shape.bytes(),
          shape.flops(), Joules(), Seconds()};
}

KernelCost AttentionCosts::of(const AttentionShape& shape, Phase phase, const GpuPeaks& peaks, const Profile& profile,
                              ClockCap cap, SmsBeside beside) {
  AttentionModel between;
  const AttentionModel* model = model_of(shape, phase, profile, between);
  if (model == nullptr) return attention_cost(shape, phase, peaks, profile, cap);
  const std::lock_guard lock(mutex_);
  const auto cost_at = [&](const KernelLoad& load) {
    return cost_of(load, *profile.kernels, model->power, cap, beside_attention(phase));
  };
  const auto known =
      std::find_if(known_.begin(), known_.end(), [&](const Known& k) { return k.phase == phase && k.shape == shape; });
  if (known == known_.end()) {
    const KernelLoad load = load_of(shape, *model, peaks, profile, beside);
    known_.push_back({shape, phase, load, cap, cost_at(load)});
    return known_.back().cost;
  }
  if (known->cap != cap) {
    known->cap = cap;
    known->cost = cost_at(known->load);
  }
  return known->cost;
}

}  // namespace orrery
