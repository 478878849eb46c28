// Cuts each link's time into spans of constant rate for a SpanSink.
#pragma once

#include <vector>

#include "sim/flows.hpp"
#include "sim/simulate.hpp"

namespace orrery {

class LinkTracer {
 public:
  LinkTracer(SpanSink* sink, std::size_t links) : sink_(sink), open_(sink == nullptr ? 0 : links) {}

  /// Call once per tick, after the network has been solved.
  void update(FlowNetwork& network, Ticks now) {
    for (const LinkId link : network.touched_links()) {
      Open& open = open_[link];
      if (open.flows > 0 && now > open.since) {
        batch_.push_back(LinkSpan{link, open.flows, BytesPerSecond::from_si(open.rate), open.since, now});
      }
      open = Open{now, network.rate_on(link), network.flows_on(link)};
    }
    network.forget_touched();
    if (batch_.size() >= batch_size) flush();
  }

  void flush() {
    if (!batch_.empty()) sink_->links(batch_);
    batch_.clear();
  }

 private:
  static constexpr std::size_t batch_size = 4096;
  struct Open {
    Ticks since = 0;
    double rate = 0;
    std::int32_t flows = 0;
  };

  SpanSink* sink_;
  std::vector<Open> open_;
  std::vector<LinkSpan> batch_;
};

}  // namespace orrery
