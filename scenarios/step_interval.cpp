#include "scenarios/step_interval.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "cost_models/fit_kernels.hpp"
#include "cost_models/predicted_kernels.hpp"
#include "sim/contains.hpp"

namespace orrery {
namespace {

constexpr double beyond_range = 2;  // times as wide as within, as for single kernels

/// Of what no band is of: as far off as the worst kind of op that was measured, but for short messages, whose times are
/// those of hosts. A step of such ops is no measured run, and so beyond the range.
double of_unknown(const MeasuredKernels& kernels) {
  double half_width = 0;
  for (const ErrorBand& band : kernels.bands) {
    if (!band.group.ends_with("< 1 MB")) half_width = std::max(half_width, band.inside);
  }
  return half_width;
}

/// Of ops of that kind.
double half_width_of(const MeasuredKernels& kernels, std::string_view group) {
  const ErrorBand* band = kernels.band_of(group);
  return band == nullptr ? of_unknown(kernels) : band->inside;
}

/// Of kernels whose clock is another on another chip.
double half_width_on_any_chip(const MeasuredKernels& kernels, std::string_view group) {
  const ErrorBand* chips = kernels.band_of(other_chip);
  return std::max(half_width_of(kernels, group), chips == nullptr ? 0 : chips->inside);
}

bool head_dim_measured(const Scenario& s, Phase phase) {
  const MeasuredKernels& kernels = *s.profile.kernels;
  const auto head_dim = static_cast<double>(s.model.head_dim);
  return kernels.attention_of(phase, head_dim) == nullptr || kernels.is_measured(phase, head_dim);
}

bool head_dim_measured(const Scenario& s) {
  return head_dim_measured(s, Phase::forward) && (!s.backward || head_dim_measured(s, Phase::backward));
}

/// Of attention kernels: as wide as those of single ones. How far the constants of other head_dims are off, where this
/// one was not measured, hardly depends on the shape: it is that of a block of a rank's tokens.
double attention_band(const Scenario& s, Phase phase) {
  const MeasuredKernels& kernels = *s.profile.kernels;
  const double inside = half_width_on_any_chip(kernels, fmt::format("attention {}", name_of(phase)));
  if (head_dim_measured(s, phase)) return inside;
  const double rows = std::ceil(static_cast<double>(s.tokens) / s.ranks());
  const AttentionShape block{.pairs = rows * rows,
                             .query_rows = rows,
                             .key_rows = rows,
                             .heads = static_cast<double>(s.model.heads),
                             .kv_heads = static_cast<double>(s.model.kv_heads)};
  const GpuPeaks peaks{s.gpu.peak(s.dtype), s.gpu.hbm_bandwidth, static_cast<int>(s.gpu.sms)};
  return beyond_range * inside + error_of_other_head_dims(block, phase, s.regime, peaks, s.profile);
}

/// Whether tables of all these links were measured.
bool links_measured(const Scenario& s) {
  const MeasuredKernels& kernels = *s.profile.kernels;
  return std::all_of(s.links.begin(), s.links.end(), [&](const ClusterLink& link) {
    return std::any_of(kernels.links.begin(), kernels.links.end(),
                       [&](const LinkTable& table) { return table.link == link.type.name; });
  });
}

/// None said: all.
bool among(const std::vector<std::string>& names, std::string_view name) {
  return names.empty() || contains(names, name);
}

}  // namespace

std::string mask_and_layout(const Scenario& s) {
  const auto all = [&](Primitive::Kind kind) {
    return std::all_of(s.primitives.begin(), s.primitives.end(), [&](const Primitive& p) { return p.kind == kind; });
  };
  const std::string mask = !s.documents.empty()           ? "documents"
                           : all(Primitive::Kind::full)   ? (s.causal ? "causal" : "full")
                           : all(Primitive::Kind::window) ? "window"
                                                          : "sparse";
  return mask == "full" ? mask : mask + " " + s.layout;
}

std::optional<double> propagated_half_width(const Scenario& s, const Program& program, const SimulationResult& result) {
  if (!s.profile.kernels || s.profile.kernels->bands.empty() || result.end == 0) return std::nullopt;
  const MeasuredKernels& kernels = *s.profile.kernels;
  const double forward = attention_band(s, Phase::forward);
  const double attention = s.backward ? std::max(forward, attention_band(s, Phase::backward)) : forward;
  const bool nccl = s.implementation.transport == Transport::nccl;
  const double messages =
      links_measured(s) ? half_width_of(kernels, nccl ? "collectives >= 1 MB" : "copies >= 1 MB") : of_unknown(kernels);
  const double dense = half_width_on_any_chip(kernels, "gemm");
  double half_width = 0;
  for (std::size_t c = 0; c < program.categories().size(); ++c) {
    const std::string& category = program.categories()[c];
    const double band = category == "attention"                           ? attention
                        : category == "merge"                             ? half_width_of(kernels, "merge")
                        : category == "dense"                             ? dense
                        : category == "tables" || category == "optimizer" ? half_width_of(kernels, "elementwise")
                                                                          : messages;
    half_width += band * static_cast<double>(result.critical_path.by_category[c]);
  }
  // Sharing and waiting have no measured band of their own: as uncertain as the messages.
  half_width += messages * static_cast<double>(result.critical_path.contention + result.critical_path.launch);
  return half_width / static_cast<double>(result.end);
}

std::optional<StepInterval> step_interval(const Scenario& s, const Program& program, const SimulationResult& result) {
  const std::optional<double> propagated = propagated_half_width(s, program, result);
  if (!propagated) return std::nullopt;
  const double seconds = to_seconds(result.end).si();
  double largest = 1;
  for (const RunBand& band : s.profile.kernels->runs) {
    if (band.implementation == s.implementation.name) {
      const bool known = among(band.schedules, s.schedule->name) && among(band.masks, mask_and_layout(s));
      const bool inside = known && s.ranks() <= band.most_gpus && seconds >= band.shortest_s &&
                          seconds <= band.longest_s && links_measured(s);
      return StepInterval{*propagated * band.factor * (inside ? 1 : beyond_range), !inside || !head_dim_measured(s)};
    }
    largest = std::max(largest, band.factor);
  }
  return StepInterval{*propagated * largest * beyond_range, true};
}

}  // namespace orrery
