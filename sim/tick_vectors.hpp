// Arithmetic on whole vectors of times, one element a rank. Times are ticks in doubles: exact up to 2^53 ticks (2.5
// hours), and the maximum of doubles is one instruction for many lanes where 64-bit integers have none. Every operation
// is exact, so the instruction set does not show in the result.
#pragma once

#include <array>
#include <boost/align/aligned_allocator.hpp>
#include <cstddef>
#include <cstdint>
#include <vector>

// A function with this is compiled for several instruction sets; the best one is taken when the program is loaded,
// which is too early for ThreadSanitizer. The first has AVX-512 with products of 64-bit integers (DQ), which g++ 12 and
// clang 14 have no name for in common.
#if !defined(__x86_64__) || !defined(__linux__) || defined(__SANITIZE_THREAD__)
#define ORRERY_CLONES
#elif defined(__clang__)
#define ORRERY_CLONES __attribute__((target_clones("avx512dq", "avx2", "default")))
#else
#define ORRERY_CLONES __attribute__((target_clones("arch=x86-64-v4", "avx2", "default")))
#endif

namespace orrery::ticks {

/// Begins with a line of the cache: eight doubles that cross lines are slower to load and to store, which was 30 % of
/// the time of a ring of 16,384 ranks.
using Vector = std::vector<double, boost::alignment::aligned_allocator<double, 64>>;

/// Above this, whole numbers are not exact in a double.
inline constexpr double largest = 9007199254740992.0;

void add_into(double* x, const double* y, std::size_t n);                         // x += y
void add_into(double* x, double y, std::size_t n);                                // x += y
void add_difference(double* x, const double* y, const double* z, std::size_t n);  // x += y - z
bool any_less(const double* x, const double* y, std::size_t n);                   // x[i] < y[i] for any i
double copy_and_least(double* x, const double* y, std::size_t n);                 // x = y; its least, `largest` if none
double copy_and_greatest(double* x, const double* y, std::size_t n);              // x = y; its greatest, 0 if none
/// Rows of x and y, so many doubles apart. Where y is greater in the first row, x = y in all of them.
void take_greater(double* x, std::size_t x_apart, const double* y, std::size_t y_apart, std::size_t rows,
                  std::size_t n);
/// Of all sources, rows of which lie `apart` doubles apart, the rows of the one that is the greatest in its first row;
/// of several the first.
struct Sources {
  static constexpr std::size_t most = 7;
  std::array<const double*, most> first_rows;
  std::size_t count = 0;
  std::size_t apart = 0;
  std::size_t rows = 1;
};
struct LeastAndGreatest {
  double least, greatest;
};
/// begun = greatest of the sources; out = that + by + constant, in the first row and in the row `share` (0: in no
/// other). Returns the least of begun and the greatest of out. `out` is not one of the sources.
LeastAndGreatest advance(const Sources& sources, double* begun, double* out, std::size_t share, const double* by,
                         double constant, std::size_t n);
bool all_at_least(const std::int64_t* x, std::int64_t least, std::size_t n);
bool all_equal(const std::int64_t* x, std::int64_t value, std::size_t n);

}  // namespace orrery::ticks
