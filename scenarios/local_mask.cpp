#include "scenarios/local_mask.hpp"

#include <algorithm>

namespace orrery {
namespace {

/// The offsets u - v of a rectangle whose lag base + stride * (u - v) lies in `lags`.
LagProgression offsets_of(const LagProgression& lags, Index base, Index stride, Index rows, Index columns) {
  if (lags.step == 1) {
    const Index first = stride == 1 ? lags.first - base : ceil_div(lags.first - base, stride);
    const Index last = stride == 1 ? lags.last - base : floor_div(lags.last - base, stride);
    return LagProgression{first, last, 1}.clipped(1 - columns, rows - 1);
  }
  const LagProgression all{base + stride * (1 - columns), base + stride * (rows - 1), stride};
  const LagProgression common = intersection(all, lags);
  if (common.empty()) return {};
  return {(common.first - base) / stride, (common.last - base) / stride, std::max<Index>(common.step / stride, 1)};
}

/// Places of a block at one offset.
Index pairs_at(const MaskBlock& block, Index offset) {
  return std::min(block.rows, block.columns + offset) - std::max<Index>(0, offset);
}

/// Sum of pairs_at over a progression of offsets: pairs_at rises by one per offset, stays level, falls by one, so each
/// of the three parts is an arithmetic series.
Index pairs_over(const MaskBlock& block, const LagProgression& offsets) {
  const Index level_first = std::min<Index>(0, block.rows - block.columns);
  const Index level_last = std::max<Index>(0, block.rows - block.columns);
  Index sum = 0;
  Index from = offsets.first;
  for (const Index until : {level_first, level_last, offsets.last}) {
    const Index to = std::min(until, offsets.last);
    if (from > to) continue;
    const Index terms = (to - from) / offsets.step + 1;
    const Index last = from + (terms - 1) * offsets.step;
    const auto twice =
        static_cast<std::uint64_t>(terms) * static_cast<std::uint64_t>(pairs_at(block, from) + pairs_at(block, last));
    sum += static_cast<Index>(twice / 2);
    from = last + offsets.step;
  }
  return sum;
}

Places merged(Places places) {
  std::sort(places.begin(), places.end());
  Places out;
  for (const auto& [first, past] : places) {
    if (!out.empty() && first <= out.back().second) {
      out.back().second = std::max(out.back().second, past);
    } else {
      out.emplace_back(first, past);
    }
  }
  return out;
}

/// The places start + shift + [0, length) for every shift of a progression, clipped to start + [0, bound). Gaps of less
/// than `coarse` places are filled.
void add_shifted(Places& places, Index start, Index length, Index bound, const LagProgression& shifts, Index coarse) {
  const LagProgression reaching = shifts.clipped(1 - length, bound - 1);
  if (reaching.empty()) return;
  const auto add = [&](Index first_shift, Index last_shift) {
    places.emplace_back(start + std::max<Index>(0, first_shift), start + std::min(bound, last_shift + length));
  };
  if (reaching.step - length < coarse) return add(reaching.first, reaching.last);
  for (Index shift = reaching.first; shift <= reaching.last; shift += reaching.step) add(shift, shift);
}

LagProgression mirrored(const LagProgression& p) {
  return {-p.last, -p.first, p.step};
}

/// Columns of the block that its rows `u` to `u` + height - 1 score.
void add_columns(Places& places, const MaskBlock& block, const LagProgression& offsets, Index u, Index height,
                 Index coarse) {
  const LagProgression shifts = mirrored(offsets);
  add_shifted(places, block.column, height, block.columns, {shifts.first + u, shifts.last + u, shifts.step}, coarse);
}

struct TouchedTiles {
  Index tiles = 0;
  Index past = 0;  // behind the last of them
};

/// The tiles of `side` columns that the places touch. Sorts and empties them.
TouchedTiles tiles_touched(Places& places, Index side) {
  std::sort(places.begin(), places.end());
  Index tiles = 0, done = 0;
  for (const auto& [first, past] : places) {
    const Index from = std::max(first / side, done), until = (past - 1) / side + 1;
    if (from >= until) continue;
    tiles += until - from;
    done = until;
  }
  places.clear();
  return {tiles, done};
}

}  // namespace

void LocalMask::add(MaskBlock block, Index base, Index stride, const LagSet& lags) {
  block.first_term = terms_.size();
  for (const LagTerm& term : lags.terms()) {
    const LagProgression offsets = offsets_of(term.lags, base, stride, block.rows, block.columns);
    if (!offsets.empty()) terms_.push_back({offsets, term.times, term.covers});
  }
  block.past_term = terms_.size();
  if (block.past_term == block.first_term) return;
  if (!blocks_.empty() && blocks_.back().row == block.row &&
      blocks_.back().column + blocks_.back().columns == block.column && is_full(blocks_.back()) && is_full(block)) {
    MaskBlock& last = blocks_.back();
    last.columns += block.columns;
    terms_.pop_back();
    terms_.back().lags.first = 1 - last.columns;
  } else {
    blocks_.push_back(block);
  }
}

bool LocalMask::is_full(const MaskBlock& block) const {
  return block.past_term == block.first_term + 1 &&
         terms_[block.first_term].lags == LagProgression{1 - block.columns, block.rows - 1, 1};
}

Index LocalMask::pairs() const {
  Index sum = 0;
  for (const MaskBlock& block : blocks_) {
    for (std::size_t i = block.first_term; i < block.past_term; ++i) {
      sum += terms_[i].times * pairs_over(block, terms_[i].lags);
    }
  }
  return sum;
}

TilePlaces LocalMask::tiles(TileShape shape) const {
  TilePlaces places;
  Places touched;
  std::size_t begin = 0;  // the first block that is not above the row of tiles
  for (Index top = 0;; top += shape.query) {
    while (begin < blocks_.size() && blocks_[begin].row + blocks_[begin].rows <= top) ++begin;
    if (begin == blocks_.size()) break;
    top = std::max(top, blocks_[begin].row / shape.query * shape.query);
    for (std::size_t b = begin; b < blocks_.size() && blocks_[b].row < top + shape.query; ++b) {
      const MaskBlock& block = blocks_[b];
      const Index u = std::max(top - block.row, Index{0});
      const Index height = std::min(top + shape.query - block.row, block.rows) - u;
      for (std::size_t i = block.first_term; i < block.past_term; ++i) {
        if (terms_[i].covers) add_columns(touched, block, terms_[i].lags, u, height, shape.key);
      }
    }
    const TouchedTiles in_row = tiles_touched(touched, shape.key);
    const Index columns_computed = in_row.tiles * shape.key;
    const Index rows_there = std::min(shape.query, all_rows_ - top);
    const Index columns_beyond = std::max(Index{0}, in_row.past * shape.key - all_columns_);
    places.executed += shape.query * columns_computed;
    places.beyond += (shape.query - rows_there) * columns_computed + rows_there * columns_beyond;
  }
  return places;
}

Places LocalMask::rows() const {
  Places places;
  for (const MaskBlock& block : blocks_) {
    for (std::size_t i = block.first_term; i < block.past_term; ++i) {
      if (terms_[i].covers) add_shifted(places, block.row, block.columns, block.rows, terms_[i].lags, 1);
    }
  }
  return merged(std::move(places));
}

Places LocalMask::columns() const {
  Places places;
  for (const MaskBlock& block : blocks_) {
    for (std::size_t i = block.first_term; i < block.past_term; ++i) {
      if (terms_[i].covers) add_columns(places, block, terms_[i].lags, 0, block.rows, 1);
    }
  }
  return merged(std::move(places));
}

}  // namespace orrery
