// Transfers in flight, sharing links max-min fairly: no flow can go faster without slowing one that is not faster.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <span>
#include <utility>
#include <vector>

#include "sim/cluster.hpp"
#include "sim/units.hpp"

namespace orrery {

using FlowId = std::int32_t;

/// Rates hold from one solve() to the next. Flows are added and removed in between; links whose other flows gain or
/// lose by that become dirty, and solve() looks only at flows whose rates these can change.
class FlowNetwork {
 public:
  struct Change {
    FlowId flow;
    double old_rate;  // bytes per second; 0 if the flow is new
  };

  /// `links` must outlive the network.
  explicit FlowNetwork(std::span<const Link> links);

  /// A flow over `route` (at least one link; must outlive the flow). It moves nothing before the next solve().
  FlowId add(const Route& route, Bytes size, Ticks now);
  void remove(FlowId flow, Ticks now);
  /// From now on; 0: flows over the link stand still until it has bandwidth again.
  void set_bandwidth(LinkId link, BytesPerSecond bandwidth);

  /// From now on it goes at its share of the links, but at no more than `most` bytes per second, over `times`. What it
  /// leaves of its share is lost. Returns the rate it had.
  double pace(FlowId flow, double most, double times, Ticks now);

  /// Removes a flow that goes on later or elsewhere. Returns the bytes it has left.
  double take_back(FlowId flow, Ticks now);

  bool contains(FlowId flow) const { return flows_[flow].route != nullptr; }
  /// As below, but from now.
  double seconds_left_at(FlowId flow, Ticks now) const { return bytes_left(flow, now) / rate(flow); }

  /// Shares the links anew and returns the flows whose rate changed, by ascending id. The span is good until the next
  /// call.
  std::span<const Change> solve(Ticks now);
  bool is_unsettled() const { return !dirty_.empty() || !alone_.empty(); }

  double rate(FlowId flow) const { return std::min(flows_[flow].rate, flows_[flow].most) / flows_[flow].slowed; }
  /// Time until the flow's last byte arrives, counted from the last change of its rate.
  /// Infinite at a rate of 0.
  double seconds_left(FlowId flow) const { return flows_[flow].remaining / rate(flow); }

  Ticks busy(LinkId link) const { return usage_[link].busy; }

 private:
  struct Hop {
    FlowId flow;
    std::int32_t position;  // of the link in the flow's route
  };
  struct Flow {
    const Route* route = nullptr;  // null: free
    double rate = 0;               // its share of the links
    double most = std::numeric_limits<double>::infinity();
    double slowed = 1;
    double remaining = 0;  // bytes at time `since`
    Ticks since = 0;
    double new_rate = 0;
    LinkId bottleneck = -1;           // the link that limits the rate; -1: has no rate yet
    std::uint32_t released = 0;       // number of the last solve that released it
    std::uint32_t frozen = 0;         // number of the last visit that set new_rate
    std::vector<std::int32_t> slots;  // index in on_link_ of every link of the route
  };
  struct Filling {
    double left = 0;         // of the bandwidth
    double share = 0;        // of each flow that this link was the bottleneck for; infinite: none
    double fastest = 0;      // rate of a released flow
    std::int32_t flows = 0;  // released and without a new rate
    std::uint32_t seen = 0;  // number of the last visit
    bool dirty = false;
    bool changed = false;  // its bandwidth, since the last solve
  };
  struct Usage {
    Ticks busy = 0;
    Ticks since = 0;
  };
  using Level = std::pair<double, LinkId>;  // fair share, link

  double bytes_left(FlowId flow, Ticks now) const;
  void mark_dirty(LinkId link);
  void release(FlowId id);
  void release_at_dirty_links();
  void release_connected();
  bool release_unfair();
  void prepare_links();
  void fill();
  void freeze(LinkId bottleneck, double share);
  void set_rate(FlowId id, double rate, Ticks now);

  std::vector<double> bandwidth_;  // by link
  std::vector<Flow> flows_;
  std::vector<FlowId> free_;
  std::vector<std::vector<Hop>> on_link_;
  std::vector<Filling> filling_;
  std::vector<Usage> usage_;
  std::vector<LinkId> dirty_;
  std::vector<FlowId> alone_;  // added since the last solve on links that were empty
  std::vector<FlowId> released_;
  std::vector<LinkId> filling_links_;  // of the released flows
  std::vector<Level> levels_;
  std::vector<Change> changes_;
  std::uint32_t solve_ = 0, visit_ = 0;
};

}  // namespace orrery
