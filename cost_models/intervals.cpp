#include "cost_models/intervals.hpp"

#include <algorithm>
#include <cmath>

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

}  // namespace orrery
