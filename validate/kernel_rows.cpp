// Measured kernels and messages, predicted one by one.
#include <map>

#include "cost_models/fit_kernels.hpp"
#include "cost_models/predicted_kernels.hpp"
#include "scenarios/hardware.hpp"
#include "validate/measured_rows.hpp"

namespace orrery {
namespace {

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
  std::vector<Prediction> all;
  for (const MeasuredKernel& row : rows) {
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
    all.push_back(std::move(p));
  }
  return all;
}

}  // namespace orrery
