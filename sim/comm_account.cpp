#include "sim/comm_account.hpp"

#include <algorithm>
#include <cstring>

#include "sim/tick_vectors.hpp"

namespace orrery {

// Compiled with -ffinite-math-only -fno-signed-zeros (sim/CMakeLists.txt), as tick_vectors.cpp is.

/// In come the next times, out come those that fall out of the window.
template <std::size_t places>
[[gnu::always_inline]] inline void CommAccounts::pass(Window& window, Vector* begins, Vector* ends, std::size_t n) {
  std::array<Vector, places> held_begins, held_ends;
  for (std::size_t place = 0; place < places; ++place) held_begins[place] = window.begin[place];
  for (std::size_t place = 0; place < places; ++place) held_ends[place] = window.end[place];
  for (std::size_t i = 0; i < n; ++i) {
    Vector begin = begins[i], end = ends[i];
    for (std::size_t place = places; place-- > 0;) {
      const Vector held_begin = held_begins[place], held_end = held_ends[place];
      held_begins[place] = begin > held_begin ? begin : held_begin;
      begin = begin > held_begin ? held_begin : begin;
      held_ends[place] = end > held_end ? end : held_end;
      end = end > held_end ? held_end : end;
    }
    begins[i] = begin;
    ends[i] = end;
  }
  for (std::size_t place = 0; place < places; ++place) window.begin[place] = held_begins[place];
  for (std::size_t place = 0; place < places; ++place) window.end[place] = held_ends[place];
}

ORRERY_CLONES double CommAccounts::work_off(const Group& group, const Row* rows, Window* windows,
                                            std::size_t windows_of_union, std::size_t places, Measure* measures) {
  const Vector zero{};
  Vector late{};
  for (std::size_t slice = 0; slice < slices; ++slice) {
    for (std::size_t of = 0; of < unions; ++of, ++measures) {
      std::array<Vector, most_rows> begins, ends;
      std::size_t n = 0;
      for (std::size_t row = 0; row < group.rows; ++row) {
        if (of == communicating && group.is_compute[row]) continue;
        std::memcpy(&begins[n], &rows[row].begin[slice * lanes], sizeof(Vector));
        std::memcpy(&ends[n], &rows[row].end[slice * lanes], sizeof(Vector));
        ++n;
      }
      for (std::size_t w = 0; w < windows_of_union; ++w, ++windows) {
        if (places == 2) pass<2>(*windows, begins.data(), ends.data(), n);
        if (places == 3) pass<3>(*windows, begins.data(), ends.data(), n);
        if (places == 4) pass<4>(*windows, begins.data(), ends.data(), n);
      }
      Measure measure = *measures;
      for (std::size_t i = 0; i < n; ++i) {
        const Vector begin = begins[i], end = ends[i];
        Vector begin_late = measure.begin - begin, end_late = measure.end - end;
        if (!group.is_full) begin_late = begin < zero ? zero : begin_late;
        if (!group.is_full) end_late = begin < zero ? zero : end_late;
        late = begin_late > late ? begin_late : late;
        late = end_late > late ? end_late : late;
        // Of the intervals without compute one more has begun: at 0.
        const Vector outside = begin - (of == communicating ? measure.end : end);
        measure.outside += outside > zero ? outside : zero;
        measure.begin = begin > measure.begin ? begin : measure.begin;
        measure.end = end > measure.end ? end : measure.end;
      }
      *measures = measure;
    }
  }
  double latest = 0;
  for (std::size_t lane = 0; lane < lanes; ++lane) latest = late[lane] > latest ? late[lane] : latest;
  return latest;
}

CommAccounts::CommAccounts(std::size_t columns, std::size_t depth)
    : columns_(columns),
      places_(std::clamp<std::size_t>(depth, 2, most_places)),
      windows_of_union_((depth + places_ - 1) / places_) {
  groups_.resize((columns + columns_of_group - 1) / columns_of_group);
  rows_.resize(groups_.size() * most_rows);
  measures_.resize(groups_.size() * slices * unions);
  windows_.resize(measures_.size() * windows_of_union_);
}

void CommAccounts::add(const ColumnSet& columns, const double* begin, const double* end, bool is_compute) {
  columns.each_piece(
      [&](std::size_t i, std::size_t column, std::size_t n) { add_piece(column, begin + i, end + i, n, is_compute); });
}

ORRERY_CLONES void CommAccounts::store(Row& row, std::size_t lane, const double* __restrict begin,
                                       const double* __restrict end, std::size_t n) {
  if (n == columns_of_group) {
    for (std::size_t i = 0; i < columns_of_group; i += lanes) {
      Vector begins, ends;
      std::memcpy(&begins, begin + i, sizeof(Vector));
      std::memcpy(&ends, end + i, sizeof(Vector));
      std::memcpy(&row.begin[i], &begins, sizeof(Vector));
      std::memcpy(&row.end[i], &ends, sizeof(Vector));
    }
    return;
  }
  for (std::size_t i = 0; i < n; ++i) row.begin[lane + i] = begin[i];
  for (std::size_t i = 0; i < n; ++i) row.end[lane + i] = end[i];
}

void CommAccounts::add_piece(std::size_t column, const double* begin, const double* end, std::size_t n,
                             bool is_compute) {
  for (std::size_t i = 0; i < n;) {
    const std::size_t number = (column + i) / columns_of_group, lane = (column + i) % columns_of_group;
    const std::size_t some = std::min(columns_of_group - lane, n - i);
    const auto mask = static_cast<std::uint32_t>(((std::uint64_t{1} << some) - 1) << lane);
    Group& group = groups_[number];
    const bool fits = group.rows > 0 && (group.last_row & mask) == 0 && group.is_compute[group.rows - 1u] == is_compute;
    if (!fits) {
      if (group.rows == most_rows) flush(number);
      group.is_compute[group.rows] = is_compute;
      group.last_row = 0;
      ++group.rows;
    }
    Row& row = rows_[number * most_rows + group.rows - 1];
    if (!fits && some < columns_of_group) {
      row.begin.fill(-1);
      row.end.fill(-1);
      group.is_full = false;
    }
    group.last_row |= mask;
    store(row, lane, begin + i, end + i, some);
    i += some;
  }
}

void CommAccounts::flush(std::size_t group) {
  if (groups_[group].rows == 0) return;
  Measure* const measures = &measures_[group * slices * unions];
  const double late =
      work_off(groups_[group], &rows_[group * most_rows], &windows_[group * slices * unions * windows_of_union_],
               windows_of_union_, places_, measures);
  lateness_ = std::max(lateness_, late);
  groups_[group].rows = 0;
  groups_[group].is_full = true;
}

void CommAccounts::finish(double end) {
  const std::vector<double> ends(columns_, end);
  for (std::size_t i = 0; i < windows_of_union_ * places_; ++i) {
    add_comm({0, columns_, columns_}, ends.data(), ends.data());
  }
  for (std::size_t group = 0; group < groups_.size(); ++group) flush(group);
  for (std::size_t i = 0; i < measures_.size(); i += unions) {  // after the last message
    measures_[i + communicating].outside += end - measures_[i + communicating].end;
  }
  end_ = end;
}

}  // namespace orrery
