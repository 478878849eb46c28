#include "cost_models/intervals.hpp"

#include <algorithm>
#include <cmath>
#include <utility>

namespace orrery {

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
  return errors[std::min(rank, errors.size()) - 1];
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
  return weights.back().first;
}

}  // namespace orrery
