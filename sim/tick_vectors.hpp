// Arithmetic on whole vectors of times, one element a rank. Times are ticks in doubles: exact up to 2^53 ticks (2.5
// hours), and the maximum of doubles is one instruction for many lanes where 64-bit integers have none. Every operation
// is exact, so the instruction set does not show in the result.
#pragma once

#include <cstddef>

// A function with this is compiled for several instruction sets; the best one is taken when the program is loaded,
// which is too early for ThreadSanitizer.
#if defined(__x86_64__) && defined(__linux__) && !defined(__SANITIZE_THREAD__)
#define ORRERY_CLONES __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define ORRERY_CLONES
#endif

namespace orrery::ticks {

/// Above this, whole numbers are not exact in a double.
inline constexpr double largest = 9007199254740992.0;

void add_into(double* x, const double* y, std::size_t n);                         // x += y
void add_into(double* x, double y, std::size_t n);                                // x += y
void add_difference(double* x, const double* y, const double* z, std::size_t n);  // x += y - z
void min_into(double* x, const double* y, std::size_t n);                         // x = min(x, y)
bool any_less(const double* x, const double* y, std::size_t n);                   // x[i] < y[i] for any i
/// x = y > x ? with : kept, used on the row of times and on those that go with it.
void select_greater(double* row, const double* other_row, const double* x, const double* y, std::size_t n);

}  // namespace orrery::ticks
