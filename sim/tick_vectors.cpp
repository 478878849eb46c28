#include "sim/tick_vectors.hpp"

// Compiled with -ffinite-math-only -fno-signed-zeros (sim/CMakeLists.txt), which makes max and min single instructions;
// there is no NaN, infinity or negative zero here.

// The iterations of the loop that follows do not touch what others write.
#if defined(__clang__)
#define ORRERY_INDEPENDENT _Pragma("clang loop vectorize(assume_safety)")
#else
#define ORRERY_INDEPENDENT _Pragma("GCC ivdep")
#endif

namespace orrery::ticks {

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

ORRERY_CLONES double copy_and_least(double* __restrict x, const double* __restrict y, std::size_t n) {
  double least = largest;
  for (std::size_t i = 0; i < n; ++i) {
    x[i] = y[i];
    least = y[i] < least ? y[i] : least;
  }
  return least;
}

ORRERY_CLONES double copy_and_greatest(double* __restrict x, const double* __restrict y, std::size_t n) {
  double greatest = 0;
  for (std::size_t i = 0; i < n; ++i) {
    x[i] = y[i];
    greatest = y[i] > greatest ? y[i] : greatest;
  }
  return greatest;
}

ORRERY_CLONES void take_greater(double* __restrict x, std::size_t x_apart, const double* __restrict y,
                                std::size_t y_apart, std::size_t rows, std::size_t n) {
  if (rows == 2) {
    double* const x1 = x + x_apart;
    const double* const y1 = y + y_apart;
    for (std::size_t i = 0; i < n; ++i) {
      x1[i] = y[i] > x[i] ? y1[i] : x1[i];
      x[i] = y[i] > x[i] ? y[i] : x[i];
    }
    return;
  }
  if (rows == 3) {
    double *const x1 = x + x_apart, *const x2 = x1 + x_apart;
    const double *const y1 = y + y_apart, *const y2 = y1 + y_apart;
    for (std::size_t i = 0; i < n; ++i) {
      x1[i] = y[i] > x[i] ? y1[i] : x1[i];
      x2[i] = y[i] > x[i] ? y2[i] : x2[i];
      x[i] = y[i] > x[i] ? y[i] : x[i];
    }
    return;
  }
  for (std::size_t r = rows; r-- > 1;) {  // the first one last: it decides
    double* const xr = x + r * x_apart;
    const double* const yr = y + r * y_apart;
    for (std::size_t i = 0; i < n; ++i) xr[i] = y[i] > x[i] ? yr[i] : xr[i];
  }
  for (std::size_t i = 0; i < n; ++i) x[i] = y[i] > x[i] ? y[i] : x[i];
}

namespace {

// The loop once for each small number of sources and rows, so that all of an element stays in registers.
template <std::size_t rows, std::size_t count>
[[gnu::always_inline]] inline LeastAndGreatest advance_few(const Sources& sources, double* __restrict begun,
                                                           double* __restrict out, std::size_t share,
                                                           const double* __restrict by, double constant,
                                                           std::size_t n) {
  const std::size_t apart = sources.apart;
  const double* __restrict const s0 = sources.first_rows[0];
  const double* __restrict const s1 = sources.first_rows[count > 1 ? 1 : 0];
  const double* __restrict const s2 = sources.first_rows[count > 2 ? 2 : 0];
  const double* __restrict const s3 = sources.first_rows[count > 3 ? 3 : 0];
  const std::size_t row2 = rows > 2 ? 2 * apart : apart;
  const double in_row1 = share == 1 ? 1 : 0, in_row2 = share == 2 ? 1 : 0;
  double least = largest, greatest = 0;
  ORRERY_INDEPENDENT
  for (std::size_t i = 0; i < n; ++i) {
    double time = s0[i], part1 = rows > 1 ? s0[apart + i] : 0, part2 = rows > 2 ? s0[row2 + i] : 0;
    if constexpr (count > 1) {
      const double other = s1[i], other1 = rows > 1 ? s1[apart + i] : 0, other2 = rows > 2 ? s1[row2 + i] : 0;
      const bool later = other > time;
      time = later ? other : time;
      part1 = later ? other1 : part1;
      part2 = later ? other2 : part2;
    }
    if constexpr (count > 2) {
      const double other = s2[i], other1 = rows > 1 ? s2[apart + i] : 0, other2 = rows > 2 ? s2[row2 + i] : 0;
      const bool later = other > time;
      time = later ? other : time;
      part1 = later ? other1 : part1;
      part2 = later ? other2 : part2;
    }
    if constexpr (count > 3) {
      const double other = s3[i], other1 = rows > 1 ? s3[apart + i] : 0, other2 = rows > 2 ? s3[row2 + i] : 0;
      const bool later = other > time;
      time = later ? other : time;
      part1 = later ? other1 : part1;
      part2 = later ? other2 : part2;
    }
    begun[i] = time;
    least = time < least ? time : least;
    const double taken = by[i] + constant;
    out[i] = time + taken;
    greatest = time + taken > greatest ? time + taken : greatest;
    if constexpr (rows > 1) out[apart + i] = part1 + taken * in_row1;
    if constexpr (rows > 2) out[row2 + i] = part2 + taken * in_row2;
  }
  return {least, greatest};
}

template <std::size_t rows>
[[gnu::always_inline]] inline LeastAndGreatest advance_few(const Sources& sources, double* begun, double* out,
                                                           std::size_t share, const double* by, double constant,
                                                           std::size_t n) {
  switch (sources.count) {
    case 1:
      return advance_few<rows, 1>(sources, begun, out, share, by, constant, n);
    case 2:
      return advance_few<rows, 2>(sources, begun, out, share, by, constant, n);
    case 3:
      return advance_few<rows, 3>(sources, begun, out, share, by, constant, n);
    default:
      return advance_few<rows, 4>(sources, begun, out, share, by, constant, n);
  }
}

}  // namespace

ORRERY_CLONES LeastAndGreatest advance(const Sources& sources, double* begun, double* out, std::size_t share,
                                       const double* by, double constant, std::size_t n) {
  if (sources.count <= 4 && sources.rows == 1) return advance_few<1>(sources, begun, out, share, by, constant, n);
  if (sources.count <= 4 && sources.rows == 2) return advance_few<2>(sources, begun, out, share, by, constant, n);
  if (sources.count <= 4 && sources.rows == 3) return advance_few<3>(sources, begun, out, share, by, constant, n);
  double least = largest, greatest = 0;
  for (std::size_t i = 0; i < n; ++i) {
    std::size_t latest = 0;
    for (std::size_t s = 1; s < sources.count; ++s) {
      if (sources.first_rows[s][i] > sources.first_rows[latest][i]) latest = s;
    }
    const double taken = by[i] + constant;
    for (std::size_t r = 0; r < sources.rows; ++r) {
      const double before = sources.first_rows[latest][r * sources.apart + i];
      if (r == 0) begun[i] = before;
      out[r * sources.apart + i] = r == 0 || r == share ? before + taken : before;
    }
    least = begun[i] < least ? begun[i] : least;
    greatest = out[i] > greatest ? out[i] : greatest;
  }
  return {least, greatest};
}

ORRERY_CLONES bool all_at_least(const std::int64_t* __restrict x, std::int64_t least, std::size_t n) {
  std::int64_t found = least;
  for (std::size_t i = 0; i < n; ++i) found = x[i] < found ? x[i] : found;
  return found == least;
}

ORRERY_CLONES bool all_equal(const std::int64_t* __restrict x, std::int64_t value, std::size_t n) {
  std::int64_t different = 0;
  for (std::size_t i = 0; i < n; ++i) different |= x[i] ^ value;
  return different == 0;
}

}  // namespace orrery::ticks
