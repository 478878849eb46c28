// Work of every pair of groups of a ring, in memory that does not grow with their square where the layout repeats
// itself.
#pragma once

#include <cstdint>
#include <vector>

#include "scenarios/block_writer.hpp"
#include "scenarios/geometry.hpp"
#include "scenarios/mask.hpp"

namespace orrery {

TileWork measure(const LocalMask& mask, TileShape tile);

/// In the layouts of the table, range i of group g begins at b + s * g or at b - s * g. So the lag between two ranges
/// depends on q - k or on q + k alone, and what lies between two groups is decided by a class of differences, a class
/// of sums (zigzag: early chunks of one against late ones of the other), and by where documents and sinks cut each of
/// the two. Classes are few: under a window, say, most differences hold nothing or a full rectangle. Other layouts, or
/// so many cuts that it does not pay, are counted pair by pair.
class TileTable {
 public:
  /// Throws std::invalid_argument if that takes too long or too much memory.
  TileTable(const Geometry& geometry, const Mask& mask, TileShape tile);

  const TileWork& at(int query_group, int key_group) const { return works_[entry(query_group, key_group)]; }

  /// Pairs of groups with the same entry have the same work.
  std::uint32_t entry(int query_group, int key_group) const {
    const auto q = static_cast<std::size_t>(query_group), k = static_cast<std::size_t>(key_group);
    return by_difference_[query_.size() - 1 + q - k] + by_sum_[q + k] + query_[q] + key_[k];
  }

  /// Sum over all key groups.
  TileWork of(int query_group) const;

  /// Distances round the ring, in hops, at which some group finds work; ascending. Distance 0 is left out.
  const std::vector<int>& distances() const { return distances_; }
  /// The largest of them.
  int reach() const { return distances_.empty() ? 0 : distances_.back(); }

  std::size_t entries() const { return works_.size(); }

 private:
  class Builder;

  // An entry's index is the sum of four parts.
  std::vector<std::uint32_t> by_difference_, by_sum_, query_, key_;
  std::vector<TileWork> works_;
  std::vector<int> distances_;
};

}  // namespace orrery
