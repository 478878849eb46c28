#include "scenarios/step_interval.hpp"

#include <algorithm>

#include "cost_models/fit_kernels.hpp"

namespace orrery {
namespace {

constexpr double beyond_range = 2;  // times as wide as within, as for single kernels

/// The widest of these bands of the profile; 0 if it has none.
double widest(const MeasuredKernels& kernels, std::initializer_list<std::string_view> groups) {
  double half_width = 0;
  for (const std::string_view group : groups) {
    const ErrorBand* band = kernels.band_of(group);
    if (band != nullptr) half_width = std::max(half_width, band->inside);
  }
  return half_width;
}

/// Whether the constants of this head_dim and tables of all these links were measured.
bool parts_measured(const Scenario& s) {
  const MeasuredKernels& kernels = *s.profile.kernels;
  for (const Phase phase : {Phase::forward, Phase::backward}) {
    if (phase == Phase::backward && !s.backward) continue;
    const AttentionModel* model = kernels.attention_of(phase, static_cast<double>(s.model.head_dim));
    if (model != nullptr && model->head_dim != s.model.head_dim) return false;
  }
  return std::all_of(s.links.begin(), s.links.end(), [&](const ClusterLink& link) {
    return std::any_of(kernels.links.begin(), kernels.links.end(),
                       [&](const LinkTable& table) { return table.link == link.type.name; });
  });
}

}  // namespace

std::optional<double> propagated_half_width(const Scenario& s, const Program& program, const SimulationResult& result) {
  if (!s.profile.kernels || s.profile.kernels->bands.empty() || result.end == 0) return std::nullopt;
  const MeasuredKernels& kernels = *s.profile.kernels;
  const double attention = s.backward ? widest(kernels, {"attention forward", "attention backward", other_chip})
                                      : widest(kernels, {"attention forward", other_chip});
  const double messages = s.implementation.transport == Transport::nccl ? widest(kernels, {"collectives >= 1 MB"})
                                                                        : widest(kernels, {"copies >= 1 MB"});
  const double dense = widest(kernels, {"gemm", other_chip});
  double half_width = 0;
  for (std::size_t c = 0; c < program.categories().size(); ++c) {
    const std::string& category = program.categories()[c];
    const double band = category == "attention"                           ? attention
                        : category == "merge"                             ? widest(kernels, {"merge"})
                        : category == "dense"                             ? dense
                        : category == "tables" || category == "optimizer" ? widest(kernels, {"elementwise"})
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
      const auto& schedules = band.schedules;
      const bool known = std::find(schedules.begin(), schedules.end(), s.schedule->name) != schedules.end();
      const bool inside = known && s.ranks() <= band.most_gpus && seconds >= band.shortest_s &&
                          seconds <= band.longest_s && parts_measured(s);
      return StepInterval{*propagated * band.factor * (inside ? 1 : beyond_range), !inside};
    }
    largest = std::max(largest, band.factor);
  }
  return StepInterval{*propagated * largest * beyond_range, true};
}

}  // namespace orrery
