// The routes a program uses, looked up once.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <vector>

#include "sim/cluster.hpp"

namespace orrery {

struct CachedRoute {
  const Route* route = nullptr;
  Ticks latency = 0;
  double bandwidth = 0;  // the smallest on the way
};

inline CachedRoute cached_route(const Route& route, const Cluster& cluster) {
  double bandwidth = std::numeric_limits<double>::infinity();
  for (const LinkId link : route.links) bandwidth = std::min(bandwidth, cluster.links()[link].bandwidth.si());
  return {&route, to_ticks(route.latency), bandwidth};
}

/// Keyed by source and by the distance to the destination (modulo ranks), since programs name few distances.
class RouteTable {
 public:
  using Column = std::int32_t;

  RouteTable(const Cluster& cluster, Rank ranks) : cluster_(cluster), ranks_(ranks) {}

  Column column(std::int32_t distance) {
    for (std::size_t i = 0; i < distances_.size(); ++i) {
      if (distances_[i] == distance) return static_cast<Column>(i);
    }
    distances_.push_back(distance);
    columns_.emplace_back(static_cast<std::size_t>(ranks_));
    return static_cast<Column>(distances_.size() - 1);
  }
  std::size_t columns() const { return columns_.size(); }
  std::int32_t distance(Column column) const { return distances_[static_cast<std::size_t>(column)]; }

  /// Throws std::runtime_error if there is none.
  const CachedRoute& at(Column column, Rank source) {
    CachedRoute& entry = columns_[static_cast<std::size_t>(column)][static_cast<std::size_t>(source)];
    if (entry.route == nullptr) entry = look_up(source, distances_[static_cast<std::size_t>(column)]);
    return entry;
  }

  /// All that have been looked up.
  template <class Visit>
  void each(Visit visit) const {
    for (const std::vector<CachedRoute>& column : columns_) {
      for (const CachedRoute& entry : column) {
        if (entry.route != nullptr) visit(*entry.route);
      }
    }
  }

 private:
  CachedRoute look_up(Rank source, std::int32_t distance) const {
    const Rank sum = source + distance;
    return cached_route(cluster_.route(source, sum >= ranks_ ? sum - ranks_ : sum), cluster_);
  }

  const Cluster& cluster_;
  Rank ranks_;
  std::vector<std::int32_t> distances_;
  std::vector<std::vector<CachedRoute>> columns_;
};

}  // namespace orrery
