#include "sim/columns.hpp"

#include <numeric>
#include <utility>

namespace orrery {

Columns::Columns(Rank ranks)
    : representatives_(static_cast<std::size_t>(ranks)), class_of_(representatives_.size()), one_per_rank_(true) {
  std::iota(representatives_.begin(), representatives_.end(), 0);
  std::iota(class_of_.begin(), class_of_.end(), 0);
}

Columns::Columns(std::vector<Rank> representatives, std::vector<std::int32_t> class_of)
    : representatives_(std::move(representatives)), class_of_(std::move(class_of)), one_per_rank_(false) {}

ColumnSet Columns::of(const RankSet& ranks) const {
  ColumnSet set;
  set.first = static_cast<std::size_t>(ranks.first);
  set.count = static_cast<std::size_t>(ranks.count);
  if (one_per_rank_) {
    for (Rank i = 0; ranks.stride > 1 && ranks.count > 1 && i < ranks.count; ++i) set.list.push_back(ranks[i]);
    return set;
  }
  for (std::size_t c = 0; c < count(); ++c) {
    if (ranks.contains(representatives_[c])) set.list.push_back(static_cast<std::int32_t>(c));
  }
  set.count = set.list.size();
  if (set.count == 0) return set;
  set.first = static_cast<std::size_t>(set.list.front());
  if (static_cast<std::size_t>(set.list.back()) - set.first + 1 == set.count) set.list.clear();
  return set;
}

ColumnSet Columns::shifted(const ColumnSet& set, std::int32_t distance) const {
  if (distance == 0) return set;
  const auto ranks = class_of_.size();
  ColumnSet result;
  result.count = set.count;
  if (one_per_rank_ && set.list.empty()) {
    result.first = (set.first + static_cast<std::size_t>(distance)) % ranks;
    if (result.first + result.count <= ranks) return result;
  }
  for (std::size_t i = 0; i < set.count; ++i) {
    const std::size_t column = set.list.empty() ? set.first + i : static_cast<std::size_t>(set.list[i]);
    const std::size_t rank =
        (static_cast<std::size_t>(representatives_[column]) + static_cast<std::size_t>(distance)) % ranks;
    result.list.push_back(class_of_[rank]);
  }
  return result;
}

}  // namespace orrery
