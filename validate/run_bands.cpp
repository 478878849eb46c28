#include "validate/run_bands.hpp"

#include <algorithm>
#include <map>

#include "cost_models/intervals.hpp"

namespace orrery {
namespace {

constexpr double share = 0.9;
constexpr std::size_t fewest_runs = 5;  // from which an implementation has a band of its own

std::string file_name(const MeasuredTable& table) {
  return (table.file().parent_path().filename() / table.file().filename()).string();
}

/// What rows share that differ in pass alone, and apart from that, whose shapes are counted.
std::pair<std::string, std::string> owner_and_shape(const MeasuredTable& table, std::size_t row) {
  const auto joined = [&](std::initializer_list<const char*> columns) {
    std::string text;
    for (const char* column : columns) text += table.text(row, column) + " ";
    return text;
  };
  if (table.has("compute_overlapped_us")) return {"overlap", joined({"mechanism", "channels"})};
  return {joined({"implementation", "transport"}),
          joined({"n_gpu", "seq_len", "heads", "kv_heads", "head_dim", "causal", "layout", "schedule", "window"})};
}

struct Scores {
  std::vector<double> values;
  RowDigests rows;
  RunBand band;
};

}  // namespace

std::vector<bool> calibrating_rows(const MeasuredTable& table) {
  std::map<std::string, std::vector<std::string>> shapes;
  std::vector<bool> calibrates;
  for (std::size_t row = 0; row < table.rows(); ++row) {
    const auto [owner, shape] = owner_and_shape(table, row);
    std::vector<std::string>& known = shapes[owner];
    auto found = std::find(known.begin(), known.end(), shape);
    if (found == known.end()) found = known.insert(known.end(), shape);
    calibrates.push_back((found - known.begin()) % 2 == 0);
  }
  return calibrates;
}

void calibrate_runs(const std::vector<MeasuredTable>& tables, Profile& profile) {
  std::map<std::string, Scores> runs;
  std::vector<double> slow_downs;
  RowDigests& calibrating = profile.kernels->calibrating_rows;
  ErrorBand slow_down{.group = slow_down_group};
  for (const MeasuredTable& table : tables) {
    const std::vector<bool> calibrates = calibrating_rows(table);
    for (const Prediction& p : predict_runs(table, profile)) {
      if (!p.reason.empty() || !p.is_measured() || !calibrates[p.row]) continue;
      const double error = std::abs(p.measured / p.predicted - 1);
      if (profile.kernels->fitted_rows.contains(row_digest(table, p.row))) continue;
      if (table.has("compute_overlapped_us")) {
        calibrating.insert(row_digest(table, p.row));
        slow_downs.push_back(error);
        slow_down.least = slow_downs.size() == 1 ? p.measured.si() : std::min(slow_down.least, p.measured.si());
        slow_down.most = std::max(slow_down.most, p.measured.si());
        continue;
      }
      if (p.implementation.empty() || !(p.propagated > 0)) continue;
      Scores& scores = runs[p.implementation];
      RunBand& band = scores.band;
      band.shortest_s = scores.values.empty() ? p.predicted.si() : std::min(band.shortest_s, p.predicted.si());
      band.longest_s = std::max(band.longest_s, p.predicted.si());
      band.most_gpus = std::max(band.most_gpus, p.gpus);
      band.implementation = p.implementation;
      band.transport = p.transport;
      if (std::find(band.schedules.begin(), band.schedules.end(), p.schedule) == band.schedules.end())
        band.schedules.push_back(p.schedule);
      band.source = file_name(table);
      scores.values.push_back(error / p.propagated);
      scores.rows.insert(row_digest(table, p.row));
    }
  }
  for (auto& [name, scores] : runs) {
    if (scores.values.size() < fewest_runs) continue;
    scores.band.factor = std::max(1.0, conformal_half_width(scores.values, share));
    scores.band.rows = static_cast<int>(scores.values.size());
    profile.kernels->runs.push_back(scores.band);
    calibrating.insert(scores.rows.begin(), scores.rows.end());
  }
  if (slow_downs.empty()) return;
  slow_down.inside = conformal_half_width(slow_downs, share);
  slow_down.outside = 2 * slow_down.inside;
  slow_down.rows = static_cast<int>(slow_downs.size());
  profile.kernels->bands.push_back(slow_down);
}

}  // namespace orrery
