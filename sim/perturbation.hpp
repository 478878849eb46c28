// Compute ops that do not take what the cost model says: slow GPUs, and noise that differs from op to op.
#pragma once

#include <array>
#include <cstdint>
#include <limits>
#include <span>
#include <string_view>
#include <vector>

#include "sim/program.hpp"

namespace orrery {

/// How the durations of ops are distributed around what the model says, 1 here, with the standard deviation sigma.
///   uniform      evenly between 1 - sqrt(3) sigma and 1 + sqrt(3) sigma
///   normal       a bell curve around 1
///   lognormal    the same of the logarithm, with mean 1: never negative, and skewed to long ones
///   exponential  1 and a delay, mostly little, now and then a lot; its mean is sigma too, so that of all is 1 + sigma
enum class Noise : std::uint8_t { uniform, normal, lognormal, exponential };
std::string_view name_of(Noise noise);
std::span<const std::string_view> noise_names();

/// Draws are a pure function of (seed, rank, block, index of the op), so they do not depend on the engine, on the order
/// of the simulation or on the number of threads.
class Perturbation {
 public:
  struct Jitter {
    Noise noise = Noise::uniform;
    double sigma = 0;  // of an op's duration, as a fraction of what the model says
    std::uint64_t seed = 0;
  };
  struct SlowRank {
    Rank rank = 0;
    double speed = 1;  // of its compute, as a fraction of what it is elsewhere
  };
  static constexpr double least_speed = 0.001;

  /// Throws std::invalid_argument if a value is out of its range or a rank is named twice or not among `ranks`.
  Perturbation(Rank ranks, Jitter jitter, const std::vector<SlowRank>& slow);

  /// The same but for the draws.
  Perturbation with_seed(std::uint64_t seed) const {
    Perturbation other = *this;
    other.set_seed(seed);
    return other;
  }

  bool noisy() const { return noisy_; }
  /// Of the durations of its ops, but for noise.
  double factor(Rank rank) const { return factor_of_rank_[static_cast<std::size_t>(rank)]; }

  Ticks duration(Ticks duration, Rank rank, std::int64_t block, std::int32_t index) const {
    const double factor = factor_of_rank_[static_cast<std::size_t>(rank)] * noise(rank, block, index);
    const double lasts = static_cast<double>(duration) * factor + 0.5;
    constexpr Ticks longest = std::numeric_limits<Ticks>::max();  // which nothing may take, so that it is refused
    return lasts < static_cast<double>(longest) ? static_cast<Ticks>(lasts) : longest;
  }
  /// The same for the ranks first .. first + n - 1, as long as it is below 2^53.
  void durations(Ticks duration, Rank first, std::int64_t block, std::int32_t index, double* out, std::size_t n) const;

 private:
  static constexpr int quantile_bits = 12;
  static constexpr std::uint64_t hash_of_rank = 0x9e3779b97f4a7c15ULL;

  struct Draws {
    const double* factors;    // of the ranks
    const double* quantiles;  // null: no noise
    std::uint64_t place;      // of the first rank
  };
  static void fill(const Draws& draws, double alone, double* out, std::size_t n);

  double noise(Rank rank, std::int64_t block, std::int32_t index) const {
    if (!noisy_) return 1;
    return quantiles_[mixed(place(rank, block, index)) >> (64 - quantile_bits)];
  }

  /// A multiplicative hash.
  std::uint64_t place(Rank rank, std::int64_t block, std::int32_t index) const {
    return seed_ + static_cast<std::uint64_t>(rank) * hash_of_rank +
           static_cast<std::uint64_t>(block) * 0xd1342543de82ef95ULL +
           static_cast<std::uint64_t>(index) * 0x2545f4914f6cdd1dULL;
  }

  /// The finalizer of splitmix64 (Steele, Lea, Flood 2014) but for its last step, which leaves the upper bits alone.
  static std::uint64_t mixed(std::uint64_t x) {
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
    return (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
  }

  /// Mixed, or the next seed would give a rank what this one gives its neighbour.
  void set_seed(std::uint64_t seed) { seed_ = mixed(seed + 0x9e3779b97f4a7c15ULL); }

  std::vector<double> factor_of_rank_;
  bool noisy_;
  std::uint64_t seed_ = 0;
  std::array<double, std::size_t{1} << quantile_bits> quantiles_{};
};

}  // namespace orrery
