#include "sim/tick_vectors.hpp"

#include <algorithm>
#include <stdexcept>

// Compiled with -ffinite-math-only -fno-signed-zeros (sim/CMakeLists.txt), which makes max and min single instructions;
// there is no NaN, infinity or negative zero here.
#if defined(__x86_64__) && defined(__linux__)
#define ORRERY_CLONES __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define ORRERY_CLONES
#endif

namespace orrery::ticks {

ORRERY_CLONES void max_into(double* __restrict x, const double* __restrict y, std::size_t n) {
  for (std::size_t i = 0; i < n; ++i) x[i] = x[i] > y[i] ? x[i] : y[i];
}

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

ORRERY_CLONES void sum(double* __restrict x, const double* __restrict y, const double* __restrict z, std::size_t n) {
  for (std::size_t i = 0; i < n; ++i) x[i] = y[i] + z[i];
}

ORRERY_CLONES void sum(double* __restrict x, const double* __restrict y, double z, std::size_t n) {
  for (std::size_t i = 0; i < n; ++i) x[i] = y[i] + z;
}

ORRERY_CLONES bool any_less(const double* __restrict x, const double* __restrict y, std::size_t n) {
  double worst = 0;
  for (std::size_t i = 0; i < n; ++i) worst = x[i] - y[i] < worst ? x[i] - y[i] : worst;
  return worst < 0;
}

namespace {

/// All arrays start at the first column; rows of begins and ends are `columns` apart.
struct Window {
  double* begins;
  double* ends;
  double* covered_to;
  double* last_begin;
  double* measure;
  double* late;
  std::size_t columns;
};

// The new interval sinks through the window, and the one with the earliest begin drops out and is counted.
template <int depth>
__attribute__((always_inline)) inline void add_sorted(const Window& w, const double* __restrict begin,
                                                      const double* __restrict end, std::size_t n) {
  for (std::size_t i = 0; i < n; ++i) {
    double b = begin[i], e = end[i];
    double out_b = 0, out_e = 0;
#pragma GCC unroll 64
    for (int k = 0; k < depth; ++k) {
      const std::size_t at = static_cast<std::size_t>(k) * w.columns + i;
      const double slot_b = w.begins[at], slot_e = w.ends[at];
      const bool swap = slot_b > b;
      const double low_b = swap ? b : slot_b, low_e = swap ? e : slot_e;
      b = swap ? slot_b : b;
      e = swap ? slot_e : e;
      if (k == 0) {
        out_b = low_b;
        out_e = low_e;
      } else {
        w.begins[at - w.columns] = low_b;
        w.ends[at - w.columns] = low_e;
      }
    }
    w.begins[static_cast<std::size_t>(depth - 1) * w.columns + i] = b;
    w.ends[static_cast<std::size_t>(depth - 1) * w.columns + i] = e;

    const double covered = w.covered_to[i];
    const double from = out_b > covered ? out_b : covered;
    const double gain = out_e - from;
    w.measure[i] += gain > 0 ? gain : 0;
    w.covered_to[i] = out_e > covered ? out_e : covered;
    const double lateness = w.last_begin[i] - out_b;
    w.late[i] = lateness > w.late[i] ? lateness : w.late[i];
    w.last_begin[i] = out_b;
  }
}

ORRERY_CLONES void add_4(const Window& w, const double* begin, const double* end, std::size_t n) {
  add_sorted<4>(w, begin, end, n);
}
ORRERY_CLONES void add_8(const Window& w, const double* begin, const double* end, std::size_t n) {
  add_sorted<8>(w, begin, end, n);
}
ORRERY_CLONES void add_16(const Window& w, const double* begin, const double* end, std::size_t n) {
  add_sorted<16>(w, begin, end, n);
}
ORRERY_CLONES void add_64(const Window& w, const double* begin, const double* end, std::size_t n) {
  add_sorted<64>(w, begin, end, n);
}

}  // namespace

Unions::Unions(std::size_t columns, int depth)
    : columns_(columns),
      depth_(depth),
      begins_(columns * static_cast<std::size_t>(depth), -1),
      ends_(begins_.size(), -1),
      covered_to_(columns),
      last_begin_(columns, -1),
      measure_(columns),
      late_(columns) {}

void Unions::add(const double* begin, const double* end, std::size_t first, std::size_t n) {
  const Window window{begins_.data() + first,  ends_.data() + first, covered_to_.data() + first,
                      last_begin_.data() + first, measure_.data() + first, late_.data() + first, columns_};
  switch (depth_) {
    case 4:
      return add_4(window, begin, end, n);
    case 8:
      return add_8(window, begin, end, n);
    case 16:
      return add_16(window, begin, end, n);
    case 64:
      return add_64(window, begin, end, n);
    default:
      throw std::logic_error("no such depth");
  }
}

bool Unions::finish() {
  const std::vector<double> last(columns_, largest);
  for (int i = 0; i < depth_; ++i) add(last.data(), last.data(), 0, columns_);
  return *std::max_element(late_.begin(), late_.end()) <= 0;
}

}  // namespace orrery::ticks
