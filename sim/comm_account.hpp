// How long communication of a rank is under way, and how much of that while its compute stream stands still, from
// intervals that come nearly in the order of their begins.
#pragma once

#include <algorithm>
#include <cstddef>
#include <vector>

namespace orrery {

/// Times in ticks, one account a column. The latest `depth` intervals of a column are held back and sorted.
class CommAccounts {
 public:
  CommAccounts(std::size_t columns, std::size_t depth)
      : depth_(depth), columns_(columns), windows_(columns * depth, Interval{-1, -1, false}) {}

  /// A message is under way; such intervals may overlap.
  void add_comm(std::size_t column, double begin, double end) { add(column, {begin, end, false}); }
  /// No compute op runs; such intervals come in order and do not overlap.
  void add_gap(std::size_t column, double begin, double end) { add(column, {begin, end, true}); }
  /// Counts what is held back. False if an interval came so late that a sum may be wrong.
  bool finish(double end);

  double comm(std::size_t column) const { return columns_[column].comm; }
  double exposed(std::size_t column) const { return columns_[column].exposed; }

  /// For jumps over periods: every time in here, and every sum.
  template <class Time, class Sum>
  void each(Time time, Sum sum) {
    for (std::size_t c = 0; c < columns_.size(); ++c) {
      Column& column = columns_[c];
      for (double* value :
           {&column.run_begin, &column.run_end, &column.gap_begin, &column.gap_end, &column.last_begin}) {
        time(*value);
      }
      sum(column.comm);
      sum(column.exposed);
      for (std::size_t i = 0; i < depth_; ++i) {
        Interval& interval = windows_[c * depth_ + (column.oldest + i) % depth_];
        time(interval.begin);
        time(interval.end);
      }
    }
  }

 private:
  struct Interval {
    double begin, end;
    bool is_gap;
  };
  struct Column {
    double run_begin = -1, run_end = -1;  // of the latest stretch with communication
    double gap_begin = -1, gap_end = -1;  // of the latest stretch without compute
    double last_begin = -1;
    double comm = 0, exposed = 0;
    std::size_t oldest = 0;
  };

  /// The window is a ring whose oldest entry is the earliest: the new interval takes its place and moves to its own.
  void add(std::size_t column, const Interval& interval) {
    if (interval.begin == interval.end) return;
    Column& c = columns_[column];
    Interval* const window = windows_.data() + column * depth_;
    if (interval.begin < window[c.oldest].begin) {
      count(c, interval);
      return;
    }
    count(c, window[c.oldest]);
    std::size_t place = c.oldest;
    c.oldest = c.oldest + 1 == depth_ ? 0 : c.oldest + 1;
    while (place != c.oldest) {
      const std::size_t before = place == 0 ? depth_ - 1 : place - 1;
      if (window[before].begin <= interval.begin) break;
      window[place] = window[before];
      place = before;
    }
    window[place] = interval;
  }

  /// Intervals come here by their begins, so each can overlap only the latest stretch of the other kind.
  void count(Column& c, const Interval& interval) {
    late_ = late_ || interval.begin < c.last_begin;
    c.last_begin = interval.begin;
    if (interval.is_gap) {
      c.gap_begin = interval.begin;
      c.gap_end = interval.end;
      c.exposed += std::max(0.0, std::min(interval.end, c.run_end) - std::max(interval.begin, c.run_begin));
      return;
    }
    if (interval.begin > c.run_end) c.run_begin = interval.begin;
    const double from = std::max(interval.begin, c.run_end);
    if (interval.end <= from) return;
    c.comm += interval.end - from;
    c.exposed += std::max(0.0, std::min(interval.end, c.gap_end) - std::max(from, c.gap_begin));
    c.run_end = interval.end;
  }

  std::size_t depth_;
  std::vector<Column> columns_;
  std::vector<Interval> windows_;  // depth entries a column, a ring each
  bool late_ = false;
};

inline bool CommAccounts::finish(double end) {
  for (std::size_t column = 0; column < columns_.size(); ++column) {
    for (std::size_t i = 0; i < depth_; ++i) add(column, {end, end + 1, true});
  }
  return !late_;
}

}  // namespace orrery
