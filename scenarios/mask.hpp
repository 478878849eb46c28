// Which keys a query scores in one layer, as a set of lags, and how many such pairs lie between two sets of tokens:
// exactly, by interval arithmetic, never by looking at n^2 pairs.
#pragma once

#include <compare>
#include <cstddef>
#include <numeric>
#include <optional>
#include <vector>

#include "scenarios/lag_set.hpp"
#include "scenarios/local_mask.hpp"
#include "scenarios/token_set.hpp"

namespace orrery {

class Mask {
 public:
  /// `documents` are the lengths of packed documents and add up to `tokens` (empty: one document). A query sees the
  /// keys of its own document at any lag of `lags`, and the first `sink` tokens of its document. Causal: no negative
  /// lags. The lags may overlap; no pair is counted twice. Preconditions: tokens in [1, 2^31], steps >= 1. Throws
  /// std::invalid_argument if the lags overlap in too many ways.
  Mask(Index tokens, bool causal, std::vector<LagProgression> lags, Index sink, const std::vector<Index>& documents);

  /// The definition: does the query at position q score the key at position k?
  bool allows(Index query, Index key) const;

  /// Row i is the i-th of the queries, column j the j-th of the keys.
  LocalMask local(const TokenSet& queries, const TokenSet& keys) const;

  /// Number of allowed pairs between the two sets.
  Index pairs(const TokenSet& queries, const TokenSet& keys) const { return local(queries, keys).pairs(); }

  /// The keys that at least one of the queries scores, in the order of `keys`.
  TokenSet keys_needed(const TokenSet& queries, const TokenSet& keys) const;

  /// How many of these keys the sequence's last token scores, as a decode step reads them.
  Index keys_of_last(const TokenSet& keys) const;

  Index tokens() const { return tokens_; }
  bool causal() const { return causal_; }
  bool has_sinks() const { return sink_ > 0; }

  /// A run of tokens that no border of a document or of its sinks cuts.
  struct Piece {
    std::size_t document = 0;
    Index place = 0;        // of the first token in its set
    std::size_t range = 0;  // of the set
    bool sink = false;
    TokenRange tokens;
    auto operator<=>(const Piece&) const = default;
  };
  /// The tokens of the ranges, laid one after the other, as pieces. Only for keys it matters where sinks end.
  std::vector<Piece> query_pieces(const std::vector<TokenRange>& ranges) const { return pieces(ranges, false); }
  std::vector<Piece> key_pieces(const std::vector<TokenRange>& ranges) const;  // in the order of documents

  /// Row and column of a pair are its places. `lag_between(query piece, key piece)` is the lag of their first tokens;
  /// pieces for which it is empty stay out.
  template <class Lag>
  LocalMask local(const std::vector<Piece>& queries, const std::vector<Piece>& keys, Lag lag_between) const;

 private:
  std::vector<Piece> pieces(const std::vector<TokenRange>& ranges, bool cut_sinks) const;
  Index document_begin(std::size_t document) const { return document == 0 ? 0 : document_ends_[document - 1]; }

  Index tokens_;
  bool causal_;
  LagSet lags_;
  LagSet everything_;
  Index sink_;
  std::vector<Index> document_ends_;
};

template <class Lag>
LocalMask Mask::local(const std::vector<Piece>& queries, const std::vector<Piece>& keys, Lag lag_between) const {
  const auto tokens_of = [](const std::vector<Piece>& pieces) {
    return std::accumulate(pieces.begin(), pieces.end(), Index{0},
                           [](Index sum, const Piece& piece) { return sum + piece.tokens.count; });
  };
  LocalMask local(tokens_of(queries), tokens_of(keys));
  auto first = keys.begin();
  std::size_t document = 0;
  for (const Piece& q : queries) {
    if (keys.empty() || q.document < keys.front().document || q.document > keys.back().document) continue;
    if (q.document < document) first = keys.begin();
    document = q.document;
    while (first != keys.end() && first->document < document) ++first;
    for (auto k = first; k != keys.end() && k->document == document; ++k) {
      const std::optional<Index> lag = lag_between(q, *k);
      if (!lag) continue;
      const MaskBlock rectangle{.row = q.place, .rows = q.tokens.count, .column = k->place, .columns = k->tokens.count};
      local.add(rectangle, *lag, q.tokens.stride, k->sink ? everything_ : lags_);
    }
  }
  return local;
}

}  // namespace orrery
