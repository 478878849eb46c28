// Where the ranks of a step stand in its degrees of parallelism, and along which neighbours their collectives run.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "scenarios/degrees.hpp"
#include "sim/program.hpp"

namespace orrery {

enum class Axis : std::uint8_t { tensor, context, data, pipeline };
inline constexpr int axes = 4;

/// The axis that varies fastest with the rank first. Usual: what talks most is nearest.
using Placement = std::array<Axis, axes>;
inline constexpr Placement usual_placement = {Axis::tensor, Axis::context, Axis::data, Axis::pipeline};

class RankGrid {
 public:
  RankGrid(const Degrees& degrees, const Placement& placement);
  Rank ranks() const { return ranks_; }
  int degree(Axis axis) const { return degree_[static_cast<std::size_t>(axis)]; }
  Rank stride(Axis axis) const { return stride_[static_cast<std::size_t>(axis)]; }
  int at(Rank rank, Axis axis) const { return rank / stride(axis) % degree(axis); }
  /// The rank that differs from `rank` in nothing but its place on `axis`.
  Rank moved(Rank rank, Axis axis, int place) const { return rank + (place - at(rank, axis)) * stride(axis); }

 private:
  std::array<int, axes> degree_{};
  std::array<Rank, axes> stride_{};
  Rank ranks_ = 1;
};

/// A rank's part in ring collectives of a group: as many rings as members share a node, each entering and leaving the
/// node at another member, so that all NICs of a node carry. Of what a rank sends, the share 1 / members of the node
/// goes to the member at its place in the next node, the rest to the next member in its own (NCCL's rings over rails).
struct RingPart {
  Rank next_local = -1;  // -1: alone in its node
  Rank next_node = -1;   // -1: all in one node
  double local_share = 0, node_share = 0;
  int members = 1;
  int node_hops = 0, local_hops = 0;  // of the members - 1 steps of a ring
};

/// By rank. Ranks that differ only along `over` form a group. If a group lies unevenly in its nodes (of `node_size`
/// consecutive ranks each), it is one ring in the order of its ranks.
std::vector<RingPart> ring_parts(const RankGrid& grid, std::initializer_list<Axis> over, Rank node_size);

}  // namespace orrery
