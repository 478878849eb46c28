#include "scenarios/mask.hpp"

#include <algorithm>
#include <cassert>
#include <map>
#include <numeric>
#include <optional>
#include <tuple>
#include <utility>

namespace orrery {
namespace {

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

LagProgression clipped(LagProgression p, Index first, Index last) {
  if (p.first < first) p.first += ceil_div(first - p.first, p.step) * p.step;
  if (p.last > last) p.last = last;
  if (p.first <= p.last) p.last = p.first + (p.last - p.first) / p.step * p.step;
  return p;
}

bool is_empty(const LagProgression& p) {
  return p.first > p.last;
}

/// The lags in both progressions (Chinese remainder theorem); empty if there are none.
LagProgression intersection(const LagProgression& a, const LagProgression& b) {
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
  const Index low = std::max(a.first, b.first), high = std::min(a.last, b.last);
  if (first > high) return {};
  if (step > high - first) return clipped({static_cast<Index>(first), static_cast<Index>(first), 1}, low, high);
  return clipped({static_cast<Index>(first), high, static_cast<Index>(step)}, low, high);
}

/// How queries u = 0..queries-1 and keys v = 0..keys-1 of two ranges of equal stride are related: lag = base +
/// stride*(u-v).
struct Grid {
  Index base, stride, queries, keys;

  Grid(const TokenRange& q, const TokenRange& k)
      : base(q.begin - k.begin), stride(q.stride), queries(q.count), keys(k.count) {
    assert(q.stride == k.stride);
  }

  /// The offsets u - v whose lag lies in `lags`, as far as such a pair exists.
  LagProgression offsets(const LagProgression& lags) const {
    const LagProgression all{base + stride * (1 - keys), base + stride * (queries - 1), stride};
    const LagProgression common = intersection(all, lags);
    if (is_empty(common)) return {};
    const Index step = std::max<Index>(common.step / stride, 1);
    return {(common.first - base) / stride, (common.last - base) / stride, step};
  }

