#include "cost_models/kernel_models.hpp"

#include <algorithm>
#include <cmath>

namespace orrery {

std::string_view name_of(Phase phase) {
  return phase == Phase::forward ? "forward" : "backward";
}

Seconds StreamModel::time(Bytes bytes) const {
  const double in_cache = std::min(bytes.si(), cache.value);
  const double first = in_cache > 0 ? in_cache / cached_bandwidth.value : 0;
  return Seconds::from_si(launch.value + first + (bytes.si() - in_cache) / bandwidth.value);
}

MeasuredKernels::Neighbours MeasuredKernels::attention_around(Phase phase, double head_dim) const {
  Neighbours next;
  for (const AttentionModel& model : attention) {
    if (model.phase != phase) continue;
    if (model.head_dim <= head_dim && (next.below == nullptr || model.head_dim > next.below->head_dim))
      next.below = &model;
    if (model.head_dim >= head_dim && (next.above == nullptr || model.head_dim < next.above->head_dim))
      next.above = &model;
  }
  if (next.below == nullptr) next.below = next.above;
  if (next.above == nullptr) next.above = next.below;
  return next;
}

const AttentionModel* MeasuredKernels::attention_at(Phase phase, double head_dim, AttentionModel& between) const {
  const auto [below, above] = attention_around(phase, head_dim);
  if (below == above) return below;
  const double share = (head_dim - below->head_dim) / (above->head_dim - below->head_dim);
  const auto mean = [&](const auto& constants, const auto& low, const auto& high, auto& to) {
    for (const auto& c : constants) {
      (to.*c.member).value = (1 - share) * (low.*c.member).value + share * (high.*c.member).value;
    }
  };
  between.phase = phase;
  between.head_dim = static_cast<int>(head_dim);
  mean(constants_of_attention(), *below, *above, between);
  mean(constants_of_power(), below->power, above->power, between.power);
  return &between;
}

const AttentionModel* MeasuredKernels::attention_of(Phase phase, double head_dim) const {
  const auto [below, above] = attention_around(phase, head_dim);
  return below == nullptr || head_dim - below->head_dim <= above->head_dim - head_dim || below == above ? below : above;
}

bool MeasuredKernels::is_measured(Phase phase, double head_dim) const {
  const AttentionModel* model = attention_around(phase, head_dim).below;
  return model != nullptr && model->head_dim == head_dim && model->full_tile.provenance != Provenance::assumed;
}

const StreamModel* MeasuredKernels::stream_of(std::string_view kernel) const {
  const auto found =
      std::find_if(streams.begin(), streams.end(), [&](const StreamModel& s) { return s.kernel == kernel; });
  if (found != streams.end()) return &*found;
  // A library's kernel that was not measured: one that does the same.
  const auto dot = kernel.find('.');
  return dot == std::string_view::npos ? nullptr : stream_of(kernel.substr(dot + 1));
}

const StreamModel* MeasuredKernels::stream_or_other(std::string_view kernel) const {
  const StreamModel* own = stream_of(kernel);
  return own != nullptr ? own : stream_of("other");
}

const LinkTable* MeasuredKernels::link_of(std::string_view link, std::string_view mechanism,
                                          std::string_view op) const {
  const auto found = std::find_if(links.begin(), links.end(), [&](const LinkTable& t) {
    return t.link == link && t.mechanism == mechanism && t.op == op;
  });
  return found == links.end() ? nullptr : &*found;
}

const ErrorBand* MeasuredKernels::band_of(std::string_view group) const {
  const auto found = std::find_if(bands.begin(), bands.end(), [&](const ErrorBand& b) { return b.group == group; });
  return found == bands.end() ? nullptr : &*found;
}

std::array<ConstantOf<ClockModel>, 12> constants_of_clock() {
  return {{{"maximum_clock", "Hz", &ClockModel::maximum_clock, 1e8, 1e10, 1.98e9, "the header of a measured file"},
           {"burst_clock", "Hz", &ClockModel::burst_clock, 1e8, 1e10, 1.85e9, "burst rows of attention"},
           {"idle_power", "W", &ClockModel::idle_power, 1, 1000, 120, "rows of overhead.csv"},
           {"power_limit", "W", &ClockModel::power_limit, 1, 1e4, 700, "the header of a measured file"},
           {"power_exponent", "1", &ClockModel::power_exponent, 1, 4, 2.5, "sustained rows at the power limit"},
           {"busy_power", "W", &ClockModel::busy_power, 0, 1e4, 500,
            "sustained windows, whose tensor load is low, at the power limit", true},
           {"hbm_energy", "J/B", &ClockModel::hbm_energy, 0, 1e-9, 1e-10, "copy_kernel rows of elementwise.csv"},
           {"tensor_flops_per_cycle", "1", &ClockModel::tensor_flops_per_cycle, 1, 1e9, 540672, "the datasheet"},
           {"power_lag", "s", &ClockModel::power_lag, 1e-4, 10, 0.05, "sustained rows of power.csv"},
           {"chip_spread", "1", &ClockModel::chip_spread, 0, 0.2, 0, "attention.csv of other chips", true},
           {"wander", "1", &ClockModel::wander, 0, 0.2, 0, "p5_ms and p95_ms of sustained rows", true},
           {"swing", "1", &ClockModel::swing, 0, 0.2, 0, "sustained rows of more than the lag", true}}};
}

std::array<ConstantOf<PowerModel>, 2> constants_of_power() {
  return {{{"clock_droop", "Hz", &PowerModel::clock_droop, 0, 2e9, 2e8, "burst rows"},
           {"tensor_power", "W", &PowerModel::tensor_power, 1, 1e4, 1000, "sustained rows at the power limit"}}};
}

std::array<ConstantOf<AttentionModel>, 17> constants_of_attention() {
  return {
      {{"launch", "s", &AttentionModel::launch, 0, 1e-4, 5e-6, "blocks of a few hundred tokens"},
       {"cold_start", "s", &AttentionModel::cold_start, 0, 1e-4, 2e-6, "small blocks with cache = warm and others",
        true},
       {"query_traffic", "B", &AttentionModel::query_traffic, 0, 100, 14, "blocks with many more queries than keys"},
       {"grouped_traffic", "B", &AttentionModel::grouped_traffic, 0, 100, 4, "blocks with fewer key heads"},
       {"grouped_launch", "s", &AttentionModel::grouped_launch, 0, 1e-4, 2e-6, "small blocks with fewer key heads",
        true},
       {"waves_in_step", "1", &AttentionModel::waves_in_step, 0, 100, 5, "full blocks of one and of many waves", true},
       {"list_start", "cycle", &AttentionModel::list_start, 0, 1e5, 3000, "blocks of few keys (backward: queries)"},
       {"full_tile", "cycle", &AttentionModel::full_tile, 1, 1e6, 3000, "full blocks of several lengths"},
       {"masked_tile", "cycle", &AttentionModel::masked_tile, 1, 1e6, 4500, "causal blocks"},
       {"masked_kernel", "1", &AttentionModel::masked_kernel, 0.5, 2, 1, "causal blocks of several lengths", true},
       {"guarded_kernel", "1", &AttentionModel::guarded_kernel, 0.5, 2, 1, "blocks that end inside a tile", true},
       {"window_launch", "s", &AttentionModel::window_launch, -5e-6, 5e-6, 1e-6, "windows over few tokens", true},
       {"window_kernel", "1", &AttentionModel::window_kernel, 0.5, 2, 1, "windows of several widths", true},
       {"window_start", "cycle", &AttentionModel::window_start, -1e4, 1e5, 1000, "windows", true},
       {"guarded_window", "cycle", &AttentionModel::guarded_window, 0, 1e5, 1000,
        "windows whose keys end inside a tile", true},
       {"rectangle_edge", "cycle", &AttentionModel::rectangle_edge, 0, 1e5, 500, "masks over more keys than queries",
        true},
       {"rectangle_start", "cycle", &AttentionModel::rectangle_start, -1e4, 1e5, 500,
        "masks over more keys than queries", true}}};
}

Constant GemmModel::*GemmModel::of_rows(int alignment, Phase phase) {
  const bool forward = phase == Phase::forward;
  if (alignment >= 16) return nullptr;
  if (alignment >= 4) return forward ? &GemmModel::even_rows_forward : &GemmModel::even_rows_backward;
  return forward ? &GemmModel::odd_rows_forward : &GemmModel::odd_rows_backward;
}

std::array<ConstantOf<GemmModel>, 8> constants_of_gemm() {
  return {
      {{"launch", "s", &GemmModel::launch, 0, 1e-4, 5e-6, "products of a few hundred tokens"},
       {"efficiency", "1", &GemmModel::efficiency, 0.05, 1, 0.9, "large products"},
       {"tile_ends", "1", &GemmModel::tile_ends, 0, 1e4, 200, "products of several inner sizes"},
       {"operand_rate", "B/cycle", &GemmModel::operand_rate, 1, 1e4, 70, "products of few rows and large inner sizes"},
       {"even_rows_forward", "1", &GemmModel::even_rows_forward, 0.01, 1, 0.3, "rows of 4 or 8 bytes", true},
       {"even_rows_backward", "1", &GemmModel::even_rows_backward, 0.01, 1, 0.3, "their gradients", true},
       {"odd_rows_forward", "1", &GemmModel::odd_rows_forward, 0.01, 1, 0.1, "rows of 2 bytes", true},
       {"odd_rows_backward", "1", &GemmModel::odd_rows_backward, 0.01, 1, 0.1, "their gradients", true}}};
}

std::array<ConstantOf<StreamModel>, 4> constants_of_stream() {
  return {{{"launch", "s", &StreamModel::launch, 0, 1e-4, 2e-6, "rows of less than a megabyte"},
           {"bandwidth", "B/s", &StreamModel::bandwidth, 1e9, 1e14, 4e12, "rows of a hundred megabytes and more"},
           {"cached_bandwidth", "B/s", &StreamModel::cached_bandwidth, 1e9, 1e14, 4e12, "rows of 10 megabytes", true},
           {"cache", "B", &StreamModel::cache, 0, 1e10, 5e7, "the datasheet", true}}};
}

std::array<ConstantOf<NcclBeside>, 4> constants_of_nccl_beside() {
  return {
      {{"attention_forward", "1", &NcclBeside::attention_forward, 1, 20, 1, "send_recv beside attention_forward"},
       {"attention_backward", "1", &NcclBeside::attention_backward, 1, 20, 1, "send_recv beside attention_backward"},
       {"matrix_products", "1", &NcclBeside::matrix_products, 1, 20, 1, "send_recv beside gemm"},
       {"streams", "1", &NcclBeside::streams, 1, 20, 1, "send_recv beside merge and copy"}}};
}

}  // namespace orrery
