// How long communication of a rank is under way, and how much of that while its compute stream stands still, from
// intervals that come nearly in the order of their begins.
#pragma once

#include <cstddef>
#include <vector>

#include "sim/columns.hpp"

namespace orrery {

/// Times in ticks, one account a column. The latest `depth` intervals of a column are held back, sorted by their begin;
/// all columns are worked on side by side, without branches.
class CommAccounts {
 public:
  CommAccounts(std::size_t columns, std::size_t depth);

  /// A message is under way; such intervals may overlap. Times by place in `columns`.
  void add_comm(const ColumnSet& columns, const double* begin, const double* end) { add(columns, begin, end, +1); }
  /// No compute op runs; such intervals come in order and do not overlap.
  void add_gap(const ColumnSet& columns, const double* begin, const double* end) { add(columns, begin, end, -1); }
  /// Counts what is held back. False if an interval came so late that a sum may be wrong.
  bool finish(double end);

  double comm(std::size_t column) const { return state_[comm_sum][column]; }
  double exposed(std::size_t column) const { return state_[exposed_sum][column]; }

  /// For jumps over periods: every time in here, and every sum.
  template <class Time, class Sum>
  void each(Time time, Sum sum) {
    for (std::size_t field = 0; field < fields; ++field) {
      for (double& value : state_[field]) {
        if (field < comm_sum) {
          time(value);
        } else {
          sum(value);
        }
      }
    }
    for (std::size_t slot = 0; slot < begin_.size(); ++slot) {
      for (double& begin : begin_[slot]) time(begin);
      for (double& end : end_[slot]) {
        const double sign = end < 0 ? -1 : 1;
        end *= sign;
        time(end);
        end *= sign;
      }
    }
  }

 private:
  // By column: the latest stretch with communication, the latest without compute, the latest begin; and two sums.
  enum Field : std::size_t { run_begin, run_end, gap_begin, gap_end, last_begin, comm_sum, exposed_sum, fields };

  void add(const ColumnSet& columns, const double* begin, const double* end, double sign);
  void count(std::size_t column, const double* begin, const double* end, std::size_t n);

  std::vector<double> state_[fields];
  std::vector<std::vector<double>> begin_, end_;  // by slot and column; a negative end: a gap up to -end
  double lateness_ = 0;                           // negative if an interval was counted after one that begins later
};

}  // namespace orrery
