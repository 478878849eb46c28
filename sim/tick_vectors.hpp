// Arithmetic on whole vectors of times, one element a rank. Times are ticks in doubles: exact up to 2^53 ticks (2.5
// hours), and the maximum of doubles is one instruction for many lanes where 64-bit integers have none. Every operation
// is exact, so the instruction set does not show in the result.
#pragma once

#include <cstddef>
#include <vector>

namespace orrery::ticks {

/// Above this, whole numbers are not exact in a double.
inline constexpr double largest = 9007199254740992.0;

void add_into(double* x, const double* y, std::size_t n);                         // x += y
void add_into(double* x, double y, std::size_t n);                                // x += y
void add_difference(double* x, const double* y, const double* z, std::size_t n);  // x += y - z
void min_into(double* x, const double* y, std::size_t n);                         // x = min(x, y)
bool any_less(const double* x, const double* y, std::size_t n);                   // x[i] < y[i] for any i
/// x = y > x ? with : kept, used on the row of times and on those that go with it.
void select_greater(double* row, const double* other_row, const double* x, const double* y, std::size_t n);

/// The measure of a union of intervals, one union a column, whose intervals come nearly in the order of their begins:
/// the latest `depth` are held back and sorted.
class Unions {
 public:
  Unions(std::size_t columns, std::size_t depth);

  /// Adds [begin, end) to a column.
  void add(std::size_t column, double begin, double end);
  /// Adds what is held back. False if an interval came so late that a measure may be wrong.
  bool finish();
  double measure(std::size_t column) const { return columns_[column].measure; }

  /// For jumps over periods: every time in here, and every sum.
  template <class Time, class Sum>
  void each(Time time, Sum sum) {
    for (std::size_t c = 0; c < columns_.size(); ++c) {
      time(columns_[c].covered_to);
      time(columns_[c].last_begin);
      sum(columns_[c].measure);
      for (std::size_t i = 0; i < depth_; ++i) {
        Interval& interval = windows_[c * depth_ + (columns_[c].oldest + i) % depth_];
        time(interval.begin);
        time(interval.end);
      }
    }
  }

 private:
  struct Interval {
    double begin, end;
  };
  struct Column {
    double covered_to = 0;
    double last_begin = -1;
    double measure = 0;
    std::size_t oldest = 0;
  };

  void count(Column& c, Interval interval);

  std::size_t depth_;
  std::vector<Column> columns_;
  std::vector<Interval> windows_;  // depth entries a column, a ring each
  bool late_ = false;
};

}  // namespace orrery::ticks
