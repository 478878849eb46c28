#include "sim/comm_account.hpp"

#include <algorithm>

#include "sim/tick_vectors.hpp"

namespace orrery {

/// Each interval is inserted into the window, from the latest down, behind those with the same begin; what falls out is
/// the earliest. So intervals are counted by their begins, and each can overlap only the latest stretch of the other
/// kind.
ORRERY_CLONES double CommAccounts::work_off(State& s, Intervals* window, std::size_t depth, const Intervals* intervals,
                                            std::size_t n) {
  Group least{};
  for (std::size_t i = 0; i < n; ++i) {
    Intervals x;
    for (std::size_t l = 0; l < lanes; ++l) x.begin[l] = intervals[i].begin[l];
    for (std::size_t l = 0; l < lanes; ++l) x.end[l] = intervals[i].end[l];
    for (std::size_t place = depth; place-- > 0;) {
      Intervals& held = window[place];
      for (std::size_t l = 0; l < lanes; ++l) {
        const double begin = x.begin[l], end = x.end[l], held_begin = held.begin[l], held_end = held.end[l];
        const bool swap = begin >= held_begin;
        held.begin[l] = swap ? begin : held_begin;
        held.end[l] = swap ? end : held_end;
        x.begin[l] = swap ? held_begin : begin;
        x.end[l] = swap ? held_end : end;
      }
    }
    for (std::size_t l = 0; l < lanes; ++l) {
      const double begin = x.begin[l], end = x.end[l] < 0 ? -x.end[l] : x.end[l];
      const bool is_gap = x.end[l] < 0;
      const double since_last = begin < 0 ? 0 : begin - s.last_begin[l];
      least[l] = since_last < least[l] ? since_last : least[l];
      s.last_begin[l] = begin > s.last_begin[l] ? begin : s.last_begin[l];
      const double run_begin = s.run_begin[l], run_end = s.run_end[l];
      const double gap_begin = s.gap_begin[l], gap_end = s.gap_end[l];
      // Of communication, only what is not under way already.
      const double rest_begin = begin > run_end ? begin : run_end;
      const double from = is_gap ? begin : rest_begin;
      const double other_begin = is_gap ? run_begin : gap_begin;
      const double other_end = is_gap ? run_end : gap_end;
      const double overlap = (end < other_end ? end : other_end) - (from > other_begin ? from : other_begin);
      s.exposed[l] += overlap > 0 ? overlap : 0;
      const double grown = end > rest_begin ? end - rest_begin : 0;
      s.comm[l] += is_gap ? 0 : grown;
      const double new_run_begin = begin > run_end ? begin : run_begin;
      const double new_run_end = end > run_end ? end : run_end;
      s.run_begin[l] = is_gap ? run_begin : new_run_begin;
      s.run_end[l] = is_gap ? run_end : new_run_end;
      s.gap_begin[l] = is_gap ? begin : gap_begin;
      s.gap_end[l] = is_gap ? end : gap_end;
    }
  }
  double worst = 0;
  for (const double late : least) worst = late < worst ? late : worst;
  return worst;
}

CommAccounts::CommAccounts(std::size_t columns, std::size_t depth) : depth_(depth), filled_(columns) {
  const std::size_t groups = (columns + lanes - 1) / lanes;
  Intervals none{};
  none.begin.fill(-1);
  states_.resize(groups);
  for (State& state : states_) state.last_begin.fill(-1);
  window_.assign(groups * depth, none);
  pending_.assign(groups * most_pending, none);
}

void CommAccounts::add(const ColumnSet& columns, const double* begin, const double* end, double sign) {
  columns.each_piece(
      [&](std::size_t i, std::size_t column, std::size_t n) { add_piece(column, begin + i, end + i, sign, n); });
}

void CommAccounts::add_piece(std::size_t column, const double* begin, const double* end, double sign, std::size_t n) {
  const auto first = filled_.begin() + static_cast<std::ptrdiff_t>(column);
  std::uint8_t row = *std::max_element(first, first + static_cast<std::ptrdiff_t>(n));
  if (row == most_pending) {
    flush();
    row = 0;
  }
  std::fill_n(first, n, static_cast<std::uint8_t>(row + 1));
  for (std::size_t i = 0; i < n;) {
    const std::size_t lane = (column + i) % lanes, some = std::min(lanes - lane, n - i);
    Intervals& to = pending_[(column + i) / lanes * most_pending + row];
    if (some == lanes) {
      for (std::size_t j = 0; j < lanes; ++j) to.begin[j] = begin[i + j];
      for (std::size_t j = 0; j < lanes; ++j) to.end[j] = sign * end[i + j];
    } else {
      for (std::size_t j = 0; j < some; ++j) to.begin[lane + j] = begin[i + j];
      for (std::size_t j = 0; j < some; ++j) to.end[lane + j] = sign * end[i + j];
    }
    i += some;
  }
}

void CommAccounts::flush() {
  if (filled_.empty()) return;
  const std::size_t rows = *std::max_element(filled_.begin(), filled_.end());
  if (rows == 0) return;
  std::fill(filled_.begin(), filled_.end(), std::uint8_t{0});
  for (std::size_t group = 0; group < states_.size(); ++group) {
    Intervals* const pending = &pending_[group * most_pending];
    lateness_ = std::min(lateness_, work_off(states_[group], &window_[group * depth_], depth_, pending, rows));
    for (std::size_t row = 0; row < rows; ++row) {
      pending[row].begin.fill(-1);
      pending[row].end.fill(0);
    }
  }
}

void CommAccounts::finish(double end) {
  const std::vector<double> ends(filled_.size(), end), later(filled_.size(), end + 1);
  for (std::size_t i = 0; i < depth_; ++i) add_gap({0, filled_.size(), filled_.size()}, ends.data(), later.data());
  flush();
}

}  // namespace orrery
