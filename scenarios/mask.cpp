#include "scenarios/mask.hpp"

#include <algorithm>
#include <cassert>

namespace orrery {

Mask::Mask(Index tokens, bool causal, std::vector<LagProgression> lags, Index sink, const std::vector<Index>& documents)
    : tokens_(tokens), causal_(causal), sink_(sink) {
  const LagProgression everything{causal ? 0 : 1 - tokens, tokens - 1, 1};
  for (LagProgression& progression : lags) progression = progression.clipped(everything.first, everything.last);
  lags_ = LagSet(lags);
  everything_ = LagSet({everything});
  Index end = 0;
  for (const Index length : documents) document_ends_.push_back(end += length);
  if (documents.empty()) document_ends_.push_back(tokens);
  assert(document_ends_.back() == tokens);
}

bool Mask::allows(Index query, Index key) const {
  const auto document_of = [&](Index t) { return std::upper_bound(document_ends_.begin(), document_ends_.end(), t); };
  const auto document = document_of(query);
  if (document != document_of(key)) return false;
  const Index lag = query - key;
  if (causal_ && lag < 0) return false;
  const Index begin = document == document_ends_.begin() ? 0 : *(document - 1);
  return key < begin + sink_ || lags_.contains(lag);
}

std::vector<Mask::Piece> Mask::pieces(const std::vector<TokenRange>& ranges, bool cut_sinks) const {
  std::vector<Piece> pieces;
  Index place = 0;
  for (std::size_t r = 0; r < ranges.size(); ++r) {
    const TokenRange& range = ranges[r];
    const auto first = std::upper_bound(document_ends_.begin(), document_ends_.end(), range.begin);
    for (auto document = static_cast<std::size_t>(first - document_ends_.begin());
         document < document_ends_.size() && document_begin(document) <= range.last(); ++document) {
      const Index begin = document_begin(document), end = document_ends_[document];
      const Index sink_end = cut_sinks ? std::min(begin + sink_, end) : begin;
      for (const bool sink : {true, false}) {
        const TokenRange tokens = sink ? range.clipped(begin, sink_end) : range.clipped(sink_end, end);
        if (tokens.count > 0) pieces.push_back({document, place, r, sink, tokens});
        place += tokens.count;
      }
    }
  }
  return pieces;
}

std::vector<Mask::Piece> Mask::key_pieces(const std::vector<TokenRange>& ranges) const {
  std::vector<Piece> keys = pieces(ranges, true);
  std::stable_sort(keys.begin(), keys.end(), [](const Piece& a, const Piece& b) { return a.document < b.document; });
  return keys;
}

LocalMask Mask::local(const TokenSet& queries, const TokenSet& keys) const {
  return local(query_pieces(queries.ranges()), key_pieces(keys.ranges()), [](const Piece& q, const Piece& k) {
    assert(q.tokens.stride == k.tokens.stride);
    return std::optional(q.tokens.begin - k.tokens.begin);
  });
}

Index Mask::keys_of_last(const TokenSet& keys) const {
  if (keys.empty()) return 0;
  const Index stride = keys.ranges().front().stride;  // that of all of them
  return pairs(TokenSet({{tokens_ - 1, 1, stride}}), keys);
}

TokenSet Mask::keys_needed(const TokenSet& queries, const TokenSet& keys) const {
  return keys.rows(local(queries, keys).columns());
}

}  // namespace orrery
