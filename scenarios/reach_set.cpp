#include "scenarios/reach_set.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cassert>
#include <stdexcept>
#include <utility>

namespace orrery {
namespace {

void check_size(std::size_t parts) {
  if (parts > IntervalSet::most_parts) {
    throw std::length_error(fmt::format(
        "the reachable tokens fall into more than {} intervals (128 MB, the most of this engine), use fewer tokens or "
        "layers, or --engine bitset",
        IntervalSet::most_parts));
  }
}

/// Joins intervals sorted by their begin, in place.
void join(std::vector<Interval>& parts) {
  std::size_t kept = 0;
  for (const Interval& part : parts) {
    if (part.first > part.last) continue;
    if (kept > 0 && part.first <= parts[kept - 1].last + 1) {
      parts[kept - 1].last = std::max(parts[kept - 1].last, part.last);
    } else {
      parts[kept++] = part;
    }
  }
  parts.resize(kept);
}

bool begins_before(const Interval& a, const Interval& b) {
  return a.first < b.first;
}

}  // namespace

IntervalSet::IntervalSet(Interval only) {
  if (only.first <= only.last) parts_.push_back(only);
}

IntervalSet IntervalSet::merged(std::vector<Interval> parts) {
  if (!std::is_sorted(parts.begin(), parts.end(), begins_before)) std::sort(parts.begin(), parts.end(), begins_before);
  IntervalSet set;
  set.parts_ = std::move(parts);
  join(set.parts_);
  return set;
}

Index IntervalSet::size() const {
  Index sum = 0;
  for (const Interval& part : parts_) sum += part.last - part.first + 1;
  return sum;
}

bool IntervalSet::contains(Index token) const {
  const auto part = std::lower_bound(parts_.begin(), parts_.end(), token,
                                     [](const Interval& interval, Index t) { return interval.last < t; });
  return part != parts_.end() && part->first <= token;
}

void IntervalSet::unite(const IntervalSet& other) {
  if (other.empty()) return;
  std::vector<Interval> all;
  all.reserve(parts_.size() + other.parts_.size());
  std::merge(parts_.begin(), parts_.end(), other.parts_.begin(), other.parts_.end(), std::back_inserter(all),
             begins_before);
  join(all);
  check_size(all.size());
  parts_ = std::move(all);
}

IntervalSet IntervalSet::moved(Index low, Index high, Interval domain) const {
  IntervalSet set;
  set.parts_.reserve(parts_.size());
  for (const Interval& part : parts_) {
    set.parts_.push_back({std::max(part.first + low, domain.first), std::min(part.last + high, domain.last)});
  }
  join(set.parts_);
  return set;
}

IntervalSet IntervalSet::turned(Index low, Index high, Index tokens) const {
  assert(low > -tokens && high < tokens && low <= high);
  std::vector<Interval> parts;
  parts.reserve(parts_.size() + 1);
  for (const Interval& part : parts_) {
    if (part.last - part.first + high - low + 1 >= tokens) return IntervalSet(Interval{0, tokens - 1});
    const Index first = part.first + low - floor_div(part.first + low, tokens) * tokens;
    const Index last = first + (part.last - part.first) + (high - low);
    parts.push_back({first, std::min(last, tokens - 1)});
    if (last >= tokens) parts.push_back({0, last - tokens});
  }
  return merged(std::move(parts));
}

Index checked_add(Index a, Index b, std::string_view what) {
  Index sum = 0;
  if (!__builtin_add_overflow(a, b, &sum)) return sum;
  throw std::invalid_argument(fmt::format(
      "{} is too large ({} + {} is past 2^63 - 1, the largest whole number here), use smaller values", what, a, b));
}

Index checked_multiply(Index a, Index b, std::string_view what) {
  Index product = 0;
  if (!__builtin_mul_overflow(a, b, &product)) return product;
  throw std::invalid_argument(fmt::format(
      "{} is too large ({} * {} is past 2^63 - 1, the largest whole number here), use smaller values", what, a, b));
}

int ceil_log2(Index value) {
  int x = 0;
  while (x < 62 && (Index{1} << x) < value) ++x;
  return value > (Index{1} << 62) ? 63 : x;
}

}  // namespace orrery
