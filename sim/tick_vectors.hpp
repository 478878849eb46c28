// Arithmetic on whole vectors of times, one element a rank. Times are ticks in doubles: exact up to 2^53 ticks (2.5
// hours), and the maximum of doubles is one instruction for many lanes where 64-bit integers have none. Every operation
// is exact, so the instruction set does not show in the result.
#pragma once

#include <cstddef>

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

/// For each pair of intervals that begin at x_begin and y_begin: x becomes the earlier one and y the other, which of
/// equal ones is x.
void sort_pairs(double* x_begin, double* x_end, double* y_begin, double* y_end, std::size_t n);

/// What add_overlaps goes on from, one element a column: see CommAccounts.
struct OverlapSums {
  double *run_begin, *run_end;  // the latest stretch with communication
  double *gap_begin, *gap_end;  // the latest stretch without compute
  double* last_begin;
  double *comm, *exposed;  // how long the first lasted in all, and the first and the second at once
};
/// Adds an interval to every column, with communication or (if `end` is negative) without compute up to -end. Returns
/// the least of begin - last_begin, at most 0.
double add_overlaps(const OverlapSums& sums, const double* begin, const double* end, std::size_t n);

}  // namespace orrery::ticks
