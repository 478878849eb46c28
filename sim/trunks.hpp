// Links that many flows share but that need no solver: processor sharing in virtual time.
#pragma once

#include <algorithm>
#include <cstdint>
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
    if (empty()) busy_since_ = now;
    serve_until(now);
    const double end = served_ + size;
    std::size_t place = flows_.size();
    flows_.emplace_back();
    for (; place > first_ && flows_[place - 1].end > end; --place) flows_[place] = flows_[place - 1];
    flows_[place] = {end, member};
  }
  /// The same, of one that comes later: it is added by admit().
  void expect(Member member, double size, Ticks at);
  bool expects() const { return expected_ > 0; }
  /// Precondition: it expects a flow.
  Ticks next_arrival() const { return arrivals_[next_arrival_].at; }
  /// Adds those that come first, at the time at which they come.
  void admit();
  /// Whatever comes ends after the next to end, since it is as far behind or has as much to carry. Precondition: not
  /// empty.
  bool arrivals_end_later() const { return flows_[first_].end <= served_ + least_expected_; }

  /// Appends those that end before the next tick: the first at any rate, and what ends with it.
  void remove_first(Ticks now, std::vector<Member>& ended);
  void share(Ticks now) {
    serve_until(now);
    if (served_ > most_served) start_over();
    if (size() == sharing_) return;
    sharing_ = size();
    rate_ = sharing_ == 0 ? 0 : std::min(fastest_, capacity_ / static_cast<double>(sharing_));
    bytes_per_tick_ = rate_ / ticks_per_second;
  }

  bool empty() const { return first_ == flows_.size(); }
  double rate() const { return rate_; }
  /// The next to end, and when, from the last share() on. Precondition of both: not empty.
  Member first() const { return flows_[first_].member; }
  double ticks_left() const { return (flows_[first_].end - served_) / bytes_per_tick_; }
  Ticks busy() const { return busy_; }

  template <class Visit>
  void each_member(Visit visit) const {
    for (std::size_t i = first_; i < flows_.size(); ++i) visit(flows_[i].member);
  }

 private:
  struct Flow {
    double end = 0;  // of `served_`
    Member member = 0;
  };

  std::size_t size() const { return flows_.size() - first_; }
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
  std::vector<Flow> flows_;  // from first_ on; the next to end, then the one after it, ...
  std::size_t first_ = 0;
  struct Arrival {
    Ticks at = 0;
    double size = 0;
    Member member = 0;
  };
  std::vector<Arrival> arrivals_;  // from next_arrival_ on, in the order of their times
  std::size_t next_arrival_ = 0, expected_ = 0;
  double least_expected_ = std::numeric_limits<double>::infinity();  // no arrival is smaller
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
