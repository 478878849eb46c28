// Arithmetic on whole vectors of times, one element a rank. Times are ticks in doubles: exact up to 2^53 ticks (2.5
// hours), and max and plus of doubles are one instruction for many lanes where 64-bit integers have none. Every
// operation is exact, so the instruction set does not show in the result.
#pragma once

#include <cstddef>
#include <vector>

namespace orrery::ticks {

/// Times above this are not exact in a double.
inline constexpr double largest = 9007199254740992.0;

void max_into(double* x, const double* y, std::size_t n);                            // x = max(x, y)
void min_into(double* x, const double* y, std::size_t n);                            // x = min(x, y)
void add_into(double* x, const double* y, std::size_t n);                            // x += y
void add_into(double* x, double y, std::size_t n);                                   // x += y
void add_difference(double* x, const double* y, const double* z, std::size_t n);     // x += y - z
void sum(double* x, const double* y, const double* z, std::size_t n);                // x = y + z
void sum(double* x, const double* y, double z, std::size_t n);                       // x = y + z
bool any_less(const double* x, const double* y, std::size_t n);                      // x[i] < y[i] for any i

/// The measure of a union of intervals, one union a column, whose intervals come nearly in the order of their starts:
/// the latest `depth` are held back and sorted.
class Unions {
 public:
  /// depth: 4, 8, 16 or 64.
  Unions(std::size_t columns, int depth);

  /// Adds [begin[i], end[i]) to column first + i, i < n.
  void add(const double* begin, const double* end, std::size_t first, std::size_t n);
  /// Adds what is held back. False if an interval came so late that the measure is wrong.
  bool finish();
  const std::vector<double>& measure() const { return measure_; }

 private:
  std::size_t columns_;
  int depth_;
  std::vector<double> begins_, ends_;  // depth x columns, ascending by begin
  std::vector<double> covered_to_, last_begin_, measure_, late_;
};

}  // namespace orrery::ticks
