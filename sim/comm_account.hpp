// How long communication of a rank is under way, and how much of that while its compute stream stands still, from
// intervals that come nearly in the order of their begins.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "sim/columns.hpp"

namespace orrery {

/// Times in ticks, one account a column. The latest `depth` intervals of a column are held back, sorted by their begin.
/// Columns are worked on in groups, without branches, some intervals at a time.
class CommAccounts {
 public:
  CommAccounts(std::size_t columns, std::size_t depth);

  /// A message is under way; such intervals may overlap. Times by place in `columns`.
  void add_comm(const ColumnSet& columns, const double* begin, const double* end) { add(columns, begin, end, +1); }
  /// No compute op runs; such intervals come in order and do not overlap.
  void add_gap(const ColumnSet& columns, const double* begin, const double* end) { add(columns, begin, end, -1); }
  /// False if an interval came so late that a sum may be wrong.
  bool in_order() const { return lateness_ >= 0; }
  /// Counts what is held back, up to `end`.
  void finish(double end);

  double comm(std::size_t column) const { return states_[column / lanes].comm[column % lanes]; }
  double exposed(std::size_t column) const { return states_[column / lanes].exposed[column % lanes]; }

  /// For jumps over periods: every time in here, and every sum.
  template <class Time, class Sum>
  void each(Time time, Sum sum);

 private:
  static constexpr std::size_t lanes = 32;
  static constexpr std::size_t most_pending = 8;
  using Group = std::array<double, lanes>;
  /// A negative end: a gap up to -end. Where there is none: {-1, 0}, which changes nothing.
  struct alignas(64) Intervals {
    Group begin, end;
  };
  struct alignas(64) State {
    Group run_begin{}, run_end{};  // the latest stretch with communication
    Group gap_begin{}, gap_end{};  // the latest stretch without compute
    Group last_begin{};
    Group comm{}, exposed{};
  };

  void add(const ColumnSet& columns, const double* begin, const double* end, double sign);
  void add_piece(std::size_t column, const double* begin, const double* end, double sign, std::size_t n);
  void flush();
  /// Returns the least of begin - last_begin, at most 0.
  static double work_off(State& state, Intervals* window, std::size_t depth, const Intervals* intervals, std::size_t n);

  std::size_t depth_;
  std::vector<State> states_;         // by group
  std::vector<Intervals> window_;     // by group and place
  std::vector<Intervals> pending_;    // by group and row
  std::vector<std::uint8_t> filled_;  // rows, by column
  double lateness_ = 0;
};

template <class Time, class Sum>
void CommAccounts::each(Time time, Sum sum) {
  flush();
  for (State& state : states_) {
    for (Group* times : {&state.run_begin, &state.run_end, &state.gap_begin, &state.gap_end, &state.last_begin}) {
      for (double& value : *times) time(value);
    }
    for (Group* sums : {&state.comm, &state.exposed}) {
      for (double& value : *sums) sum(value);
    }
  }
  for (Intervals& intervals : window_) {
    for (double& begin : intervals.begin) time(begin);
    for (double& end : intervals.end) {
      const double sign = end < 0 ? -1 : 1;
      end *= sign;
      time(end);
      end *= sign;
    }
  }
}

}  // namespace orrery
