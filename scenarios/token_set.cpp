#include "scenarios/token_set.hpp"

#include <algorithm>
#include <cassert>
#include <utility>

namespace orrery {

Index floor_div(Index a, Index b) {
  assert(b > 0);
  return a / b - (a % b < 0 ? 1 : 0);
}

Index ceil_div(Index a, Index b) {
  return -floor_div(-a, b);
}

TokenRange TokenRange::clipped(Index first, Index past) const {
  const Index from = std::clamp<Index>(ceil_div(first - begin, stride), 0, count);
  const Index to = std::clamp<Index>(ceil_div(past - begin, stride), from, count);
  return {at(from), to - from, stride};
}

TokenSet::TokenSet(std::vector<TokenRange> ranges) {
  for (const TokenRange& range : ranges) {
    if (range.count == 0) continue;
    assert(ranges_.empty() || range.stride == ranges_.front().stride);
    const bool continues = !ranges_.empty() && range.begin == ranges_.back().last() + range.stride;
    if (continues) {
      ranges_.back().count += range.count;
    } else {
      ranges_.push_back(range);
    }
    size_ += range.count;
  }
}

std::vector<Index> TokenSet::tokens() const {
  std::vector<Index> all;
  all.reserve(static_cast<std::size_t>(size_));
  for (const TokenRange& range : ranges_) {
    for (Index i = 0; i < range.count; ++i) all.push_back(range.at(i));
  }
  return all;
}

TokenSet TokenSet::rows(const std::vector<std::pair<Index, Index>>& runs) const {
  std::vector<TokenRange> picked;
  std::size_t r = 0;
  Index row = 0;  // of the first token of range r
  for (auto [first, past] : runs) {
    assert(first >= 0 && past <= size_);
    while (first < past) {
      const TokenRange& range = ranges_[r];
      const Index until = std::min(past, row + range.count);
      if (first < until) picked.push_back({range.at(first - row), until - first, range.stride});
      first = std::max(first, until);
      if (first < past) {
        row += range.count;
        ++r;
      }
    }
  }
  return TokenSet(std::move(picked));
}

TokenSet concatenate(const std::vector<TokenSet>& sets) {
  std::vector<TokenRange> ranges;
  for (const TokenSet& set : sets) ranges.insert(ranges.end(), set.ranges().begin(), set.ranges().end());
  return TokenSet(std::move(ranges));
}

}  // namespace orrery
