#include "kernels/stats.hpp"

#include <algorithm>
#include <cmath>

namespace orrery {

double quantile(const std::vector<double>& sorted, double q) {
  if (sorted.empty()) return 0;
  const double at = q * static_cast<double>(sorted.size() - 1);
  const auto low = static_cast<size_t>(at);
  if (low + 1 >= sorted.size()) return sorted.back();
  const double t = at - static_cast<double>(low);
  return sorted[low] * (1 - t) + sorted[low + 1] * t;
}

Summary summarize(std::vector<double> samples) {
  Summary s;
  s.samples = samples.size();
  if (samples.empty()) return s;
  std::sort(samples.begin(), samples.end());
  s.median = quantile(samples, 0.5);
  s.p5 = quantile(samples, 0.05);
  s.p95 = quantile(samples, 0.95);
  const auto n = static_cast<double>(samples.size());
  double low = samples.front(), high = samples.back();
  if (samples.size() >= 8) {
    const double half = 0.98 * std::sqrt(n);
    low = samples[static_cast<size_t>(std::max(0.0, std::floor(n / 2 - half)))];
    high = samples[static_cast<size_t>(std::min(n - 1, std::ceil(n / 2 + half)))];
  }
  s.ci95_rel = s.median > 0 ? (high - low) / 2 / s.median : 0;
  return s;
}

}  // namespace orrery
