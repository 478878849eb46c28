#include <cmath>

#include "sim/perturbation.hpp"
#include "sim/tick_vectors.hpp"

namespace orrery {

// Compiled with -ffinite-math-only -fno-signed-zeros -fno-trapping-math (sim/CMakeLists.txt), so that the instruction
// that rounds down may be used.
ORRERY_CLONES void Perturbation::durations(Ticks duration, Rank first, std::int64_t block, std::int32_t index,
                                           double* __restrict out, std::size_t n) const {
  const double* const factors = factor_of_rank_.data() + first;
  const double* const quantiles = quantiles_.data();
  const auto alone = static_cast<double>(duration);
  if (!noisy_) {
    for (std::size_t i = 0; i < n; ++i) out[i] = std::floor(alone * factors[i] + 0.5);
    return;
  }
  const std::uint64_t start = place(first, block, index);
  for (std::size_t i = 0; i < n; ++i) {
    const std::uint64_t which = mixed(start + i * hash_of_rank) >> (64 - quantile_bits);
    out[i] = std::floor(alone * (factors[i] * quantiles[which]) + 0.5);
  }
}

}  // namespace orrery
