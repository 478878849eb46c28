#include <cmath>

#include "sim/perturbation.hpp"
#include "sim/tick_vectors.hpp"

namespace orrery {

// Compiled with -ffinite-math-only -fno-signed-zeros -fno-trapping-math (sim/CMakeLists.txt), so that the instruction
// that rounds down may be used.
//
// Apart from durations(), since clang 14 finds the clones of a function only below its definition.
ORRERY_CLONES void Perturbation::fill(const Draws& draws, double alone, double* __restrict out, std::size_t n) {
  const double* const factors = draws.factors;
  const double* const quantiles = draws.quantiles;
  if (quantiles == nullptr) {
    for (std::size_t i = 0; i < n; ++i) out[i] = std::floor(alone * factors[i] + 0.5);
    return;
  }
  std::uint64_t place = draws.place;
  for (std::size_t i = 0; i < n; ++i, place += hash_of_rank) {
    const std::uint64_t which = mixed(place) >> (64 - quantile_bits);
    out[i] = std::floor(alone * (factors[i] * quantiles[which]) + 0.5);
  }
}

void Perturbation::durations(Ticks duration, Rank first, std::int64_t block, std::int32_t index, double* out,
                             std::size_t n) const {
  fill(Draws{factor_of_rank_.data() + first, noisy_ ? quantiles_.data() : nullptr, place(first, block, index)},
       static_cast<double>(duration), out, n);
}

}  // namespace orrery
