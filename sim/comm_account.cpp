#include "sim/comm_account.hpp"

#include <algorithm>
#include <cstring>

#include "sim/tick_vectors.hpp"

namespace orrery {

// Compiled with -ffinite-math-only -fno-signed-zeros (sim/CMakeLists.txt), as tick_vectors.cpp is.

/// Takes what has fallen out of a window into account.
template <bool is_full>
[[gnu::always_inline]] inline void CommAccounts::measure(Cell* state, Union of, const Vector& begin, const Vector& end,
                                                         Vector& late) {
  const Vector zero{};
  Vector begin_late = state[last_begin].times - begin, end_late = state[last_end].times - end;
  if (!is_full) begin_late = begin < zero ? zero : begin_late;
  if (!is_full) end_late = begin < zero ? zero : end_late;
  late = begin_late > late ? begin_late : late;
  late = end_late > late ? end_late : late;
  // Of the intervals without compute one more has begun: at 0.
  const Vector outside = begin - (of == communicating ? state[last_end].times : end);
  state[time_outside].times += outside > zero ? outside : zero;
  state[last_begin].times = is_full || begin > state[last_begin].times ? begin : state[last_begin].times;
  state[last_end].times = is_full || end > state[last_end].times ? end : state[last_end].times;
}

/// In come the next times, out come those that fall out of the window.
[[gnu::always_inline]] inline void CommAccounts::exchange(Cell* held, std::size_t places, Vector& begin, Vector& end) {
  for (std::size_t place = places; place-- > 0;) {
    const Vector held_begin = held[2 * place].times, held_end = held[2 * place + 1].times;
    held[2 * place].times = begin > held_begin ? begin : held_begin;
    begin = begin > held_begin ? held_begin : begin;
    held[2 * place + 1].times = end > held_end ? end : held_end;
    end = end > held_end ? held_end : end;
  }
}

/// Windows of known depths (not 0) stay in registers.
template <std::size_t known_comm, std::size_t known_comm_or_idle, bool is_full>
[[gnu::always_inline]] inline CommAccounts::Lateness CommAccounts::work_off_in_windows(
    std::span<const Intervals> intervals, Cell* states, Depths depths, std::size_t vectors) {
  constexpr bool known = known_comm > 0;
  const std::size_t comm_places = known ? known_comm : depths.comm;
  const std::size_t places = known ? known_comm_or_idle : depths.comm_or_idle;
  std::array<Cell, fields_of(known_comm)> comm_here;
  std::array<Cell, fields_of(known_comm_or_idle)> here;
  Vector comm_late{}, late{};
  for (std::size_t v = 0; v < vectors; ++v) {
    Cell* const first = states + v * (fields_of(comm_places) + fields_of(places));
    Cell* const second = first + fields_of(comm_places);
    Cell* const comm_state = known ? comm_here.data() : first;
    Cell* const state = known ? here.data() : second;
    for (std::size_t i = 0; known && i < comm_here.size(); ++i) comm_here[i] = first[i];
    for (std::size_t i = 0; known && i < here.size(); ++i) here[i] = second[i];
    for (const Intervals& row : intervals) {
      Vector begin, end;
      std::memcpy(&begin, row.begins + v * lanes, sizeof(Vector));
      std::memcpy(&end, row.ends + v * lanes, sizeof(Vector));
      if (!row.is_compute) {
        Vector comm_begin = begin, comm_end = end;
        exchange(comm_state + window, comm_places, comm_begin, comm_end);
        measure<is_full>(comm_state, communicating, comm_begin, comm_end, comm_late);
      }
      exchange(state + window, places, begin, end);
      measure<is_full>(state, communicating_or_idle, begin, end, late);
    }
    for (std::size_t i = 0; known && i < comm_here.size(); ++i) first[i] = comm_here[i];
    for (std::size_t i = 0; known && i < here.size(); ++i) second[i] = here[i];
  }
  Lateness latest{};
  for (std::size_t lane = 0; lane < lanes; ++lane) {
    latest[communicating] = std::max(latest[communicating], comm_late[lane]);
    latest[communicating_or_idle] = std::max(latest[communicating_or_idle], late[lane]);
  }
  return latest;
}

ORRERY_CLONES CommAccounts::Lateness CommAccounts::work_off(std::span<const Intervals> intervals, Cell* states,
                                                            Depths depths, std::size_t vectors, bool is_full) {
  if (is_full && depths == Depths{1, 2}) return work_off_in_windows<1, 2, true>(intervals, states, depths, vectors);
  if (is_full && depths == Depths{1, 3}) return work_off_in_windows<1, 3, true>(intervals, states, depths, vectors);
  if (is_full && depths == Depths{2, 4}) return work_off_in_windows<2, 4, true>(intervals, states, depths, vectors);
  return work_off_in_windows<0, 0, false>(intervals, states, depths, vectors);
}

CommAccounts::CommAccounts(std::size_t columns, Depths depths)
    : columns_(columns), depths_(depths), fields_(fields_of(depths.comm) + fields_of(depths.comm_or_idle)) {
  groups_.resize((columns + columns_of_group - 1) / columns_of_group);
  states_.resize(groups_.size() * slices * fields_);
}

CommAccounts::Depths CommAccounts::enough() const {
  const auto more = [](std::size_t depth, double late) {
    if (late <= 0) return depth;
    return depth < 4 ? depth + 1 : depth * 2;
  };
  return {more(depths_.comm, lateness_[communicating]), more(depths_.comm_or_idle, lateness_[communicating_or_idle])};
}

void CommAccounts::note(const Lateness& lateness) {
  for (std::size_t of = 0; of < unions; ++of) lateness_[of] = std::max(lateness_[of], lateness[of]);
}

void CommAccounts::add(const ColumnSet& columns, const double* begin, const double* end, bool is_compute) {
  if (rows_.empty()) rows_.resize(groups_.size() * most_rows);
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

void CommAccounts::flush(std::size_t number) {
  Group& group = groups_[number];
  if (group.rows == 0) return;
  std::array<Intervals, most_rows> intervals;
  for (std::size_t i = 0; i < group.rows; ++i) {
    const Row& row = rows_[number * most_rows + i];
    intervals[i] = {row.begin.data(), row.end.data(), 0, columns_of_group, group.is_compute[i]};
  }
  note(work_off({intervals.data(), group.rows}, &states_[number * slices * fields_], depths_, slices, group.is_full));
  group.rows = 0;
  group.is_full = true;
}

/// Between two cuts every interval covers all vectors or none, or there is one vector.
void CommAccounts::count(std::span<const Intervals> intervals) {
  cuts_.clear();
  for (const Intervals& row : intervals) {
    for (const std::size_t column : {row.first, row.first + lanes - 1, row.last, row.last + lanes - 1})
      cuts_.push_back(column / lanes);
  }
  std::sort(cuts_.begin(), cuts_.end());
  cuts_.erase(std::unique(cuts_.begin(), cuts_.end()), cuts_.end());
  for (std::size_t i = 0; i + 1 < cuts_.size(); ++i) count_vectors(intervals, cuts_[i], cuts_[i + 1]);
}

void CommAccounts::count_vectors(std::span<const Intervals> intervals, std::size_t first_vector,
                                 std::size_t last_vector) {
  const std::size_t first = first_vector * lanes, last = last_vector * lanes;
  within_.clear();
  parts_.resize(std::max(parts_.size(), intervals.size()));
  bool is_full = true;
  for (const Intervals& row : intervals) {
    if (row.last <= first || row.first >= last) continue;
    if (row.first <= first && row.last >= last) {
      within_.push_back(
          {row.begins + (first - row.first), row.ends + (first - row.first), first, last, row.is_compute});
      continue;
    }
    is_full = false;
    Row& part = parts_[within_.size()];
    for (std::size_t lane = 0; lane < lanes; ++lane) {
      const std::size_t column = first + lane;
      const bool is_in = column >= row.first && column < row.last;
      part.begin[lane] = is_in ? row.begins[column - row.first] : -1;
      part.end[lane] = is_in ? row.ends[column - row.first] : -1;
    }
    within_.push_back({part.begin.data(), part.end.data(), first, last, row.is_compute});
  }
  if (within_.empty()) return;
  note(work_off(within_, &states_[first_vector * fields_], depths_, last_vector - first_vector, is_full));
}

void CommAccounts::finish(double end) {
  const std::vector<double> ends(columns_, end);
  for (std::size_t i = 0; i < std::max(depths_.comm, depths_.comm_or_idle); ++i)
    add_comm({0, columns_, columns_}, ends.data(), ends.data());
  for (std::size_t group = 0; group < groups_.size(); ++group) flush(group);
  for (std::size_t i = 0; i < states_.size(); i += fields_) {  // after the last message
    states_[i + time_outside].times += end - states_[i + last_end].times;
  }
  end_ = end;
}

}  // namespace orrery
