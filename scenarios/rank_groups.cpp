#include "scenarios/rank_groups.hpp"

#include <algorithm>
#include <map>

namespace orrery {
namespace {

using Group = std::vector<Rank>;

/// The group's members node by node; one list of all if nodes hold different numbers of them.
std::vector<Group> by_node(const Group& group, Rank node_size) {
  std::vector<Group> nodes;
  Rank last = -1;
  for (const Rank rank : group) {
    if (rank / node_size != last) nodes.emplace_back();
    last = rank / node_size;
    nodes.back().push_back(rank);
  }
  const bool even =
      std::all_of(nodes.begin(), nodes.end(), [&](const Group& n) { return n.size() == nodes.front().size(); });
  return even ? nodes : std::vector<Group>();
}

}  // namespace

RankGrid::RankGrid(const Degrees& d, const Placement& placement) {
  degree_ = {d.tensor, d.context, d.data, d.pipeline};
  for (const Axis axis : placement) {
    stride_[static_cast<std::size_t>(axis)] = ranks_;
    ranks_ *= degree(axis);
  }
}

std::vector<RingPart> ring_parts(const RankGrid& grid, std::initializer_list<Axis> over, Rank node_size) {
  std::map<Rank, Group> groups;  // by the member that is first on all axes
  for (Rank rank = 0; rank < grid.ranks(); ++rank) {
    Rank first = rank;
    for (const Axis axis : over) first = grid.moved(first, axis, 0);
    groups[first].push_back(rank);
  }
  std::vector<RingPart> parts(static_cast<std::size_t>(grid.ranks()));
  for (const auto& [first, group] : groups) {
    if (group.size() < 2) continue;
    std::vector<Group> nodes = by_node(group, node_size);
    if (nodes.empty()) {
      for (const Rank rank : group) nodes.push_back({rank});
    }
    const auto local = static_cast<int>(nodes.front().size()), count = static_cast<int>(nodes.size());
    for (std::size_t n = 0; n < nodes.size(); ++n) {
      for (std::size_t i = 0; i < nodes[n].size(); ++i) {
        RingPart& part = parts[static_cast<std::size_t>(nodes[n][i])];
        part.members = local * count;
        part.node_hops = count - 1;
        part.local_hops = part.members - count;
        if (local > 1) part.next_local = nodes[n][(i + 1) % nodes[n].size()];
        if (count > 1) part.next_node = nodes[(n + 1) % nodes.size()][i];
        part.node_share = count == 1 ? 0 : 1.0 / local;
        part.local_share = 1 - part.node_share;
      }
    }
  }
  return parts;
}

}  // namespace orrery
