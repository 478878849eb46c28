// What the dependency tier computes on: one column a rank, or one for all ranks of a class.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "sim/block_store.hpp"

namespace orrery {

/// Columns in a given order: a range, which may go on from the last column at the first, or a list.
class ColumnSet {
 public:
  ColumnSet() = default;
  ColumnSet(std::size_t first, std::size_t count, std::size_t columns)
      : first_(first), count_(count), columns_(columns) {}
  explicit ColumnSet(std::vector<std::int32_t> list) : count_(list.size()), list_(std::move(list)) {}

  std::size_t count() const { return count_; }
  /// Every column, and each once?
  bool all() const { return list_.empty() && count_ == columns_; }

  bool is_range() const { return list_.empty(); }
  std::size_t first() const { return first_; }
  /// The columns at places i .. i + n - 1 of a range.
  ColumnSet part(std::size_t i, std::size_t n) const {
    const std::size_t from = first_ + i;
    return {from < columns_ ? from : from - columns_, n, columns_};
  }

  /// f(i, column, n): the columns at places i .. i + n - 1 are column .. column + n - 1.
  template <class F>
  void each_piece(F f) const {
    if (!list_.empty()) {
      for (std::size_t i = 0; i < count_; ++i) f(i, static_cast<std::size_t>(list_[i]), std::size_t{1});
    } else if (first_ + count_ <= columns_) {
      if (count_ > 0) f(std::size_t{0}, first_, count_);
    } else {
      f(std::size_t{0}, first_, columns_ - first_);
      f(columns_ - first_, std::size_t{0}, first_ + count_ - columns_);
    }
  }
  /// f(i, column) for every place.
  template <class F>
  void each(F f) const {
    each_piece([&](std::size_t i, std::size_t column, std::size_t n) {
      for (std::size_t j = 0; j < n; ++j) f(i + j, column + j);
    });
  }

 private:
  friend class Columns;
  std::size_t first_ = 0;
  std::size_t count_ = 0;
  std::size_t columns_ = 0;
  std::vector<std::int32_t> list_;  // empty: a range
};

/// A sum per column, to which the same is added for whole ranges of columns.
class ColumnSums {
 public:
  explicit ColumnSums(std::size_t columns) : steps_(columns + 1) {}

  void add(const ColumnSet& columns, double value) {
    columns.each_piece([&](std::size_t, std::size_t column, std::size_t n) {
      steps_[column] += value;
      steps_[column + n] -= value;
    });
  }
  /// f(column, sum)
  template <class F>
  void each(F f) const {
    double sum = 0;
    for (std::size_t c = 0; c + 1 < steps_.size(); ++c) f(c, sum += steps_[c]);
  }
  std::vector<double>& steps() { return steps_; }  // from each column's sum to the next one's

 private:
  std::vector<double> steps_;
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

  ColumnSet of(const RankSet& ranks) const;
  ColumnSet one(std::size_t column) const { return {column, 1, count()}; }
  /// The columns `distance` ranks further on, in the order of `set`.
  ColumnSet shifted(const ColumnSet& set, std::int32_t distance) const;
  std::size_t shifted(std::size_t column, std::int32_t distance) const {
    const auto rank = static_cast<std::size_t>(representatives_[column]) + static_cast<std::size_t>(distance);
    return static_cast<std::size_t>(class_of_[rank % class_of_.size()]);
  }

 private:
  std::vector<Rank> representatives_;
  std::vector<std::int32_t> class_of_;
  bool one_per_rank_;
};

}  // namespace orrery
