// [variation]: ranks that are slow, and compute that does not always take the same.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "scenarios/reader.hpp"
#include "sim/perturbation.hpp"

namespace orrery {

struct Variation {
  std::vector<Perturbation::SlowRank> slow_ranks;
  std::optional<Perturbation::Jitter> jitter;
  std::shared_ptr<const Perturbation> perturbation;  // both of them; null: neither
};

/// Throws InputError.
Variation read_variation(const Table& table, Rank ranks);

}  // namespace orrery
