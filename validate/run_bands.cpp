#include "validate/run_bands.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "cost_models/fit_kernels.hpp"
#include "cost_models/intervals.hpp"
#include "sim/contains.hpp"

namespace orrery {
namespace {

constexpr double share = 0.9;
constexpr int fewest_runs = 9;  // from which an implementation has a band of its own: fewer say nothing of 90 %

std::string file_name(const MeasuredTable& table) {
  return (table.file().parent_path().filename() / table.file().filename()).string();
}

std::string joined(const MeasuredTable& table, std::size_t row, std::initializer_list<const char*> columns) {
  std::string text;
  for (const char* column : columns) text += plain_cell(table.text(row, column)) + " ";
  return text;
}

struct Scores {
  std::map<std::string, std::vector<double>> values;  // by machine
  RowDigests rows;
  RunBand band;
};

/// Throws FitError for a run that is in another unit, or of something else: it would set the band.
void refuse_far_off_run(const Prediction& p) {
  if (times_off(p.measured, p.predicted) <= refused_factor) return;
  throw FitError(
      fmt::format("{}: {} takes {} (but {} by its kernels and messages), is its time in the unit of its "
                  "column? Correct the row or leave it out",
                  p.place, p.name, format(p.measured), format(p.predicted)));
}

/// Why no row of this table says how wide intervals are; empty if some can.
std::string says_nothing(const MeasuredTable& table, const std::vector<Prediction>& rows) {
  std::string why = "it has no run of several GPUs";
  for (const Prediction& p : rows) {
    if (!p.many_gpus && !table.has("compute_overlapped_us")) continue;
    if (!p.reason.empty()) {
      why = p.reason;
    } else if (!p.is_measured()) {
      why = "no run of it has a time";
    } else if (const std::string other = profile_of_backend(table, p.row); !other.empty()) {
      why = fmt::format("its kernels are those of {}", other);
    } else {
      return "";
    }
  }
  return why;
}

void add_new(std::vector<std::string>& names, const std::string& name) {
  if (!contains(names, name)) names.push_back(name);
}

}  // namespace

std::vector<bool> calibrating_rows(const MeasuredTable& table) {
  std::vector<bool> calibrates;
  std::vector<std::string> kinds;
  for (std::size_t row = 0; row < table.rows(); ++row) {
    if (!table.has("compute_overlapped_us")) {
      const std::string shape = joined(
          table, row, {"n_gpu", "seq_len", "heads", "kv_heads", "head_dim", "causal", "layout", "schedule", "window"});
      calibrates.push_back((digest(shape) >> 16 & 1) == 0);
      continue;
    }
    const std::string kind = joined(table, row, {"mechanism", "channels"});
    auto found = std::find(kinds.begin(), kinds.end(), kind);
    if (found == kinds.end()) found = kinds.insert(kinds.end(), kind);
    calibrates.push_back((found - kinds.begin()) % 2 == 0);
  }
  return calibrates;
}

void calibrate_runs(const std::vector<MeasuredTable>& tables, Profile& profile) {
  std::map<std::string, Scores> runs;
  std::map<std::string, std::vector<double>> slow_downs;
  RowDigests& calibrating = profile.kernels->calibrating_rows;
  ErrorBand slow_down{.group = slow_down_group};
  for (const MeasuredTable& table : tables) {
    const std::vector<bool> calibrates = calibrating_rows(table);
    const std::string machine = table.file().parent_path().filename().string();
    const std::vector<Prediction> rows = predict_runs(table, profile);
    if (const std::string why = says_nothing(table, rows); !why.empty()) {
      throw FitError(
          fmt::format("{}: no row of it says how wide the intervals of runs are ({}), leave it out of --runs",
                      table.file().string(), why));
    }
    for (const Prediction& p : rows) {
      if (!p.reason.empty() || !p.is_measured() || !calibrates[p.row]) continue;
      if (!profile_of_backend(table, p.row).empty()) continue;  // other kernels than this profile's
      refuse_far_off_run(p);
      const double error = std::abs(p.measured / p.predicted - 1);
      if (profile.kernels->fitted_rows.contains(row_digest(table, p.row))) continue;
      if (table.has("compute_overlapped_us")) {
        calibrating.insert(row_digest(table, p.row));
        slow_downs[machine].push_back(error);
        slow_down.least = slow_down.rows == 0 ? p.measured.si() : std::min(slow_down.least, p.measured.si());
        slow_down.most = std::max(slow_down.most, p.measured.si());
        ++slow_down.rows;
        continue;
      }
      if (p.implementation.empty() || !(p.propagated > 0)) continue;
      Scores& scores = runs[p.implementation];
      RunBand& band = scores.band;
      band.shortest_s = band.rows == 0 ? p.predicted.si() : std::min(band.shortest_s, p.predicted.si());
      band.longest_s = std::max(band.longest_s, p.predicted.si());
      band.most_gpus = std::max(band.most_gpus, p.gpus);
      band.implementation = p.implementation;
      band.transport = p.transport;
      add_new(band.schedules, p.schedule);
      add_new(band.masks, p.mask);
      if (band.source.find(file_name(table)) == std::string::npos)
        band.source += (band.source.empty() ? "" : ", ") + file_name(table);
      scores.values[machine].push_back(error / p.propagated);
      ++band.rows;
      scores.rows.insert(row_digest(table, p.row));
    }
  }
  for (auto& [name, scores] : runs) {
    if (scores.band.rows < fewest_runs) continue;
    scores.band.factor = pooled_half_width(scores.values, share);
    profile.kernels->runs.push_back(scores.band);
    calibrating.insert(scores.rows.begin(), scores.rows.end());
  }
  if (slow_downs.empty()) return;
  slow_down.inside = pooled_half_width(slow_downs, share);
  slow_down.outside = 2 * slow_down.inside;
  profile.kernels->bands.push_back(slow_down);
}

}  // namespace orrery
