// A mask as the kernel sees it that attends one set of keys from one set of queries: rows and columns are places in the
// rank's memory, whatever tokens lie there.
#pragma once

#include <compare>
#include <cstddef>
#include <utility>
#include <vector>

#include "scenarios/lag_set.hpp"

namespace orrery {

/// Rows and columns of the kernel's score tiles.
struct TileShape {
  Index query = 1;
  Index key = 1;
};

/// A rectangle of the score matrix in which the difference of the places decides: row `row` + u may score column
/// `column` + v if u - v is in the union of the terms from first_term on.
struct MaskBlock {
  Index row = 0, rows = 0;
  Index column = 0, columns = 0;
  std::size_t first_term = 0, past_term = 0;
  auto operator<=>(const MaskBlock&) const = default;
};

/// Places in the tiles a kernel computes, and how many of them lie beyond the last row or column.
struct TilePlaces {
  Index executed = 0;
  Index beyond = 0;
  bool operator==(const TilePlaces&) const = default;
};

/// [first, past) of rows or columns.
using Places = std::vector<std::pair<Index, Index>>;

/// Disjoint blocks, in ascending order of rows; two blocks share all their rows or none.
class LocalMask {
 public:
  LocalMask() = default;
  LocalMask(Index rows, Index columns) : all_rows_(rows), all_columns_(columns) {}

  /// Adds the part of the rectangle that `lags` allow; its place (u, v) has lag base + stride * (u - v). Full
  /// rectangles side by side become one.
  void add(MaskBlock rectangle, Index base, Index stride, const LagSet& lags);

  bool empty() const { return blocks_.empty(); }
  std::size_t blocks() const { return blocks_.size(); }

  /// Allowed places.
  Index pairs() const;

  /// A kernel lays one grid of tiles over the whole matrix, from row 0 and
  /// column 0 on, computes each tile that holds an allowed place, once and as a whole, and skips the others. A tile
  /// counts whole at a ragged edge too.
  TilePlaces tiles(TileShape shape) const;

  /// Rows (columns) with at least one allowed place; ascending, with gaps between them.
  Places rows() const;
  Places columns() const;

  auto operator<=>(const LocalMask&) const = default;

 private:
  bool is_full(const MaskBlock& block) const;

  Index all_rows_ = 0, all_columns_ = 0;
  std::vector<MaskBlock> blocks_;
  std::vector<LagTerm> terms_;  // of offsets u - v
};

}  // namespace orrery
