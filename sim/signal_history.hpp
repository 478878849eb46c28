// When signals were raised, for the dependency tier.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "sim/columns.hpp"

namespace orrery {

/// Why the dependency tier cannot run a program.
struct NotApplicable {
  std::string reason;
};

/// Times by column, and with each the breakdown of the chain of ops that led to it: row 0 is the time, the others say
/// how much of it fell to what.
class Rows {
 public:
  Rows() = default;
  Rows(std::size_t rows, std::size_t columns) : columns_(columns), values_(rows * columns) {}

  std::size_t rows() const { return columns_ == 0 ? 0 : values_.size() / columns_; }
  std::size_t columns() const { return columns_; }
  double* row(std::size_t i) { return values_.data() + i * columns_; }
  const double* row(std::size_t i) const { return values_.data() + i * columns_; }

  void resize(std::size_t rows, std::size_t columns) {
    columns_ = columns;
    values_.resize(rows * columns);
  }
  /// Takes over the columns of `set`, in its order.
  void gather(const Rows& from, const ColumnSet& set);
  /// Puts the columns back to where gather would take them.
  void scatter(Rows& to, const ColumnSet& set) const;
  /// Where the column of `other` at the same place of `set` is strictly later, takes it.
  void max_into(const Rows& other, const ColumnSet& set);

 private:
  std::size_t columns_ = 0;
  std::vector<double> values_;
};

/// The latest raises of one signal of all columns.
class SignalHistory {
 public:
  SignalHistory() = default;
  /// `depth`: a power of two. `one_raiser`: raises come from one stream at one distance, so in the order of their
  /// times.
  SignalHistory(std::size_t depth, std::size_t rows, std::size_t columns, bool one_raiser);

  bool empty() const { return counts_.empty(); }
  /// Has it been raised `count` times on all of these columns?
  bool reached(const ColumnSet& set, std::int64_t count) const;
  /// True if the count-th raise is no longer remembered.
  bool forgotten(const ColumnSet& set, std::int64_t count) const;
  /// time = max(time, that of the count-th raise). Throws NotApplicable if later raises were earlier.
  void wait(const ColumnSet& set, std::int64_t count, Rows& time);
  /// Throws NotApplicable if it comes before a raise that was waited for as an earlier one.
  void raise(const ColumnSet& set, const Rows& time);

  template <class Time>
  void each_time(Time time) {
    for (std::size_t c = 0; c < counts_.size(); ++c) {
      for (std::int64_t back = 0; back < static_cast<std::int64_t>(latest_.size()) && back < counts_[c]; ++back) {
        Rows& rows = latest_[slot(counts_[c] - back)];
        for (std::size_t r = 0; r < rows.rows(); ++r) time(rows.row(r)[c], r);
      }
    }
  }
  const std::vector<std::int64_t>& counts() const { return counts_; }
  /// As if `times` further raises had followed on every column; slots keep their contents, counted from the end.
  void skip(const std::vector<std::int64_t>& raises);

 private:
  std::size_t slot(std::int64_t count) const { return static_cast<std::size_t>(count) & (latest_.size() - 1); }
  void raise_one(std::size_t column, const Rows& time, std::size_t i);
  void note_disorder(std::int64_t count, std::size_t column, double time);

  std::vector<std::int64_t> counts_;
  std::int64_t greatest_count_ = 0;  // of all columns
  bool one_raiser_ = false;
  std::vector<Rows> latest_;                          // ring by count; every entry the latest of the raises up to it
  std::vector<std::int64_t> waited_for_, unordered_;  // by slot: the count, once this has happened
};

}  // namespace orrery
