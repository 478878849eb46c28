// The same kernel in a burst and launched for seconds: power.csv against the clock and power model.
#include <fmt/format.h>

#include <regex>

#include "cost_models/kernel_cost.hpp"
#include "scenarios/hardware.hpp"
#include "validate/measured_rows.hpp"

namespace orrery {
namespace {

/// The numbers of a shape: "n_q=8192 n_k=8192 heads=32 head_dim=128" or "8192 x 8192 x 8192".
std::vector<double> numbers_of(const std::string& shape) {
  std::vector<double> numbers;
  const std::regex number("(?:^|[= ])([0-9]+)(?= |$)");
  for (auto i = std::sregex_iterator(shape.begin(), shape.end(), number); i != std::sregex_iterator(); ++i) {
    numbers.push_back(std::stod((*i)[1]));
  }
  return numbers;
}

struct Timed {
  std::string group;  // of the band
  double work = 0;
  Seconds burst, sustained;
};

Timed times_of(const MeasuredTable& table, std::size_t row, const GpuPeaks& peaks, const Profile& profile) {
  const std::string& kernel = table.text(row, "kernel");
  const std::vector<double> n = numbers_of(table.text(row, "shape"));
  if (kernel.starts_with("attention_") && n.size() == 4) {
    const Phase phase = kernel == "attention_backward" ? Phase::backward : Phase::forward;
    const AttentionShape shape{
        .pairs = n[0] * n[1], .query_rows = n[0], .key_rows = n[1], .heads = n[2], .kv_heads = n[2], .head_dim = n[3]};
    const auto at = [&](Regime regime) { return attention_cost(shape, phase, peaks, profile, regime).duration; };
    return {fmt::format("attention {}", name_of(phase)), attention_flops(shape, phase).si(), at(Regime::burst),
            at(Regime::sustained)};
  }
  if (kernel == "gemm" && n.size() == 3) {
    const DenseShape shape{.products = {{.rows = n[0], .columns = n[2], .inner = n[1]}}};
    const auto at = [&](Regime regime) { return dense_cost(shape, peaks, profile, regime).duration; };
    return {"gemm", shape.flops().si(), at(Regime::burst), at(Regime::sustained)};
  }
  const Bytes bytes = Bytes::from_si(table.positive(row, "bytes"));
  const Seconds time =
      streaming_cost(bytes, peaks, profile, kernel == "merge" ? "merge_block" : "copy_kernel").duration;
  return {kernel == "merge" ? "merge" : "elementwise", bytes.si(), time, time};
}

}  // namespace

std::vector<Prediction> predict_power(const MeasuredTable& table, const ProfileOfRow& profile_of_row) {
  std::vector<Prediction> all;
  for (std::size_t row = 0; row < table.rows(); ++row) {
    if (!table.is_ok(row)) continue;
    const Profile& profile = profile_of_row(row);
    const Gpu gpu = load_gpu(table.text(row, "gpu"));
    const GpuPeaks peaks{gpu.peak("bf16"), gpu.hbm_bandwidth, static_cast<int>(gpu.sms)};
    const bool burst = table.text(row, "regime") == "burst";
    const double second = table.number(row, "second");
    Prediction p;
    p.row = row;
    p.place = table.place(row);
    p.group = burst ? "kernels in bursts" : "kernels for 10 s";
    p.name = burst ? fmt::format("{} in a burst", table.text(row, "kernel"))
                   : fmt::format("{} in second {}", table.text(row, "kernel"), second);
    p.measured = Seconds::from_si(table.positive(row, "time_us") * 1e-6);
    p.reason = table.text(row, "not_predicted");
    if (p.reason.empty() && !profile.kernels) p.reason = "the profile has no model of it";
    if (!p.reason.empty()) {
      all.push_back(std::move(p));
      continue;
    }
    // The rows are medians over a second, and the lag is over long before half of the first.
    const Timed timed = times_of(table, row, peaks, profile);
    p.predicted = burst ? timed.burst : timed.sustained;
    if (const ErrorBand* band = profile.kernels->band_of(timed.group)) {
      p.extrapolated = timed.work < band->least || timed.work > band->most;
      p.band = p.extrapolated ? band->outside : band->inside;
    }
    all.push_back(std::move(p));
  }
  return all;
}

}  // namespace orrery
