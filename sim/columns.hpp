// What the dependency tier computes on: one column a rank, or one for all ranks of a class.
#pragma once

#include <cstdint>
#include <map>
#include <vector>

#include "sim/block_store.hpp"

namespace orrery {

/// The columns of a set of ranks: first, first + 1, ..., or a list.
struct ColumnSet {
  std::size_t first = 0;
  std::size_t count = 0;
  std::vector<std::int32_t> list;  // empty: contiguous
};

/// `representative[c]` stands for all ranks r with class_of[r] == c. Distances between ranks carry over to classes:
/// from whichever rank of a class one starts, `distance` further on lies a rank of the same class.
class Columns {
 public:
  /// Every rank its own column.
  explicit Columns(Rank ranks);
  Columns(std::vector<Rank> representatives, std::vector<std::int32_t> class_of);

  std::size_t count() const { return representatives_.size(); }
  Rank representative(std::size_t column) const { return representatives_[column]; }
  std::int32_t column_of(Rank rank) const { return class_of_[static_cast<std::size_t>(rank)]; }
  bool one_per_rank() const { return one_per_rank_; }

  ColumnSet of(const RankSet& ranks) const;
  /// The columns `distance` ranks further on, in the order of `set`.
  ColumnSet shifted(const ColumnSet& set, std::int32_t distance) const;

 private:
  std::vector<Rank> representatives_;
  std::vector<std::int32_t> class_of_;
  bool one_per_rank_;
};

}  // namespace orrery
