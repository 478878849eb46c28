// Order statistics of a set of samples.
#pragma once
#include <cstddef>
#include <vector>

namespace orrery {

struct Summary {
  double median = 0, p5 = 0, p95 = 0;
  double ci95_rel = 0;  // half the 95 % confidence interval of the median, over the median
  size_t samples = 0;
};

// Linear interpolation between order statistics; `sorted` ascending, 0 <= q <= 1.
double quantile(const std::vector<double>& sorted, double q);

// The interval of the median is that of order statistics (binomial, normal approximation), which assumes nothing about
// the distribution: ranks n/2 -+ 0.98 sqrt(n). With fewer than 8 samples it is the whole range.
Summary summarize(std::vector<double> samples);

}  // namespace orrery
