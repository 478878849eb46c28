#include "sim/tick_vectors.hpp"

// Compiled with -ffinite-math-only -fno-signed-zeros (sim/CMakeLists.txt), which makes max and min single instructions;
// there is no NaN, infinity or negative zero here.

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
