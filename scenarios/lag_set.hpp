// Sets of lags: unions of intervals and arithmetic progressions, in a form in which they can be counted.
#pragma once

#include <compare>
#include <vector>

#include "scenarios/token_set.hpp"

namespace orrery {

/// Lags (query position - key position) first, first + step, ..., last. Empty if first > last.
struct LagProgression {
  Index first = 0;
  Index last = -1;
  Index step = 1;

  bool empty() const { return first > last; }
  bool contains(Index lag) const { return lag >= first && lag <= last && (lag - first) % step == 0; }
  /// The lags from `low` to `high`. `last` is a lag of the result, and a single lag has step 1.
  LagProgression clipped(Index low, Index high) const;
  auto operator<=>(const LagProgression&) const = default;
};

/// The lags in both (Chinese remainder theorem).
LagProgression intersection(const LagProgression& a, const LagProgression& b);

/// A progression as a term of a sum over the set. The terms of a set that `cover` are its parts: each lag is in at
/// least one. Steps that do not divide each other may meet in some lags, so that parts overlap; terms that do not cover
/// take out what was counted too often. Summed `times` times each, every lag of the set counts once.
struct LagTerm {
  LagProgression lags;
  Index times = 1;
  bool covers = true;
  auto operator<=>(const LagTerm&) const = default;
};

class LagSet {
 public:
  LagSet() = default;
  /// The union. Intervals that meet are merged; a progression loses the lags that an interval, or a progression whose
  /// step divides its own, has already. Throws std::invalid_argument if what remains overlaps in too many ways.
  explicit LagSet(const std::vector<LagProgression>& progressions);

  const std::vector<LagTerm>& terms() const { return terms_; }
  bool contains(Index lag) const;

 private:
  std::vector<LagTerm> terms_;
};

}  // namespace orrery
