// Which rows a fit may see, and how well its profile predicts the others and other chips.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include "cost_models/fit_kernels.hpp"
#include "cost_models/intervals.hpp"
#include "cost_models/predicted_kernels.hpp"

namespace orrery {

namespace {
constexpr std::size_t fewest_fitted = 2;  // fewer determine nothing
}

std::vector<RowUse> split(std::span<const MeasuredKernel> rows) {
  std::map<std::string, std::map<std::pair<double, std::string>, RowUse>> families;
  for (const MeasuredKernel& row : rows) families[row.family][{row.work, row.shape}] = RowUse::fitted;
  for (auto& [name, shapes] : families) {
    std::size_t i = 0, fitted = 0;
    for (auto& [shape, use] : shapes) {
      use = static_cast<RowUse>(i++ % 3);
      if (use != RowUse::fitted) continue;
      const bool too_many = fitted >= fewest_fitted && 5 * (fitted + 1) > 2 * shapes.size();
      if (too_many) use = RowUse::test;
      fitted += too_many ? 0 : 1;
    }
  }
  std::vector<RowUse> uses;
  for (const MeasuredKernel& row : rows) {
    uses.push_back(families[row.family][{row.work, row.shape}]);
  }
  return uses;
}

void remember(std::span<const MeasuredKernel> rows, std::span<const RowUse> uses, const GpuPeaks& peaks,
              Profile& profile) {
  for (std::size_t i = 0; i < rows.size(); ++i) {
    if (uses[i] == RowUse::test || !(predicted_time(rows[i], peaks, profile) > Seconds())) continue;
    (uses[i] == RowUse::fitted ? profile.kernels->fitted_rows : profile.kernels->calibrating_rows)
        .insert(rows[i].digest);
  }
}

ErrorBand band_of_other_chip(const MachineRows& machines, const GpuPeaks& peaks, const Profile& profile) {
  ErrorBand band{.group = other_chip};
  std::map<std::string, std::vector<double>> deviations;
  for (const auto& [machine, rows] : machines) {
    for (const MeasuredKernel& row : rows) {
      if (row.kind != MeasuredKernel::Kind::attention) continue;
      band.least = band.rows == 0 ? row.work : std::min(band.least, row.work);
      band.most = std::max(band.most, row.work);
      deviations[machine].push_back(std::abs(row.time / predicted_time(row, peaks, profile) - 1));
      ++band.rows;
    }
  }
  if (deviations.empty()) throw FitError("no attention rows of another chip, give its attention.csv");
  band.inside = pooled_half_width(deviations, 0.9);
  band.outside = 2 * band.inside;
  return band;
}

Constant spread_of_chips(std::span<const std::vector<MeasuredKernel>> chips, const GpuPeaks& peaks,
                         const Profile& profile, RowDigests& used) {
  std::vector<double> speeds;  // of each chip, relative to the profile
  std::set<std::string> files;
  RowDigests digests;
  Constant spread;
  for (const std::vector<MeasuredKernel>& rows : chips) {
    const std::vector<RowUse> uses = split(rows);
    std::vector<double> ratios;
    for (std::size_t i = 0; i < rows.size(); ++i) {
      const MeasuredKernel& row = rows[i];
      if (uses[i] != RowUse::fitted) continue;
      if (row.kind != MeasuredKernel::Kind::attention || row.regime != Regime::sustained) continue;
      if (row.power.si() < at_power_limit * profile.kernels->clock.power_limit.value) continue;
      ratios.push_back(predicted_time(row, peaks, profile) / row.time);
      files.insert(file_of(row));
      digests.insert(row.digest);
      ++spread.rows;
    }
    if (!ratios.empty()) speeds.push_back(quantile(ratios, 0.5));
  }
  spread.name = "clock.chip_spread";
  spread.unit = "1";
  if (speeds.size() < 2) return {};
  used.insert(digests.begin(), digests.end());
  double mean = 0, squares = 0;
  for (const double speed : speeds) mean += speed / static_cast<double>(speeds.size());
  for (const double speed : speeds) squares += (speed - mean) * (speed - mean);
  spread.value = std::sqrt(squares / static_cast<double>(speeds.size() - 1));
  spread.provenance = Provenance::measured;
  spread.source = fmt::format("standard deviation over {} chips of the median speed at the power limit; {}",
                              speeds.size(), fmt::join(files, ", "));
  return spread;
}

double times_off(Seconds measured, Seconds predicted) {
  const double ratio = measured / predicted;
  return std::max(ratio, 1 / ratio);
}

void refuse_far_off(std::span<const MeasuredKernel> rows, const GpuPeaks& peaks, const Profile& profile) {
  const MeasuredKernel* worst = nullptr;
  double factor = refused_factor;
  for (const MeasuredKernel& row : rows) {
    const double off = times_off(row.time, predicted_time(row, peaks, profile));
    if (!std::isfinite(off) || off <= factor) continue;
    worst = &row;
    factor = off;
  }
  if (worst == nullptr) return;
  const Seconds predicted = predicted_time(*worst, peaks, profile);
  throw FitError(
      fmt::format("{}: {} takes {} (but {} by the constants that fit the other rows), is its time in the unit of its "
                  "column? Correct the row or leave it out",
                  worst->place, worst->shape, format(worst->time), format(predicted)));
}

std::vector<HeldOutErrors> errors_by_group(std::span<const MeasuredKernel> rows, std::span<const RowUse> uses,
                                           const GpuPeaks& peaks, const Profile& profile) {
  std::vector<HeldOutErrors> groups;
  std::map<std::string, std::vector<double>> errors;
  std::map<std::string, std::pair<int, int>> covered;  // of how many
  std::map<std::string, double> furthest;
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const MeasuredKernel& row = rows[i];
    auto group = std::find_if(groups.begin(), groups.end(), [&](const auto& g) { return g.group == row.group; });
    if (group == groups.end()) group = groups.insert(groups.end(), HeldOutErrors{.group = row.group});
    const Seconds predicted = predicted_time(row, peaks, profile);
    if (!(predicted > Seconds())) continue;  // of a kind that has no model
    if (uses[i] == RowUse::fitted) {
      ++group->fitted;
      continue;
    }
    ++group->held_out;
    errors[row.group].push_back(std::abs(predicted / row.time - 1));
    if (const double off = times_off(row.time, predicted); off > std::max(noted_factor, furthest[row.group])) {
      furthest[row.group] = off;
      group->far_off =
          fmt::format("{}: {} takes {} ({} predicted)", row.place, row.shape, format(row.time), format(predicted));
    }
    const ErrorBand* band = profile.kernels ? profile.kernels->band_of(row.group) : nullptr;
    if (uses[i] != RowUse::test || band == nullptr) continue;
    ++covered[row.group].second;
    if (std::abs(row.time / predicted - 1) <= band->inside) ++covered[row.group].first;
  }
  for (HeldOutErrors& group : groups) {
    const std::vector<double>& e = errors[group.group];
    if (e.empty()) continue;
    for (const double error : e) group.mean += error / static_cast<double>(e.size());
    group.median = quantile(e, 0.5);
    group.p90 = quantile(e, 0.9);
    group.max = quantile(e, 1);
    const auto [in, of_all] = covered[group.group];
    if (of_all > 0) group.coverage = static_cast<double>(in) / of_all;
  }
  return groups;
}

}  // namespace orrery
