// Compute ops that do not take what the cost model says: slow GPUs, and noise that differs from op to op.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>
#include <vector>

#include "sim/program.hpp"

namespace orrery {

/// How much longer an op takes than the model says, as a fraction x >= 0 of it.
///   uniform      evenly between 0 and 2 * mean
///   exponential  mostly a little, now and then a lot
///   half_normal  the positive half of a bell curve
enum class Noise : std::uint8_t { uniform, exponential, half_normal };
std::string_view name_of(Noise noise);

/// Draws are a pure function of (seed, rank, block, index of the op), so they do not depend on the engine, on the order
/// of the simulation or on the number of threads.
class Perturbation {
 public:
  struct Jitter {
    Noise noise = Noise::uniform;
    double mean = 0;  // of x, 0 .. 1
    std::uint64_t seed = 0;
  };
  struct SlowRank {
    Rank rank = 0;
    double factor = 1;  // of the duration, > 0
  };

  /// Throws std::invalid_argument if a value is out of its range or a rank is named twice or not among `ranks`.
  Perturbation(Rank ranks, Jitter jitter, const std::vector<SlowRank>& slow);

  /// The same but for the draws.
  Perturbation with_seed(std::uint64_t seed) const {
    Perturbation other = *this;
    other.set_seed(seed);
    return other;
  }

  Ticks duration(Ticks duration, Rank rank, std::int64_t block, std::int32_t index) const {
    const double factor = factor_of_rank_[static_cast<std::size_t>(rank)] * noise(rank, block, index);
    return static_cast<Ticks>(static_cast<double>(duration) * factor + 0.5);
  }

 private:
  static constexpr int quantile_bits = 12;

  double noise(Rank rank, std::int64_t block, std::int32_t index) const {
    if (!noisy_) return 1;
    // A multiplicative hash of the place, mixed.
    std::uint64_t x = seed_ + static_cast<std::uint64_t>(rank) * 0x9e3779b97f4a7c15ULL;
    x += static_cast<std::uint64_t>(block) * 0xd1342543de82ef95ULL +
         static_cast<std::uint64_t>(index) * 0x2545f4914f6cdd1dULL;
    return quantiles_[mixed(x) >> (64 - quantile_bits)];
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
  std::array<double, std::size_t{1} << quantile_bits> quantiles_{};  // of 1 + x
};

}  // namespace orrery
