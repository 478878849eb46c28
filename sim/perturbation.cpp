#include "sim/perturbation.hpp"

#include <fmt/format.h>

#include <cmath>
#include <stdexcept>

namespace orrery {
namespace {

constexpr std::array<std::string_view, 3> noise_names = {"uniform", "exponential", "half_normal"};

/// The x below which the half normal distribution of mean 1 has the share p, by bisection of its distribution function.
double half_normal_quantile(double p) {
  const double scale = std::sqrt(3.14159265358979323846 / 2);  // of mean 1
  double low = 0, high = 12;
  for (int i = 0; i < 60; ++i) {
    const double middle = (low + high) / 2;
    (std::erf(middle / std::sqrt(2.0)) < p ? low : high) = middle;
  }
  return low * scale;
}

/// At the middle of each of the equally likely classes. Rounded to 2^-30, so that the last bits of a mathematical
/// library do not show.
double quantile(Noise noise, double p) {
  const double exact = noise == Noise::uniform       ? 2 * p
                       : noise == Noise::exponential ? -std::log1p(-p)
                                                     : half_normal_quantile(p);
  constexpr double grid = 1073741824;
  return std::round(exact * grid) / grid;
}

}  // namespace

std::string_view name_of(Noise noise) {
  return noise_names.at(static_cast<std::size_t>(noise));
}

Perturbation::Perturbation(Rank ranks, Jitter jitter, const std::vector<SlowRank>& slow)
    : factor_of_rank_(static_cast<std::size_t>(ranks), 0), noisy_(jitter.mean > 0) {
  set_seed(jitter.seed);
  if (!(jitter.mean >= 0) || jitter.mean > 1) {
    throw std::invalid_argument(
        fmt::format("a mean jitter of {} (it is a fraction of the duration), give 0 .. 1", jitter.mean));
  }
  for (const SlowRank& entry : slow) {
    if (entry.rank < 0 || entry.rank >= ranks) {
      throw std::invalid_argument(fmt::format("slow rank {} (there are {} ranks, counted from 0)", entry.rank, ranks));
    }
    double& factor = factor_of_rank_[static_cast<std::size_t>(entry.rank)];
    if (factor != 0) throw std::invalid_argument(fmt::format("rank {} is slow twice, give one factor", entry.rank));
    if (!(entry.factor >= 0.01) || !(entry.factor <= 1000)) {
      throw std::invalid_argument(fmt::format("rank {} has a factor of {} (it multiplies durations), give 0.01 .. 1000",
                                              entry.rank, entry.factor));
    }
    factor = entry.factor;
  }
  for (double& factor : factor_of_rank_) {
    if (factor == 0) factor = 1;
  }
  for (std::size_t i = 0; i < quantiles_.size(); ++i) {
    const double p = (static_cast<double>(i) + 0.5) / static_cast<double>(quantiles_.size());
    quantiles_[i] = 1 + jitter.mean * quantile(jitter.noise, p);
  }
}

}  // namespace orrery
