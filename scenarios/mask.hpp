// Which keys a query scores in one layer, as a set of lags, and how many such pairs lie between two sets of tokens:
// exactly, by interval arithmetic, never by looking at n^2 pairs.
#pragma once

#include <vector>

#include "scenarios/token_set.hpp"

namespace orrery {

/// Lags (query position - key position) first, first + step, ..., last. Empty if first > last.
struct LagProgression {
  Index first = 0;
  Index last = -1;
  Index step = 1;
};

/// Rows and columns of the kernel's score tiles; a kernel computes whole tiles.
struct TileShape {
  Index query = 1;
  Index key = 1;
};

class Mask {
 public:
  /// `documents` are the lengths of packed documents and add up to `tokens` (empty: one document). A query sees the
  /// keys of its own document at any lag of `lags`, and the first `sink` tokens of its document. Causal: no negative
  /// lags. The lags may overlap; no pair is counted twice. Preconditions: tokens in [1, 2^31], steps >= 1.
  Mask(Index tokens, bool causal, std::vector<LagProgression> lags, Index sink, const std::vector<Index>& documents);

  /// The definition: does the query at position q score the key at position k?
  bool allows(Index query, Index key) const;

  /// Number of allowed pairs between the two sets.
  Index pairs(const TokenSet& queries, const TokenSet& keys) const;

  /// Pairs a tiled kernel computes: every tile of `shape` that holds an allowed pair counts whole. Tiles are laid over
  /// each pair of ranges. A progression of several lags with a step is computed on the strided view (one residue class
  /// of rows at a time); a single lag is no tile work and counts its pairs.
  Index executed_pairs(const TokenSet& queries, const TokenSet& keys, TileShape shape) const;

  /// The keys that at least one of the queries scores, and the queries that score at least one of the keys; in the
  /// order of the set they are taken from.
  TokenSet keys_needed(const TokenSet& queries, const TokenSet& keys) const;
  TokenSet queries_served(const TokenSet& queries, const TokenSet& keys) const;

  Index tokens() const { return tokens_; }
  bool causal() const { return causal_; }

 private:
  struct SignedProgression {
    LagProgression lags;
    int sign;  // inclusion and exclusion: intersections of an even number of progressions are subtracted
  };
  struct Piece;  // two ranges inside one document

  template <class Visit>
  void for_each_piece(const TokenSet& queries, const TokenSet& keys, Visit visit) const;
  template <class Visit>
  void for_each_document(TokenRange queries, TokenRange keys, Visit visit) const;
  Index pairs_by_lag(TokenRange queries, TokenRange keys) const;
  TokenSet touched(const TokenSet& queries, const TokenSet& keys, bool want_keys) const;

  Index tokens_;
  bool causal_;
  std::vector<LagProgression> lags_;
  std::vector<SignedProgression> terms_;
  LagProgression everything_;
  Index sink_;
  std::vector<Index> document_ends_;
};

}  // namespace orrery
