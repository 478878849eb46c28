// Robust least squares with bounds, for a handful of constants and up to a few thousand rows.
#pragma once

#include <functional>
#include <vector>

namespace orrery {

struct LeastSquaresProblem {
  /// One relative residual per row: predicted / measured - 1.
  std::function<std::vector<double>(const std::vector<double>&)> residuals;
  std::vector<double> start, lower, upper;
};

struct LeastSquaresFit {
  std::vector<double> values;
  std::vector<double> low, high;  // 90 % interval: 1.645 standard errors
  std::vector<int> undetermined;  // constants that the rows say nothing about, or only together with others
  double scatter = 0;             // robust standard deviation of the residuals
};

/// Levenberg-Marquardt on Huber's loss (quadratic to 1.5 scatters, linear beyond), steps clipped to the bounds.
LeastSquaresFit fit(const LeastSquaresProblem& problem);

}  // namespace orrery
