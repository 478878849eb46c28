// Links that many flows share but that need no solver: processor sharing in virtual time.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <limits>
#include <span>
#include <vector>

#include "sim/cluster.hpp"
#include "sim/route_table.hpp"

namespace orrery {

/// Links that only ever carry the same flows: a route over one of them goes over all of them, the rest of its links are
/// its own, and those are equally fast for all. So all flows at a time have the same rate, which is their max-min
/// share: what the narrowest of the shared links leaves to each, or what a flow's own links let through.
///
/// Since rates are equal, one sum does for all flows: the bytes each has got since the trunk was last empty. A flow
/// ends when the sum has grown by its size, however rates change meanwhile.
class Trunk {
 public:
  using Member = std::int32_t;

  Trunk(std::vector<LinkId> links, BytesPerSecond capacity, BytesPerSecond fastest)
      : links_(std::move(links)), capacity_(capacity.si()), fastest_(fastest.si()) {}

  std::span<const LinkId> links() const { return links_; }

  /// Flows come and go at their times; rates hold from one share() to the next.
  void add(Member member, double size, Ticks now) {
    if (flows_.empty()) busy_since_ = now;
    serve_until(now);
    flows_.push_back({served_ + size, next_sequence_++, member});
    std::push_heap(flows_.begin(), flows_.end(), std::greater<Flow>());
  }
  /// Appends those that end before the next tick: the first at any rate, and what ends with it.
  void remove_first(Ticks now, std::vector<Member>& ended);
  void share(Ticks now) {
    serve_until(now);
    if (served_ > most_served) start_over();
    if (flows_.size() == sharing_) return;
    sharing_ = flows_.size();
    rate_ = sharing_ == 0 ? 0 : std::min(fastest_, capacity_ / static_cast<double>(sharing_));
    bytes_per_tick_ = rate_ / ticks_per_second;
  }

  bool empty() const { return flows_.empty(); }
  double rate() const { return rate_; }
  /// The next to end, and when, from the last share() on. Precondition of both: not empty.
  Member first() const { return flows_.front().member; }
  double ticks_left() const { return (flows_.front().end - served_) / bytes_per_tick_; }
  Ticks busy() const { return busy_; }

  template <class Visit>
  void each_member(Visit visit) const {
    for (const Flow& flow : flows_) visit(flow.member);
  }

 private:
  struct Flow {
    double end;              // of `served_`
    std::uint32_t sequence;  // of equal ends, the first to come
    Member member;
    bool operator>(const Flow& other) const { return end != other.end ? end > other.end : sequence > other.sequence; }
  };

  void serve_until(Ticks now) {
    served_ += bytes_per_tick_ * static_cast<double>(now - since_);
    since_ = now;
  }

  // Where a double still tells a millionth of a byte; the sum starts again there.
  static constexpr double most_served = std::size_t{1} << 33;
  void start_over();

  std::vector<LinkId> links_;
  double capacity_, fastest_;  // bytes per second
  double rate_ = 0;            // of each flow
  double bytes_per_tick_ = 0;  // the same
  std::size_t sharing_ = 0;    // flows at that rate
  double served_ = 0;          // bytes
  Ticks since_ = 0, busy_since_ = 0, busy_ = 0;
  std::vector<Flow> flows_;  // a heap
  std::uint32_t next_sequence_ = 0;
};

using TrunkId = std::int32_t;

struct Trunks {
  std::vector<Trunk> trunks;
  std::vector<TrunkId> of_link;  // -1: none

  /// -1: the route needs no sharing, or a solver.
  TrunkId of(const Route& route) const;
};

/// Among all routes in use. `is_private`, by link: never carries two flows at a time.
Trunks find_trunks(const RouteTable& routes, std::span<const Link> links, const std::vector<bool>& is_private);

}  // namespace orrery
