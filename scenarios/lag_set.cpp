#include "scenarios/lag_set.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <numeric>
#include <stdexcept>
#include <utility>

namespace orrery {
namespace {

// Inclusion and exclusion can double the terms with every progression. Steps that meet within a sequence often enough
// to get here are no attention pattern that anybody wrote down.
constexpr std::size_t most_terms = 4096;

/// x with a * x == 1 (mod m), for gcd(a, m) == 1; extended Euclid. Returns 0 for m == 1.
Index inverse_modulo(Index a, Index m) {
  Index old_r = ((a % m) + m) % m, r = m, old_x = 1, x = 0;
  while (r != 0) {
    const Index quotient = old_r / r;
    old_r = std::exchange(r, old_r - quotient * r);
    old_x = std::exchange(x, old_x - quotient * x);
  }
  return ((old_x % m) + m) % m;
}

Index multiply_modulo(Index a, Index b, Index m) {
  __extension__ using Wide = __int128;
  return static_cast<Index>(static_cast<Wide>(a) * b % m);
}

std::vector<LagProgression> merged_intervals(std::vector<LagProgression> intervals) {
  std::sort(intervals.begin(), intervals.end());
  std::vector<LagProgression> merged;
  for (const LagProgression& interval : intervals) {
    if (!merged.empty() && interval.first <= merged.back().last + 1) {
      merged.back().last = std::max(merged.back().last, interval.last);
    } else {
      merged.push_back(interval);
    }
  }
  return merged;
}

/// Adds to `parts` what `progression` has beyond those parts that hold all its lags in their range: intervals and
/// progressions whose step divides its own.
void add_beyond(std::vector<LagProgression>& parts, const LagProgression& progression) {
  std::vector<LagProgression> rest = {progression};
  for (const LagProgression& part : parts) {
    const bool holds = progression.step % part.step == 0 && (progression.first - part.first) % part.step == 0;
    if (!holds) continue;
    std::vector<LagProgression> outside;
    for (const LagProgression& piece : rest) {
      for (const LagProgression& side :
           {piece.clipped(piece.first, part.first - 1), piece.clipped(part.last + 1, piece.last)}) {
        if (!side.empty()) outside.push_back(side);
      }
    }
    rest = std::move(outside);
  }
  parts.insert(parts.end(), rest.begin(), rest.end());
}

}  // namespace

LagProgression LagProgression::clipped(Index low, Index high) const {
  LagProgression p = *this;
  if (p.first < low) p.first += step == 1 ? low - p.first : ceil_div(low - p.first, step) * step;
  p.last = std::min(p.last, high);
  if (p.first > p.last) return {};
  if (step > 1) p.last -= (p.last - p.first) % step;
  if (p.first == p.last) p.step = 1;
  return p;
}

LagProgression intersection(const LagProgression& a, const LagProgression& b) {
  const Index low = std::max(a.first, b.first), high = std::min(a.last, b.last);
  if (low > high) return {};
  if (a.step == 1) return b.clipped(low, high);
  if (b.step == 1) return a.clipped(low, high);
  const Index gcd = std::gcd(a.step, b.step);
  const Index distance = b.first - a.first;
  if (distance % gcd != 0) return {};
  // a.first + a.step * x == b.first (mod b.step)
  const Index modulus = b.step / gcd;
  const Index wanted = ((distance / gcd) % modulus + modulus) % modulus;
  const Index x = multiply_modulo(wanted, inverse_modulo(a.step / gcd, modulus), modulus);
  __extension__ using Wide = __int128;
  const Wide step = static_cast<Wide>(a.step) * modulus;
  const Wide first = static_cast<Wide>(a.first) + static_cast<Wide>(a.step) * x;
  if (first > high) return {};
  const Index start = static_cast<Index>(first);
  // A step beyond the range leaves one lag, the first that is not below `low`.
  const Wide room = static_cast<Wide>(high) - first;
  if (step > room) return LagProgression{start, start, 1}.clipped(low, high);
  return LagProgression{start, high, static_cast<Index>(step)}.clipped(low, high);
}

LagSet::LagSet(const std::vector<LagProgression>& progressions) {
  std::vector<LagProgression> intervals, others;
  for (const LagProgression& given : progressions) {
    const LagProgression p = given.clipped(given.first, given.last);
    if (!p.empty()) (p.step == 1 ? intervals : others).push_back(p);
  }
  std::vector<LagProgression> parts = merged_intervals(std::move(intervals));
  std::sort(others.begin(), others.end(), [](const LagProgression& a, const LagProgression& b) {
    return std::pair(a.step, a) < std::pair(b.step, b);
  });
  for (const LagProgression& progression : others) add_beyond(parts, progression);

  // Inclusion and exclusion of what may still overlap.
  std::map<LagProgression, Index> corrections;
  for (std::size_t i = 0; i < parts.size(); ++i) {
    std::map<LagProgression, Index> added;
    const auto take_out = [&](const LagProgression& counted, Index times) {
      const LagProgression common = intersection(counted, parts[i]);
      if (!common.empty()) added[common] -= times;
    };
    for (std::size_t j = 0; j < i; ++j) take_out(parts[j], 1);
    for (const auto& [lags, times] : corrections) take_out(lags, times);
    for (const auto& [lags, times] : added) {
      if ((corrections[lags] += times) == 0) corrections.erase(lags);
    }
    if (corrections.size() > most_terms) {
      throw std::invalid_argument(
          fmt::format("the skips of a layer meet in more than {} ways (where periods that do not divide each other "
                      "share keys, each way is counted apart), use fewer periods or multiples of each other",
                      most_terms));
    }
  }
  for (const LagProgression& part : parts) terms_.push_back({part, 1, true});
  for (const auto& [lags, times] : corrections) terms_.push_back({lags, times, false});
}

bool LagSet::contains(Index lag) const {
  return std::any_of(terms_.begin(), terms_.end(),
                     [&](const LagTerm& term) { return term.covers && term.lags.contains(lag); });
}

}  // namespace orrery
