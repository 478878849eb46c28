// How long communication of a rank is under way, and how much of that while its compute stream stands still, from
// intervals that come nearly in the order of their begins and of their ends.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "sim/columns.hpp"

namespace orrery {

/// Times in ticks, one account a column; columns are worked on side by side, without branches.
///
/// The length of a union needs no pairs of begin and end: with all begins b and all ends e sorted, each on its own, the
/// union is left from e[i] to b[i + 1] if that is later, for every i. Both are sorted by windows of some places: what
/// falls out of a window is the least of what has come in. Where compute does not run, the intervals begin when one
/// compute op ends, the first of them at 0, and end when the next one begins.
class CommAccounts {
 public:
  /// Places of the windows that times are sorted by.
  struct Depths {
    std::size_t comm = 1;          // communication alone
    std::size_t comm_or_idle = 2;  // with compute
    bool operator==(const Depths&) const = default;
  };
  CommAccounts(std::size_t columns, Depths depths);

  /// A message is under way; such intervals may overlap. Times by place in `columns`.
  void add_comm(const ColumnSet& columns, const double* begin, const double* end) { add(columns, begin, end, false); }
  /// A compute op runs; such intervals come in order and do not overlap.
  void add_compute(const ColumnSet& columns, const double* begin, const double* end) { add(columns, end, begin, true); }

  /// One for each column first .. last - 1. Of a compute op that runs, its end is the begin.
  struct Intervals {
    const double* begins;  // of column `first` and those after it
    const double* ends;
    std::size_t first, last;
    bool is_compute;
  };
  /// The same for many at once, in this order, which need not be copied. Not together with add_*, but before them.
  void count(std::span<const Intervals> intervals);

  /// False if a time came so late that a sum may be wrong.
  bool in_order() const { return enough() == depths_; }
  /// Depths that may do if these do not.
  Depths enough() const;
  /// Counts what is held back, up to `end`.
  void finish(double end);

  double comm(std::size_t column) const { return end_ - outside(column, communicating); }
  /// Communication while no compute op runs, if they run for `computing` ticks in all.
  double exposed(std::size_t column, double computing) const {
    return comm(column) - (computing - outside(column, communicating_or_idle));
  }

  /// For jumps over periods: every time in here, and every sum.
  template <class Time, class Sum>
  void each(Time time, Sum sum);

 private:
  static constexpr std::size_t lanes = 8, slices = 4, columns_of_group = lanes * slices, most_rows = 8;
  using Vector __attribute__((vector_size(lanes * sizeof(double)))) = double;
  enum Union : std::size_t { communicating, communicating_or_idle, unions };
  using Lateness = std::array<double, unions>;

  /// Of eight columns, what there is for each union: of the times that have fallen out of its window the last begin and
  /// end, and the time outside of all intervals; then the places of the window, each with a begin and an end,
  /// ascending.
  enum Field : std::size_t { last_begin, last_end, time_outside, window };
  static constexpr std::size_t fields_of(std::size_t places) { return window + 2 * places; }
  struct alignas(64) Cell {
    Vector times{};
  };

  /// Rows of times that have come in, in this order; {-1, -1}, which changes nothing, on columns without.
  struct Group {
    std::uint32_t last_row = 0;  // its columns, a bit each
    std::uint8_t rows = 0;
    bool is_full = true;  // no column is without
    std::array<bool, most_rows> is_compute{};
  };
  struct alignas(64) Row {
    std::array<double, columns_of_group> begin, end;
  };

  double outside(std::size_t column, Union of) const {
    const std::size_t first = column / lanes * fields_ + (of == communicating ? 0 : fields_of(depths_.comm));
    return states_[first + time_outside].times[column % lanes];
  }
  void add(const ColumnSet& columns, const double* begin, const double* end, bool is_compute);
  void add_piece(std::size_t column, const double* begin, const double* end, std::size_t n, bool is_compute);
  static void store(Row& row, std::size_t lane, const double* begin, const double* end, std::size_t n);
  void flush(std::size_t group);
  void count_vectors(std::span<const Intervals> intervals, std::size_t first, std::size_t last);

  /// Some vectors from a given one on, into which all intervals fall, as far as `is_full` says. Returns by how much a
  /// time came too late.
  static Lateness work_off(std::span<const Intervals> intervals, Cell* states, Depths depths, std::size_t vectors,
                           bool is_full);
  template <std::size_t known_comm, std::size_t known_comm_or_idle, bool is_full>
  static Lateness work_off_in_windows(std::span<const Intervals> intervals, Cell* states, Depths depths,
                                      std::size_t vectors);
  static void exchange(Cell* held, std::size_t places, Vector& begin, Vector& end);
  template <bool is_full>
  static void measure(Cell* state, Union of, const Vector& begin, const Vector& end, Vector& late);
  void note(const Lateness& lateness);

  std::size_t columns_;
  Depths depths_;
  std::size_t fields_;
  std::vector<Group> groups_;
  std::vector<Row> rows_;     // by group
  std::vector<Cell> states_;  // by 8 columns, union, and field
  std::vector<std::size_t> cuts_;
  std::vector<Intervals> within_;
  std::vector<Row> parts_;
  Lateness lateness_{};
  double end_ = 0;
};

template <class Time, class Sum>
void CommAccounts::each(Time time, Sum sum) {
  for (std::size_t group = 0; group < groups_.size(); ++group) flush(group);
  for (std::size_t i = 0; i < states_.size(); ++i) {
    const std::size_t field = i % fields_;
    const bool is_sum = field == time_outside || field == fields_of(depths_.comm) + time_outside;
    for (std::size_t lane = 0; lane < lanes; ++lane) {
      double value = states_[i].times[lane];
      is_sum ? sum(value) : time(value);
      states_[i].times[lane] = value;
    }
  }
}

}  // namespace orrery
