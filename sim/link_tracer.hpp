// Cuts each link's time into spans of constant rate for a SpanSink.
#pragma once

#include <vector>

#include "sim/cluster.hpp"
#include "sim/simulate.hpp"

namespace orrery {

class LinkTracer {
 public:
  LinkTracer(SpanSink* sink, std::size_t links) : sink_(sink), links_(sink == nullptr ? 0 : links) {}

  /// A flow over `route` has another rate from now on; 0: it has not begun, or has ended.
  void change(const Route& route, double old_rate, double new_rate) {
    for (const LinkId id : route.links) {
      TracedLink& link = links_[static_cast<std::size_t>(id)];
      link.flows += (new_rate > 0) - (old_rate > 0);
      link.rate = link.flows == 0 ? 0 : link.rate + (new_rate - old_rate);
      if (!link.touched) touched_.push_back(id);
      link.touched = true;
    }
  }

  /// Call once per tick, after the last change.
  void update(Ticks now) {
    for (const LinkId id : touched_) {
      TracedLink& link = links_[static_cast<std::size_t>(id)];
      if (link.open.flows > 0 && now > link.open.start) {
        link.open.end = now;
        batch_.push_back(link.open);
      }
      link.open = LinkSpan{id, link.flows, BytesPerSecond::from_si(link.rate), now, now};
      link.touched = false;
    }
    touched_.clear();
    if (batch_.size() >= batch_size) flush();
  }

  void flush() {
    if (!batch_.empty()) sink_->links(batch_);
    batch_.clear();
  }

 private:
  static constexpr std::size_t batch_size = 4096;
  struct TracedLink {
    double rate = 0;
    std::int32_t flows = 0;
    bool touched = false;
    LinkSpan open;
  };

  SpanSink* sink_;
  std::vector<TracedLink> links_;
  std::vector<LinkId> touched_;
  std::vector<LinkSpan> batch_;
};

}  // namespace orrery
