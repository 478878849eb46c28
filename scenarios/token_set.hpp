// Sets of token positions as arithmetic progressions, so that a million tokens cost as much as ten.
#pragma once

#include <compare>
#include <cstdint>
#include <utility>
#include <vector>

namespace orrery {

using Index = std::int64_t;

Index floor_div(Index a, Index b);  // b > 0
Index ceil_div(Index a, Index b);   // b > 0

/// Tokens begin, begin + stride, ...: `count` of them.
struct TokenRange {
  Index begin = 0;
  Index count = 0;
  Index stride = 1;

  Index at(Index i) const { return begin + i * stride; }
  Index last() const { return at(count - 1); }  // count > 0
  /// The tokens t of this range with first <= t < past.
  TokenRange clipped(Index first, Index past) const;
  auto operator<=>(const TokenRange&) const = default;
};

/// Disjoint ranges, all of the same stride, in local order: row i of a rank's tensors is the i-th token of its set.
class TokenSet {
 public:
  TokenSet() = default;
  explicit TokenSet(std::vector<TokenRange> ranges);

  const std::vector<TokenRange>& ranges() const { return ranges_; }
  Index size() const { return size_; }
  bool empty() const { return size_ == 0; }
  std::vector<Index> tokens() const;  // for tests and tiny problems

  /// Rows [first, first + count) of this set. Precondition: they exist.
  TokenSet rows(Index first, Index count) const { return rows({{first, first + count}}); }
  /// Rows [first, past) of each pair; the pairs ascend and do not overlap.
  TokenSet rows(const std::vector<std::pair<Index, Index>>& runs) const;

 private:
  std::vector<TokenRange> ranges_;
  Index size_ = 0;
};

/// The tokens of all sets, in order. Ranges that continue each other are joined.
TokenSet concatenate(const std::vector<TokenSet>& sets);

}  // namespace orrery
