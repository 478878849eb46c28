#include "scenarios/variation.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <stdexcept>
#include <string>

namespace orrery {
namespace {

std::vector<Perturbation::SlowRank> read_slow_ranks(const std::vector<Table>& tables, Rank ranks) {
  std::vector<Perturbation::SlowRank> slow;
  for (const Table& table : tables) {
    const auto rank = static_cast<Rank>(table.count("rank", 0, ranks - 1));
    const double speed = table.number("speed");
    if (!(speed >= Perturbation::least_speed) || speed > 1) {
      throw table.error_at("speed",
                           fmt::format("speed = {} is not in {} to 1 (1 is that of the other ranks), write one "
                                       "of these",
                                       speed, Perturbation::least_speed));
    }
    if (std::any_of(slow.begin(), slow.end(), [&](const auto& other) { return other.rank == rank; }))
      throw table.error_at("rank",
                           fmt::format("rank {} is slow twice (it has one speed), remove one of the two", rank));
    slow.push_back({rank, speed});
  }
  return slow;
}

Perturbation::Jitter read_jitter(const Table& table) {
  const std::vector<std::string> names(noise_names().begin(), noise_names().end());
  const std::string name = table.choice("distribution", names);
  const auto noise = static_cast<Noise>(std::find(names.begin(), names.end(), name) - names.begin());
  return {noise, table.number("sigma"), static_cast<std::uint64_t>(table.count("seed"))};
}

}  // namespace

Variation read_variation(const Table& table, Rank ranks) {
  Variation variation;
  if (table.has("slow_ranks")) variation.slow_ranks = read_slow_ranks(table.tables("slow_ranks"), ranks);
  const auto jitter = table.optional_table("jitter");
  if (jitter) variation.jitter = read_jitter(*jitter);
  table.finish();  // a mistyped key is the likely reason for what follows
  if (!jitter && variation.slow_ranks.empty())
    throw table.error_here("[variation] varies nothing, add slow_ranks or jitter, or remove it");
  try {
    variation.perturbation = std::make_shared<const Perturbation>(
        ranks, variation.jitter.value_or(Perturbation::Jitter{}), variation.slow_ranks);
  } catch (const std::invalid_argument& error) {
    throw jitter->error_at("sigma", error.what());  // all else has been checked
  }
  return variation;
}

}  // namespace orrery
