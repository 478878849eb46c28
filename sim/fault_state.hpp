// Which faults hold at the moment, and the ways around dead links. Internal to sim/.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "sim/cluster.hpp"
#include "sim/faults.hpp"
#include "sim/route_table.hpp"

namespace orrery {

class FaultState {
 public:
  /// A fault begins or ends.
  struct Change {
    Ticks at = 0;
    bool begins = false;
    bool is_pause = false;
    std::size_t index = 0;  // into the list of its kind
  };

  /// Both outlive it. Precondition: check() accepts them.
  FaultState(const Faults& faults, const Cluster& cluster);

  /// By time; what ends comes before what begins.
  std::span<const Change> changes() const { return changes_; }
  void apply(const Change& change);

  const LinkFault& link_fault(const Change& change) const { return faults_.links[change.index]; }
  const Pause& pause(const Change& change) const { return faults_.pauses[change.index]; }
  BytesPerSecond bandwidth(LinkId link) const;
  bool is_paused(Rank rank) const { return is_paused_[static_cast<std::size_t>(rank)]; }
  /// Whether messages have to go around one of its links.
  bool is_closed(const Route& route) const;
  /// By the best route without the links that are closed now; good for as long as this object.
  const CachedRoute& way_around(Rank source, Rank destination);
  /// "link a -> b, which is dead since 2 ms", of the first such link of the route; empty if there is none.
  std::string dead_link(const Route& route) const;

 private:
  struct Way {
    Route route;
    CachedRoute cached;
  };

  const Faults& faults_;
  const Cluster& cluster_;
  std::vector<Change> changes_;
  std::vector<const LinkFault*> on_link_;  // that holds; null: none
  std::vector<bool> is_paused_;
  std::optional<Cluster> remainder_;  // without the links that are closed now; empty if nobody has asked for it yet
  std::map<std::pair<Rank, Rank>, const Way*> known_;  // in the remainder
  std::deque<Way> ways_;
};

}  // namespace orrery
