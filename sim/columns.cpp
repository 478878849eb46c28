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
  std::vector<std::int32_t> list;
  if (!one_per_rank_) {
    for (std::size_t c = 0; c < count(); ++c) {
      if (ranks.contains(representatives_[c])) list.push_back(static_cast<std::int32_t>(c));
    }
    return ColumnSet(std::move(list));
  }
  if (ranks.stride == 1 || ranks.count == 1) {
    return {static_cast<std::size_t>(ranks.first), static_cast<std::size_t>(ranks.count), count()};
  }
  for (Rank i = 0; i < ranks.count; ++i) list.push_back(ranks[i]);
  return ColumnSet(std::move(list));
}

ColumnSet Columns::shifted(const ColumnSet& set, std::int32_t distance) const {
  if (distance == 0) return set;
  if (one_per_rank_ && set.list_.empty()) return {shifted(set.first_, distance), set.count_, class_of_.size()};
  std::vector<std::int32_t> list;
  set.each(
      [&](std::size_t, std::size_t column) { list.push_back(static_cast<std::int32_t>(shifted(column, distance))); });
  return ColumnSet(std::move(list));
}

}  // namespace orrery
