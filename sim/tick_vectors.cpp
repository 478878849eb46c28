#include "sim/tick_vectors.hpp"

#include <algorithm>

// Compiled with -ffinite-math-only -fno-signed-zeros (sim/CMakeLists.txt), which makes max and min single instructions;
// there is no NaN, infinity or negative zero here.
#if defined(__x86_64__) && defined(__linux__)
#define ORRERY_CLONES __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define ORRERY_CLONES
#endif

namespace orrery::ticks {

ORRERY_CLONES void min_into(double* __restrict x, const double* __restrict y, std::size_t n) {
  for (std::size_t i = 0; i < n; ++i) x[i] = x[i] < y[i] ? x[i] : y[i];
}

ORRERY_CLONES void add_into(double* __restrict x, const double* __restrict y, std::size_t n) {
  for (std::size_t i = 0; i < n; ++i) x[i] += y[i];
}

ORRERY_CLONES void add_into(double* __restrict x, double y, std::size_t n) {
  for (std::size_t i = 0; i < n; ++i) x[i] += y;
}

ORRERY_CLONES void add_difference(double* __restrict x, const double* __restrict y, const double* __restrict z,
                                  std::size_t n) {
  for (std::size_t i = 0; i < n; ++i) x[i] += y[i] - z[i];
}

ORRERY_CLONES bool any_less(const double* __restrict x, const double* __restrict y, std::size_t n) {
  double worst = 0;
  for (std::size_t i = 0; i < n; ++i) worst = x[i] - y[i] < worst ? x[i] - y[i] : worst;
  return worst < 0;
}

ORRERY_CLONES void select_greater(double* __restrict row, const double* __restrict other_row,
                                  const double* __restrict x, const double* __restrict y, std::size_t n) {
  for (std::size_t i = 0; i < n; ++i) row[i] = y[i] > x[i] ? other_row[i] : row[i];
}

Unions::Unions(std::size_t columns, std::size_t depth)
    : depth_(depth), columns_(columns), windows_(columns * depth, Interval{-1, -1}) {}

/// The window is a ring whose oldest entry is the earliest: the new interval takes its place and moves to its own.
void Unions::add(std::size_t column, double begin, double end) {
  const Interval interval{begin, end};
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

void Unions::count(Column& c, Interval interval) {
  const double from = std::max(interval.begin, c.covered_to);
  if (interval.end > from) {
    c.measure += interval.end - from;
    c.covered_to = interval.end;
  }
  late_ = late_ || interval.begin < c.last_begin;
  c.last_begin = interval.begin;
}

bool Unions::finish() {
  for (std::size_t column = 0; column < columns_.size(); ++column) {
    for (std::size_t i = 0; i < depth_; ++i) add(column, largest, largest);
  }
  return !late_;
}

}  // namespace orrery::ticks
