#include "sim/flows.hpp"

#include <algorithm>
#include <cmath>
#include <functional>

namespace orrery {
namespace {

/// Two ways to add up the same shares differ in the last bits; such a difference is no change of rate.
constexpr double rate_noise = 1e-12;

}  // namespace

FlowNetwork::FlowNetwork(std::span<const Link> links)
    : links_(links), on_link_(links.size()), filling_(links.size()), usage_(links.size()) {}

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
  flow.remaining = size.si();
  flow.since = now;
  flow.slots.resize(route.links.size());
  bool alone = true;
  for (std::size_t position = 0; position < route.links.size(); ++position) {
    const LinkId link = route.links[position];
    auto& hops = on_link_[link];
    if (hops.empty()) usage_[link].since = now;
    usage_[link].bytes += size.si();
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
  if (watching_) touch_route(flow);
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

std::span<const FlowNetwork::Change> FlowNetwork::solve(Ticks now) {
  changes_.clear();
  if (!dirty_.empty()) {
    collect_components();
    fill_component();
    for (const FlowId id : component_flows_) set_rate(id, flows_[id].new_rate, now);
  }
  for (const FlowId id : alone_) {
    const Flow& flow = flows_[id];
    if (flow.route == nullptr || flow.rate != 0) continue;  // gone, or no longer alone
    double bottleneck = links_[flow.route->links.front()].bandwidth.si();
    for (const LinkId link : flow.route->links) bottleneck = std::min(bottleneck, links_[link].bandwidth.si());
    set_rate(id, bottleneck, now);
  }
  alone_.clear();
  if (changes_.size() > 1) {
    std::sort(changes_.begin(), changes_.end(), [](const Change& a, const Change& b) { return a.flow < b.flow; });
  }
  return changes_;
}

/// Everything that shares a link, directly or through others, with a dirty link.
void FlowNetwork::collect_components() {
  ++visit_;
  component_links_.clear();
  component_flows_.clear();
  const auto reach = [&](LinkId link) {
    Filling& filling = filling_[link];
    if (filling.seen == visit_) return;
    filling.seen = visit_;
    filling.left = links_[link].bandwidth.si();
    filling.flows = flows_on(link);
    component_links_.push_back(link);
  };
  for (const LinkId link : dirty_) {
    filling_[link].dirty = false;
    if (!on_link_[link].empty()) reach(link);
  }
  dirty_.clear();
  for (std::size_t next = 0; next < component_links_.size(); ++next) {
    for (const Hop& hop : on_link_[component_links_[next]]) {
      Flow& flow = flows_[hop.flow];
      if (flow.seen == visit_) continue;
      flow.seen = visit_;
      component_flows_.push_back(hop.flow);
      for (const LinkId link : flow.route->links) reach(link);
    }
  }
}

/// Progressive filling: the link with the least share per flow left (of equals, the lowest numbered) fixes its flows at
/// that share. Shares only grow while others are fixed, so an outdated heap entry is too small and is put back
/// corrected. All flows fixed by a link get the same rate, hence neither their order nor that of the links enters the
/// result.
void FlowNetwork::fill_component() {
  levels_.clear();
  for (const LinkId link : component_links_) levels_.emplace_back(filling_[link].left / filling_[link].flows, link);
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
  for (const Hop& hop : on_link_[bottleneck]) {
    Flow& flow = flows_[hop.flow];
    if (flow.frozen == visit_) continue;
    flow.frozen = visit_;
    flow.new_rate = share;
    for (const LinkId link : flow.route->links) {
      filling_[link].left -= share;
      --filling_[link].flows;
    }
  }
}

void FlowNetwork::set_rate(FlowId id, double rate, Ticks now) {
  Flow& flow = flows_[id];
  if (std::abs(rate - flow.rate) <= rate_noise * flow.rate) return;
  changes_.push_back(Change{id, flow.rate});
  if (now != flow.since) {
    flow.remaining =
        std::max(0.0, flow.remaining - flow.rate * (static_cast<double>(now - flow.since) / ticks_per_second));
  }
  flow.since = now;
  flow.rate = rate;
  if (watching_) touch_route(flow);
}

double FlowNetwork::rate_on(LinkId link) const {
  double sum = 0;
  for (const Hop& hop : on_link_[link]) sum += flows_[hop.flow].rate;
  return sum;
}

void FlowNetwork::mark_dirty(LinkId link) {
  if (filling_[link].dirty) return;
  filling_[link].dirty = true;
  dirty_.push_back(link);
}

void FlowNetwork::touch(LinkId link) {
  if (filling_[link].touched) return;
  filling_[link].touched = true;
  touched_.push_back(link);
}

void FlowNetwork::touch_route(const Flow& flow) {
  for (const LinkId link : flow.route->links) touch(link);
}

void FlowNetwork::forget_touched() {
  for (const LinkId link : touched_) filling_[link].touched = false;
  touched_.clear();
}

}  // namespace orrery
