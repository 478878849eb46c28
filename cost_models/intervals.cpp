#include "cost_models/intervals.hpp"

#include <algorithm>
#include <cmath>
#include <utility>

namespace orrery {
namespace {

/// So many standard deviations around the mean hold that share of a normal distribution.
double normal_half_width(double share) {
  double low = 0, high = 10;
  for (int i = 0; i < 60; ++i) {
    const double middle = (low + high) / 2;
    (std::erf(middle / std::sqrt(2.0)) < share ? low : high) = middle;
  }
  return low;
}

/// The largest of n errors covers n / (n + 1) of others, which is less than 90 % of fewer than nine. From there to the
/// share as a normal distribution goes on.
double beyond_largest(double largest, std::size_t n, double share) {
  const double covered = static_cast<double>(n) / static_cast<double>(n + 1);
  return covered < share ? largest * normal_half_width(share) / normal_half_width(covered) : largest;
}

}  // namespace

double quantile(std::vector<double> values, double share) {
  std::sort(values.begin(), values.end());
  const double place = share * static_cast<double>(values.size() - 1);
  const auto below = static_cast<std::size_t>(place);
  const auto above = std::min(below + 1, values.size() - 1);
  return values[below] + (values[above] - values[below]) * (place - static_cast<double>(below));
}

double conformal_half_width(std::vector<double> errors, double share) {
  std::sort(errors.begin(), errors.end());
  const auto rank = static_cast<std::size_t>(std::ceil(share * static_cast<double>(errors.size() + 1)));
  return rank <= errors.size() ? errors[rank - 1] : beyond_largest(errors.back(), errors.size(), share);
}

double pooled_half_width(const std::map<std::string, std::vector<double>>& groups, double share) {
  std::vector<std::pair<double, double>> weights;  // of errors, smallest first
  for (const auto& [name, errors] : groups) {
    const double weight = 1 / (static_cast<double>(groups.size()) * static_cast<double>(errors.size()));
    for (const double error : errors) weights.emplace_back(error, weight);
  }
  std::sort(weights.begin(), weights.end());
  const double wanted = share * (1 + 1 / static_cast<double>(weights.size()));
  double within = 0;
  for (const auto& [error, weight] : weights) {
    within += weight;
    if (within > wanted - 1e-9) return error;  // sums of weights are off by rounding
  }
  return beyond_largest(weights.back().first, weights.size(), share);
}

}  // namespace orrery