  Index pairs_at(Index offset) const { return std::min(queries, keys + offset) - std::max<Index>(0, offset); }
};

/// Sum of pairs_at over a progression of offsets: pairs_at rises by one per offset, stays level, falls by one, so each
/// of the three parts is an arithmetic series.
Index pairs_over(const Grid& grid, const LagProgression& offsets) {
  const Index level_first = std::min<Index>(0, grid.queries - grid.keys);
  const Index level_last = std::max<Index>(0, grid.queries - grid.keys);
  Index sum = 0;
  Index from = offsets.first;
  for (const Index until : {level_first, level_last, offsets.last}) {
    const Index to = std::min(until, offsets.last);
    if (from > to) continue;
    const Index terms = (to - from) / offsets.step + 1;
    const Index last = from + (terms - 1) * offsets.step;
    const auto twice =
        static_cast<std::uint64_t>(terms) * static_cast<std::uint64_t>(grid.pairs_at(from) + grid.pairs_at(last));
    sum += static_cast<Index>(twice / 2);
    from = last + offsets.step;
  }
  return sum;
}

/// Pairs in all tiles that hold an offset of a dense band [first, last].
Index band_cover(Index queries, Index keys, Index first, Index last, TileShape shape) {
  if (first <= 1 - keys && last >= queries - 1) {
    return ceil_div(queries, shape.query) * ceil_div(keys, shape.key) * shape.query * shape.key;
  }
  Index tiles = 0;
  for (Index u = 0; u < queries; u += shape.query) {
    const Index u_last = std::min(u + shape.query, queries) - 1;
    const Index v_first = std::max<Index>(0, u - last);
    const Index v_last = std::min(keys - 1, u_last - first);
    if (v_first <= v_last) tiles += v_last / shape.key - v_first / shape.key + 1;
  }
  return tiles * shape.query * shape.key;
}

/// A progression of offsets with a step, on the strided view: rows u = a (mod step) meet keys v = u - offset, which is
/// one residue class of keys, so each class of rows is a dense band of its own. Most classes are alike.
Index strided_cover(const Grid& grid, const LagProgression& offsets, TileShape shape) {
  Index sum = 0, cover = 0;
  std::tuple<Index, Index, Index> alike{-1, -1, -1};
  for (Index a = 0; a < std::min(offsets.step, grid.queries); ++a) {
    const Index b = a - offsets.first - floor_div(a - offsets.first, offsets.step) * offsets.step;
    const Index queries = ceil_div(grid.queries - a, offsets.step);
    const Index keys = b < grid.keys ? ceil_div(grid.keys - b, offsets.step) : 0;
    const Index first = (offsets.first - a + b) / offsets.step;
    if (const std::tuple now{queries, keys, first}; now != alike) {
      alike = now;
      const Index last = first + (offsets.last - offsets.first) / offsets.step;
      cover = keys > 0 ? band_cover(queries, keys, first, last, shape) : 0;
    }
    sum += cover;
  }
  return sum;
}

Index executed_over(const Grid& grid, const LagProgression& offsets, Index lag_step, TileShape shape) {
  const bool single_lag = offsets.first == offsets.last && lag_step > 1;
  if (single_lag) return grid.pairs_at(offsets.first);
  if (offsets.step == 1) return band_cover(grid.queries, grid.keys, offsets.first, offsets.last, shape);
  return strided_cover(grid, offsets, shape);
}

using Intervals = std::vector<std::pair<Index, Index>>;  // [first, past)

/// Rows [first, past) of one side that some row of the other side meets at one of the offsets. `shift` is the offset
/// seen from the wanted side: row = other + shift.
void add_touched(Intervals& intervals, Index wanted, Index others, const LagProgression& shifts) {
  const auto add = [&](Index low, Index high) {
    intervals.emplace_back(std::max<Index>(0, low), std::min(wanted, high));
  };
  if (shifts.step <= others) {
    add(shifts.first, shifts.last + others);
  } else {
    for (Index shift = shifts.first; shift <= shifts.last; shift += shifts.step) add(shift, shift + others);
  }
}

void append_merged(std::vector<TokenRange>& out, const TokenRange& range, Intervals& intervals) {
  std::sort(intervals.begin(), intervals.end());
  Index done = 0;
  for (const auto& [first, past] : intervals) {
    const Index from = std::max(first, done);
    if (from >= past) continue;
    out.push_back({range.at(from), past - from, range.stride});
    done = past;
  }
  intervals.clear();
}

}  // namespace

struct Mask::Piece {
  TokenRange queries, keys;
  Index document_begin;
};

Mask::Mask(Index tokens, bool causal, std::vector<LagProgression> lags, Index sink, const std::vector<Index>& documents)
    : tokens_(tokens), causal_(causal), everything_{causal ? 0 : 1 - tokens, tokens - 1, 1}, sink_(sink) {
  for (LagProgression& progression : lags) {
    progression = clipped(progression, everything_.first, everything_.last);
    if (!is_empty(progression)) lags_.push_back(progression);
  }
  // Inclusion and exclusion: every new progression is added, and its intersection with every term so far is taken out.
  for (const LagProgression& progression : lags_) {
    const std::size_t before = terms_.size();
    for (std::size_t i = 0; i < before; ++i) {
      const LagProgression common = intersection(terms_[i].lags, progression);
      if (!is_empty(common)) terms_.push_back({common, -terms_[i].sign});
    }
    terms_.push_back({progression, 1});
  }
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
  const Index document_begin = document == document_ends_.begin() ? 0 : *(document - 1);
  if (key < document_begin + sink_) return true;
  return std::any_of(lags_.begin(), lags_.end(), [&](const LagProgression& p) {
    return lag >= p.first && lag <= p.last && (lag - p.first) % p.step == 0;
  });
}

template <class Visit>
void Mask::for_each_document(TokenRange queries, TokenRange keys, Visit visit) const {
  if (queries.count == 0 || keys.count == 0) return;
  const Index first_token = std::max(queries.begin, keys.begin), last_token = std::min(queries.last(), keys.last());
  if (document_ends_.size() == 1) return visit(Piece{queries, keys, 0});
  // Only documents that reach into both ranges can hold a pair.
  auto document = std::upper_bound(document_ends_.begin(), document_ends_.end(), first_token);
  for (; document != document_ends_.end(); ++document) {
    const Index begin = document == document_ends_.begin() ? 0 : *(document - 1);
    if (begin > last_token) break;
    const Piece piece{queries.clipped(begin, *document), keys.clipped(begin, *document), begin};
    if (piece.queries.count > 0 && piece.keys.count > 0) visit(piece);
  }
}

template <class Visit>
void Mask::for_each_piece(const TokenSet& queries, const TokenSet& keys, Visit visit) const {
  for (const TokenRange& q : queries.ranges()) {
    for (const TokenRange& k : keys.ranges()) for_each_document(q, k, visit);
  }
}

Index Mask::pairs_by_lag(TokenRange queries, TokenRange keys) const {
  const Grid grid(queries, keys);
  Index sum = 0;
  for (const SignedProgression& term : terms_) {
    const LagProgression offsets = grid.offsets(term.lags);
    if (!is_empty(offsets)) sum += term.sign * pairs_over(grid, offsets);
  }
  return sum;
}

Index Mask::pairs(const TokenSet& queries, const TokenSet& keys) const {
  Index sum = 0;
  // Layouts of many equal runs repeat the same relative position often: without sinks it alone decides the count.
  std::map<std::tuple<Index, Index, Index>, Index> known;
  const bool repetitive = queries.ranges().size() * keys.ranges().size() > 16 && sink_ == 0;
  for_each_piece(queries, keys, [&](const Piece& piece) {
    if (repetitive) {
      const auto [entry, is_new] =
          known.try_emplace({piece.queries.begin - piece.keys.begin, piece.queries.count, piece.keys.count}, 0);
      if (is_new) entry->second = pairs_by_lag(piece.queries, piece.keys);
      sum += entry->second;
      return;
    }
    sum += pairs_by_lag(piece.queries, piece.keys);
    const TokenRange sinks = piece.keys.clipped(piece.document_begin, piece.document_begin + sink_);
    if (sinks.count == 0) return;
    const Grid grid(piece.queries, sinks);
    const LagProgression offsets = grid.offsets(everything_);
    if (!is_empty(offsets)) sum += pairs_over(grid, offsets) - pairs_by_lag(piece.queries, sinks);
  });
  return sum;
}

Index Mask::executed_pairs(const TokenSet& queries, const TokenSet& keys, TileShape shape) const {
  Index sum = 0;
  for_each_piece(queries, keys, [&](const Piece& piece) {
    const Grid grid(piece.queries, piece.keys);
    for (const LagProgression& lags : lags_) {
      const LagProgression offsets = grid.offsets(lags);
      if (!is_empty(offsets)) sum += executed_over(grid, offsets, lags.step, shape);
    }
    const TokenRange sinks = piece.keys.clipped(piece.document_begin, piece.document_begin + sink_);
    if (sinks.count == 0) return;
    const Grid sink_grid(piece.queries, sinks);
    const LagProgression offsets = sink_grid.offsets(everything_);
    if (!is_empty(offsets)) sum += executed_over(sink_grid, offsets, 1, shape);
  });
  return sum;
}

TokenSet Mask::touched(const TokenSet& queries, const TokenSet& keys, bool want_keys) const {
  std::vector<TokenRange> out;
  const TokenSet& wanted = want_keys ? keys : queries;
  const TokenSet& others = want_keys ? queries : keys;
  Intervals intervals;
  for (const TokenRange& range : wanted.ranges()) {
    const auto add = [&](const TokenRange& q, const TokenRange& k, const LagProgression& lags) {
      const Grid grid(q, k);
      const LagProgression offsets = grid.offsets(lags);
      if (is_empty(offsets)) return;
      const TokenRange& part = want_keys ? k : q;
      const LagProgression shifts = want_keys ? LagProgression{-offsets.last, -offsets.first, offsets.step} : offsets;
      Intervals found;
      add_touched(found, part.count, want_keys ? q.count : k.count, shifts);
      const Index skipped = (part.begin - range.begin) / range.stride;
      for (const auto& [first, past] : found) intervals.emplace_back(first + skipped, past + skipped);
    };
    for (const TokenRange& other : others.ranges()) {
      for_each_document(want_keys ? other : range, want_keys ? range : other, [&](const Piece& piece) {
        for (const LagProgression& lags : lags_) add(piece.queries, piece.keys, lags);
        const TokenRange sinks = piece.keys.clipped(piece.document_begin, piece.document_begin + sink_);
        if (sinks.count > 0) add(piece.queries, sinks, everything_);
      });
    }
    append_merged(out, range, intervals);
  }
  return TokenSet(std::move(out));
}

TokenSet Mask::keys_needed(const TokenSet& queries, const TokenSet& keys) const {
  return touched(queries, keys, true);
}

TokenSet Mask::queries_served(const TokenSet& queries, const TokenSet& keys) const {
  return touched(queries, keys, false);
}

}  // namespace orrery
