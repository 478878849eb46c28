#include "sim/tick_vectors.hpp"

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

ORRERY_CLONES void sort_pairs(double* __restrict x_begin, double* __restrict x_end, double* __restrict y_begin,
                              double* __restrict y_end, std::size_t n) {
  for (std::size_t i = 0; i < n; ++i) {
    const double x = x_begin[i], y = y_begin[i], xe = x_end[i], ye = y_end[i];
    const bool swap = x >= y;
    x_begin[i] = swap ? y : x;
    x_end[i] = swap ? ye : xe;
    y_begin[i] = swap ? x : y;
    y_end[i] = swap ? xe : ye;
  }
}

// As parameters, so that the compiler believes that they do not overlap.
ORRERY_CLONES static double add_overlaps(double* __restrict run_begin, double* __restrict run_end,
                                         double* __restrict gap_begin, double* __restrict gap_end,
                                         double* __restrict last_begin, double* __restrict comm,
                                         double* __restrict exposed, const double* __restrict begin,
                                         const double* __restrict end, std::size_t n) {
  double least = 0;
  for (std::size_t i = 0; i < n; ++i) {
    const double b = begin[i], signed_end = end[i];
    const double since_last = b - last_begin[i];
    least = since_last < least ? since_last : least;
    last_begin[i] = b;
    const bool is_gap = signed_end < 0;
    const double e = signed_end < 0 ? -signed_end : signed_end;
    const double rb = run_begin[i], re = run_end[i], gb = gap_begin[i], ge = gap_end[i];
    // Of communication, only what is not under way already.
    const double rest_begin = b > re ? b : re;
    const double from = is_gap ? b : rest_begin;
    const double other_begin = is_gap ? rb : gb;
    const double other_end = is_gap ? re : ge;
    const double overlap_end = e < other_end ? e : other_end;
    const double overlap_begin = from > other_begin ? from : other_begin;
    const double overlap = overlap_end - overlap_begin;
    exposed[i] += overlap > 0 ? overlap : 0;
    const double grown = e - rest_begin;
    const double grown_run = grown > 0 ? grown : 0;
    comm[i] += is_gap ? 0 : grown_run;
    const double new_run_begin = b > re ? b : rb;
    const double new_run_end = e > re ? e : re;
    run_begin[i] = is_gap ? rb : new_run_begin;
    run_end[i] = is_gap ? re : new_run_end;
    gap_begin[i] = is_gap ? b : gb;
    gap_end[i] = is_gap ? e : ge;
  }
  return least;
}

double add_overlaps(const OverlapSums& sums, const double* begin, const double* end, std::size_t n) {
  return add_overlaps(sums.run_begin, sums.run_end, sums.gap_begin, sums.gap_end, sums.last_begin, sums.comm,
                      sums.exposed, begin, end, n);
}

}  // namespace orrery::ticks
