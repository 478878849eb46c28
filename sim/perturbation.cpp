#include "sim/perturbation.hpp"

#include <fmt/format.h>

#include <cmath>
#include <stdexcept>

namespace orrery {
namespace {

constexpr std::array<std::string_view, 4> names = {"uniform", "normal", "lognormal", "exponential"};

/// The x below which the standard normal distribution has the share p, by bisection of its distribution function.
/// Precondition: it is between -4 and 4.
double normal_quantile(double p) {
  double low = -4, high = 4;
  for (int i = 0; i < 45; ++i) {
    const double middle = (low + high) / 2;
    (std::erfc(-middle / std::sqrt(2.0)) / 2 < p ? low : high) = middle;
  }
  return low;
}

double exact_quantile(Noise noise, double sigma, double p) {
  switch (noise) {
    case Noise::uniform:
      return 1 + std::sqrt(3.0) * sigma * (2 * p - 1);
    case Noise::normal:
      return 1 + sigma * normal_quantile(p);
    case Noise::lognormal: {
      const double variance_of_logarithm = std::log1p(sigma * sigma);
      return std::exp(std::sqrt(variance_of_logarithm) * normal_quantile(p) - variance_of_logarithm / 2);
    }
    case Noise::exponential:
      break;
  }
  return 1 - sigma * std::log1p(-p);
}

/// Rounded to 2^-30, so that the last bits of a mathematical library do not show.
double quantile(Noise noise, double sigma, double p) {
  constexpr double grid = 1073741824;
  return std::round(exact_quantile(noise, sigma, p) * grid) / grid;
}

}  // namespace

std::string_view name_of(Noise noise) {
  return names.at(static_cast<std::size_t>(noise));
}

std::span<const std::string_view> noise_names() {
  return names;
}

Perturbation::Perturbation(Rank ranks, Jitter jitter, const std::vector<SlowRank>& slow)
    : factor_of_rank_(static_cast<std::size_t>(ranks), 0), noisy_(jitter.sigma > 0) {
  set_seed(jitter.seed);
  if (!(jitter.sigma >= 0) || jitter.sigma > 1) {
    throw std::invalid_argument(
        fmt::format("a jitter of sigma = {} (it is a fraction of the duration), give 0 .. 1", jitter.sigma));
  }
  for (const SlowRank& entry : slow) {
    if (entry.rank < 0 || entry.rank >= ranks) {
      throw std::invalid_argument(fmt::format("slow rank {} (there are {} ranks, counted from 0)", entry.rank, ranks));
    }
    double& factor = factor_of_rank_[static_cast<std::size_t>(entry.rank)];
    if (factor != 0) throw std::invalid_argument(fmt::format("rank {} is slow twice, give one speed", entry.rank));
    if (!(entry.speed >= least_speed) || !(entry.speed <= 1)) {
      throw std::invalid_argument(fmt::format("rank {} has a speed of {} (1 is that of the others), give {} .. 1",
                                              entry.rank, entry.speed, least_speed));
    }
    factor = 1 / entry.speed;
  }
  for (double& factor : factor_of_rank_) {
    if (factor == 0) factor = 1;
  }
  // Equally likely classes, each by the value in its middle.
  for (std::size_t i = 0; i < quantiles_.size(); ++i) {
    const double p = (static_cast<double>(i) + 0.5) / static_cast<double>(quantiles_.size());
    quantiles_[i] = quantile(jitter.noise, jitter.sigma, p);
  }
  if (!(quantiles_.front() > 0)) {
    throw std::invalid_argument(fmt::format(
        "a {} jitter of sigma = {} (some ops would take no time or less), give less or take a lognormal one",
        name_of(jitter.noise), jitter.sigma));
  }
}

}  // namespace orrery
