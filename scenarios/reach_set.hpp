// A set of tokens as sorted intervals: what the exact reach is computed on. Its cost grows with the number of
// intervals, not with the number of tokens.
#pragma once

#include <cstddef>
#include <string_view>
#include <vector>

#include "scenarios/token_set.hpp"

namespace orrery {

/// Tokens first, ..., last.
struct Interval {
  Index first = 0;
  Index last = -1;
  bool operator==(const Interval&) const = default;
};

/// Sorted, disjoint intervals with gaps between them, so that equal sets have equal parts.
class IntervalSet {
 public:
  /// unite() refuses to go beyond with std::length_error: other representations are faster there.
  static constexpr std::size_t most_parts = std::size_t{1} << 23;

  IntervalSet() = default;
  explicit IntervalSet(Interval only);
  /// Intervals in any order, which may overlap; empty ones are dropped.
  static IntervalSet merged(std::vector<Interval> parts);

  const std::vector<Interval>& parts() const { return parts_; }
  bool empty() const { return parts_.empty(); }
  Index size() const;
  bool contains(Index token) const;
  bool operator==(const IntervalSet&) const = default;

  /// Adds the tokens of another set.
  void unite(const IntervalSet& other);
  /// Every token t becomes t + low, ..., t + high; what leaves `domain` is dropped.
  IntervalSet moved(Index low, Index high, Interval domain) const;
  /// The same on a ring of `tokens` tokens 0, ..., tokens - 1. Precondition: |low|, |high| < tokens.
  IntervalSet turned(Index low, Index high, Index tokens) const;

 private:
  std::vector<Interval> parts_;
};

/// 64-bit arithmetic that never wraps: std::invalid_argument names `what` and the limit.
Index checked_add(Index a, Index b, std::string_view what);
Index checked_multiply(Index a, Index b, std::string_view what);

/// The smallest x with 2^x >= value, for value >= 1.
int ceil_log2(Index value);

}  // namespace orrery
