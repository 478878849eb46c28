#include "sim/flows.hpp"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>

namespace orrery {
namespace {

/// Two ways to add up the same shares differ in the last bits; such a difference is no change of rate.
constexpr double rate_noise = 1e-12;
/// Likewise for what is left of a full link.
constexpr double load_noise = 1e-11;

}  // namespace

FlowNetwork::FlowNetwork(std::span<const Link> links)
    : on_link_(links.size()), filling_(links.size()), usage_(links.size()) {
  for (const Link& link : links) bandwidth_.push_back(link.bandwidth.si());
}

FlowId FlowNetwork::add(const Route& route, Bytes size, Ticks now) {
  FlowId id;
  if (free_.empty()) {
    id = static_cast<FlowId>(flows_.size());
    flows_.emplace_back();
  } else {
    id = free_.back();
    free_.pop_back();
  }
  Flow& flow = flows_[id];
  flow.route = &route;
  flow.rate = 0;
  flow.most = std::numeric_limits<double>::infinity();
  flow.slowed = 1;
  flow.bottleneck = -1;
  flow.remaining = size.si();
  flow.since = now;
  flow.slots.resize(route.links.size());
  bool alone = true;
  for (std::size_t position = 0; position < route.links.size(); ++position) {
    const LinkId link = route.links[position];
    auto& hops = on_link_[link];
    if (hops.empty()) usage_[link].since = now;
    flow.slots[position] = static_cast<std::int32_t>(hops.size());
    hops.push_back(Hop{id, static_cast<std::int32_t>(position)});
    if (hops.size() > 1) {
      alone = false;
      mark_dirty(link);
    }
  }
  if (alone) alone_.push_back(id);
  return id;
}

void FlowNetwork::remove(FlowId id, Ticks now) {
  Flow& flow = flows_[id];
  for (std::size_t position = 0; position < flow.route->links.size(); ++position) {
    const LinkId link = flow.route->links[position];
    auto& hops = on_link_[link];
    const std::int32_t slot = flow.slots[position];
    hops[slot] = hops.back();
    flows_[hops[slot].flow].slots[hops[slot].position] = slot;
    hops.pop_back();
    if (hops.empty()) {
      usage_[link].busy += now - usage_[link].since;
    } else {
      mark_dirty(link);
    }
  }
  flow.route = nullptr;
  free_.push_back(id);
}

void FlowNetwork::set_bandwidth(LinkId link, BytesPerSecond bandwidth) {
  bandwidth_[link] = bandwidth.si();
  filling_[link].changed = true;
  mark_dirty(link);
}

double FlowNetwork::pace(FlowId id, double most, double times, Ticks now) {
  Flow& flow = flows_[id];
  const double before = rate(id);
  flow.remaining = bytes_left(id, now);
  flow.since = now;
  flow.most = most;
  flow.slowed = times;
  return before;
}

double FlowNetwork::take_back(FlowId flow, Ticks now) {
  const double left = bytes_left(flow, now);
  remove(flow, now);
  return left;
}

/// What the flow has carried since its rate changed last goes by that rate.
double FlowNetwork::bytes_left(FlowId id, Ticks now) const {
  const Flow& flow = flows_[id];
  if (now == flow.since) return flow.remaining;
  return std::max(0.0, flow.remaining - rate(id) * (static_cast<double>(now - flow.since) / ticks_per_second));
}

std::span<const FlowNetwork::Change> FlowNetwork::solve(Ticks now) {
  changes_.clear();
  if (!dirty_.empty()) {
    release_at_dirty_links();
    do {
      if (released_.size() * 4 > flows_.size() - free_.size()) release_connected();
      prepare_links();
      fill();
    } while (release_unfair());
    for (const FlowId id : released_) set_rate(id, flows_[id].new_rate, now);
  }
  for (const FlowId id : alone_) {
    const Flow& flow = flows_[id];
    if (flow.route == nullptr || flow.rate != 0) continue;  // gone, or no longer alone
    const std::vector<LinkId>& route = flow.route->links;
    const LinkId slowest = *std::min_element(route.begin(), route.end(),
                                             [&](LinkId a, LinkId b) { return bandwidth_[a] < bandwidth_[b]; });
    flows_[id].bottleneck = slowest;
    set_rate(id, bandwidth_[slowest], now);
  }
  alone_.clear();
  if (changes_.size() > 1) {
    std::sort(changes_.begin(), changes_.end(), [](const Change& a, const Change& b) { return a.flow < b.flow; });
  }
  return changes_;
}

// Only released flows get new rates; the others keep theirs. Max-min fairness is that every flow has a bottleneck: a
// full link on which no flow is faster (Bertsekas and Gallager, Data Networks, section 6.5.2). Whoever would lose its
// own by the new rates is released too, and the rates are found again, until everybody has one.

void FlowNetwork::release(FlowId id) {
  Flow& flow = flows_[id];
  if (flow.released == solve_) return;
  flow.released = solve_;
  released_.push_back(id);
}

void FlowNetwork::release_at_dirty_links() {
  ++solve_;
  released_.clear();
  for (const LinkId link : dirty_) {
    filling_[link].dirty = false;
    for (const Hop& hop : on_link_[link]) {
      const LinkId bottleneck = flows_[hop.flow].bottleneck;
      if (bottleneck == link || bottleneck < 0 || filling_[link].changed) release(hop.flow);
    }
    filling_[link].changed = false;
  }
  dirty_.clear();
}

/// Everything that shares a link, directly or through others, with a released flow.
void FlowNetwork::release_connected() {
  ++visit_;
  for (std::size_t next = 0; next < released_.size(); ++next) {
    for (const LinkId link : flows_[released_[next]].route->links) {
      if (filling_[link].seen == visit_) continue;
      filling_[link].seen = visit_;
      for (const Hop& hop : on_link_[link]) release(hop.flow);
    }
  }
}

/// What others leave to the released flows on their links.
void FlowNetwork::prepare_links() {
  ++visit_;
  filling_links_.clear();
  for (const FlowId id : released_) {
    for (const LinkId link : flows_[id].route->links) {
      Filling& filling = filling_[link];
      if (filling.seen == visit_) continue;
      filling.seen = visit_;
      filling.flows = 0;
      filling.share = std::numeric_limits<double>::infinity();
      filling.fastest = 0;
      filling.left = bandwidth_[link];
      for (const Hop& hop : on_link_[link]) {
        const Flow& flow = flows_[hop.flow];
        if (flow.released == solve_) {
          ++filling.flows;
        } else {
          filling.left -= flow.rate;
        }
      }
      filling_links_.push_back(link);
    }
  }
}

/// Progressive filling: the link with the least share per flow left (of equals, the lowest numbered) fixes its flows at
/// that share. Shares only grow while others are fixed, so an outdated heap entry is too small and is put back
/// corrected. All flows fixed by a link get the same rate, hence neither their order nor that of the links enters the
/// result.
void FlowNetwork::fill() {
  levels_.clear();
  for (const LinkId link : filling_links_) levels_.emplace_back(filling_[link].left / filling_[link].flows, link);
  std::make_heap(levels_.begin(), levels_.end(), std::greater<Level>());
  while (!levels_.empty()) {
    std::pop_heap(levels_.begin(), levels_.end(), std::greater<Level>());
    const auto [share, link] = levels_.back();
    levels_.pop_back();
    if (filling_[link].flows == 0) continue;
    const double current = filling_[link].left / filling_[link].flows;
    if (current > share) {
      levels_.emplace_back(current, link);
      std::push_heap(levels_.begin(), levels_.end(), std::greater<Level>());
    } else {
      freeze(link, current);
    }
  }
}

void FlowNetwork::freeze(LinkId bottleneck, double share) {
  filling_[bottleneck].share = share;
  for (const Hop& hop : on_link_[bottleneck]) {
    Flow& flow = flows_[hop.flow];
    if (flow.released != solve_ || flow.frozen == visit_) continue;
    flow.frozen = visit_;
    flow.new_rate = share;
    flow.bottleneck = bottleneck;
    for (const LinkId link : flow.route->links) {
      Filling& filling = filling_[link];
      filling.left -= share;
      filling.fastest = std::max(filling.fastest, share);
      --filling.flows;
    }
  }
}

/// Releases the flows that kept their rate and are faster than those that a link was a bottleneck for just now, or
/// whose own bottleneck is no longer full or carries a faster one. False if there are none.
bool FlowNetwork::release_unfair() {
  const std::size_t before = released_.size();
  for (const LinkId link : filling_links_) {
    const Filling& filling = filling_[link];
    const bool is_full = filling.left <= load_noise * bandwidth_[link];
    for (const Hop& hop : on_link_[link]) {
      const Flow& flow = flows_[hop.flow];
      if (flow.released == solve_) continue;
      const bool is_too_fast = flow.rate > filling.share * (1 + rate_noise);
      const bool has_lost = flow.bottleneck == link && (!is_full || filling.fastest > flow.rate * (1 + rate_noise));
      if (is_too_fast || has_lost) release(hop.flow);
    }
  }
  return released_.size() > before;
}

void FlowNetwork::set_rate(FlowId id, double rate, Ticks now) {
  Flow& flow = flows_[id];
  if (std::abs(rate - flow.rate) <= rate_noise * flow.rate) return;
  changes_.push_back(Change{id, this->rate(id)});
  flow.remaining = bytes_left(id, now);
  flow.since = now;
  flow.rate = rate;
}

void FlowNetwork::mark_dirty(LinkId link) {
  if (filling_[link].dirty) return;
  filling_[link].dirty = true;
  dirty_.push_back(link);
}

}  // namespace orrery
