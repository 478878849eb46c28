// Measured kernels and messages, predicted one by one.
#include <algorithm>
#include <cmath>
#include <map>

#include "cost_models/fit_kernels.hpp"
#include "scenarios/hardware.hpp"
#include "validate/measured_rows.hpp"

namespace orrery {
namespace {

/// Whether constants of the profile were fitted on rows of this file.
bool fitted_on(const Profile& profile, const std::string& file) {
  if (!profile.kernels) return false;
  const auto constants = profile.constants();
  const std::vector<LinkTable>& links = profile.kernels->links;
  return std::any_of(constants.begin(), constants.end(),
                     [&](const Constant* c) {
                       return c->provenance == Provenance::fitted && c->source.find(file) != std::string::npos;
                     }) ||
         std::any_of(links.begin(), links.end(),
                     [&](const LinkTable& t) { return t.source.find(file) != std::string::npos; });
}

/// A message whose size is a knot of the profile's table was fitted on, whichever files the fit was split with.
std::optional<bool> is_knot(const MeasuredKernel& row, const Profile& profile) {
  if (row.kind != MeasuredKernel::Kind::message || !profile.kernels) return std::nullopt;
  const LinkTable* table = profile.kernels->link_of(row.link, row.mechanism, row.op);
  if (table == nullptr || table->source.find(file_of(row)) == std::string::npos) return std::nullopt;
  return std::any_of(table->bytes.begin(), table->bytes.end(),
                     [&](double bytes) { return std::abs(bytes / row.bytes.si() - 1) < 1e-4; });
}

Prediction predict_kernel(const MeasuredKernel& row, const GpuPeaks& peaks, const Profile& profile) {
  Prediction p;
  p.predicted = predicted_time(row, peaks, profile);
  if (!(p.predicted > Seconds())) {
    p.reason = "the profile has no model of it";
  } else if (const auto interval = interval_of(row, peaks, profile)) {
    p.band = interval->half_width;
    p.extrapolated = interval->extrapolated;
  }
  return p;
}

}  // namespace

std::vector<Prediction> predict_kernels(const MeasuredTable& table, std::span<const MeasuredKernel> rows,
                                        const ProfileOfRow& profile_of_row) {
  std::map<std::string, GpuPeaks> gpus;
  std::map<const Profile*, bool> fitted;
  const std::vector<RowUse> uses = split(rows);
  std::vector<Prediction> all;
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const MeasuredKernel& row = rows[i];
    const Profile& profile = profile_of_row(row.row);
    const std::string& name = table.text(row.row, "gpu");
    auto peaks = gpus.find(name);
    if (peaks == gpus.end()) {
      const Gpu gpu = load_gpu(name);
      peaks = gpus.emplace(name, GpuPeaks{gpu.peak("bf16"), gpu.hbm_bandwidth, static_cast<int>(gpu.sms)}).first;
    }
    const std::string& left_out = table.text(row.row, "not_predicted");
    Prediction p = left_out.empty() ? predict_kernel(row, peaks->second, profile) : Prediction();
    if (!left_out.empty()) p.reason = left_out;
    p.group = row.group;
    p.name = row.shape + (row.regime == Regime::burst ? ", burst" : "");
    p.place = row.place;
    p.row = row.row;
    p.measured = row.time;
    const auto source = fitted.try_emplace(&profile, fitted_on(profile, file_of(row))).first;
    p.fitted = source->second && uses[i] == RowUse::fitted;
    p.calibrated = source->second && uses[i] == RowUse::calibration;
    if (const std::optional<bool> knot = is_knot(row, profile)) {
      p.calibrated = p.calibrated && !*knot;
      p.fitted = *knot;
    }
    all.push_back(std::move(p));
  }
  return all;
}

}  // namespace orrery
