// How long communication of a rank is under way, and how much of that while its compute stream stands still, from
// intervals that come nearly in the order of their begins and of their ends.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "sim/columns.hpp"

namespace orrery {

/// Times in ticks, one account a column; columns are worked on side by side, without branches.
///
/// The length of a union needs no pairs of begin and end: with all begins b and all ends e sorted, each on its own, the
/// union is left from e[i] to b[i + 1] if that is later, for every i. Both are sorted by windows of `depth` places:
/// what falls out of a window is the least of what has come in. Where compute does not run, the intervals begin when
/// one compute op ends, the first of them at 0, and end when the next one begins.
class CommAccounts {
 public:
  /// `depth`: 2, 3, or it is rounded up to a multiple of 4.
  CommAccounts(std::size_t columns, std::size_t depth);

  /// A message is under way; such intervals may overlap. Times by place in `columns`.
  void add_comm(const ColumnSet& columns, const double* begin, const double* end) { add(columns, begin, end, false); }
  /// A compute op runs; such intervals come in order and do not overlap.
  void add_compute(const ColumnSet& columns, const double* begin, const double* end) { add(columns, end, begin, true); }
  /// False if a time came so late that a sum may be wrong.
  bool in_order() const { return lateness_ <= 0; }
  /// Counts what is held back, up to `end`.
  void finish(double end);

  double comm(std::size_t column) const { return end_ - sum(column, communicating); }
  /// Communication while no compute op runs, if they run for `computing` ticks in all.
  double exposed(std::size_t column, double computing) const {
    return comm(column) - (computing - sum(column, communicating_or_idle));
  }

  /// For jumps over periods: every time in here, and every sum.
  template <class Time, class Sum>
  void each(Time time, Sum sum);

 private:
  static constexpr std::size_t lanes = 8, slices = 4, columns_of_group = lanes * slices;
  static constexpr std::size_t most_rows = 8, most_places = 4;
  using Vector __attribute__((vector_size(lanes * sizeof(double)))) = double;
  enum Union : std::size_t { communicating, communicating_or_idle, unions };

  /// Pairs of times that have come in, in this order; {-1, -1}, which changes nothing, on columns without.
  struct Group {
    std::uint32_t last_row = 0;  // its columns, a bit each
    std::uint8_t rows = 0;
    bool is_full = true;  // no column is without
    std::array<bool, most_rows> is_compute{};
  };
  struct alignas(64) Row {
    std::array<double, columns_of_group> begin, end;
  };
  struct alignas(64) Window {  // the greatest times that have come in, ascending
    std::array<Vector, most_places> begin{}, end{};
  };
  struct alignas(64) Measure {  // of the times that have fallen out
    Vector begin{}, end{};      // the last ones
    Vector outside{};           // time that is in no interval
  };

  double sum(std::size_t column, Union of) const {
    return measures_[column / lanes * unions + of].outside[column % lanes];
  }
  void add(const ColumnSet& columns, const double* begin, const double* end, bool is_compute);
  void add_piece(std::size_t column, const double* begin, const double* end, std::size_t n, bool is_compute);
  static void store(Row& row, std::size_t lane, const double* begin, const double* end, std::size_t n);
  void flush(std::size_t group);
  /// Returns by how much a time came too late.
  static double work_off(const Group& group, const Row* rows, Window* windows, std::size_t windows_of_union,
                         std::size_t places, Measure* measures);
  template <std::size_t places>
  static void pass(Window& window, Vector* begins, Vector* ends, std::size_t n);

  std::size_t columns_;
  std::size_t places_, windows_of_union_;
  std::vector<Group> groups_;
  std::vector<Row> rows_;          // by group
  std::vector<Window> windows_;    // by 8 columns, union, and from the one that times come into
  std::vector<Measure> measures_;  // by 8 columns and union
  double lateness_ = 0;
  double end_ = 0;
};

template <class Time, class Sum>
void CommAccounts::each(Time time, Sum sum) {
  for (std::size_t group = 0; group < groups_.size(); ++group) flush(group);
  const auto each_lane = [](Vector& values, auto f) {
    for (std::size_t lane = 0; lane < lanes; ++lane) {
      double value = values[lane];
      f(value);
      values[lane] = value;
    }
  };
  for (Window& window : windows_) {
    for (Vector& values : window.begin) each_lane(values, time);
    for (Vector& values : window.end) each_lane(values, time);
  }
  for (Measure& measure : measures_) {
    each_lane(measure.begin, time);
    each_lane(measure.end, time);
    each_lane(measure.outside, sum);
  }
}

}  // namespace orrery
