#include "sim/fault_state.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <tuple>

namespace orrery {

FaultState::FaultState(const Faults& faults, const Cluster& cluster)
    : faults_(faults),
      cluster_(cluster),
      on_link_(cluster.links().size()),
      is_paused_(static_cast<std::size_t>(cluster.ranks())) {
  const auto add = [&](const auto& list, bool is_pause) {
    for (std::size_t i = 0; i < list.size(); ++i) {
      changes_.push_back({list[i].at, true, is_pause, i});
      if (list[i].until < std::numeric_limits<Ticks>::max()) changes_.push_back({list[i].until, false, is_pause, i});
    }
  };
  add(faults.links, false);
  add(faults.pauses, true);
  std::stable_sort(changes_.begin(), changes_.end(), [](const Change& a, const Change& b) {
    return std::tuple(a.at, a.begins) < std::tuple(b.at, b.begins);
  });
}

void FaultState::apply(const Change& change) {
  if (change.is_pause) {
    is_paused_[static_cast<std::size_t>(pause(change).rank)] = change.begins;
    return;
  }
  const LinkFault& fault = link_fault(change);
  on_link_[static_cast<std::size_t>(fault.link)] = change.begins ? &fault : nullptr;
  if (!fault.reroutes) return;
  remainder_.reset();
  known_.clear();
}

BytesPerSecond FaultState::bandwidth(LinkId link) const {
  const LinkFault* fault = on_link_[static_cast<std::size_t>(link)];
  return fault != nullptr ? fault->bandwidth : cluster_.links()[static_cast<std::size_t>(link)].bandwidth;
}

bool FaultState::is_closed(const Route& route) const {
  return std::any_of(route.links.begin(), route.links.end(), [&](LinkId link) {
    const LinkFault* fault = on_link_[static_cast<std::size_t>(link)];
    return fault != nullptr && fault->reroutes;
  });
}

const CachedRoute& FaultState::way_around(Rank source, Rank destination) {
  if (!remainder_) {
    std::vector<LinkId> closed;
    for (LinkId link = 0; link < static_cast<LinkId>(on_link_.size()); ++link) {
      const LinkFault* fault = on_link_[static_cast<std::size_t>(link)];
      if (fault != nullptr && fault->reroutes) closed.push_back(link);
    }
    remainder_ = cluster_.without(closed);
  }
  const Way*& way = known_[{source, destination}];
  if (way == nullptr) {
    Way& found = ways_.emplace_back(Way{remainder_->route(source, destination), {}});
    found.cached = cached_route(found.route, cluster_);
    way = &found;
  }
  return way->cached;
}

std::string FaultState::dead_link(const Route& route) const {
  for (const LinkId link : route.links) {
    const LinkFault* fault = on_link_[static_cast<std::size_t>(link)];
    if (fault == nullptr || !fault->is_dead()) continue;
    return fmt::format("link {}, which is dead since {}", cluster_.links()[static_cast<std::size_t>(link)].name,
                       format(to_seconds(fault->at)));
  }
  return {};
}

}  // namespace orrery
