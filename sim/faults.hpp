// What happens to a cluster while a program runs: links that slow down or die, ranks that pause.
#pragma once

#include <limits>
#include <string>
#include <vector>

#include "sim/cluster.hpp"
#include "sim/program.hpp"
#include "sim/units.hpp"

namespace orrery {

/// One direction of a cable. Dead with `reroutes`: messages that depart from then on go around it, by the best route
/// without it; those under way do so with the bytes they have left, after the latency of that route. Dead without: they
/// wait for it. What is left of a message on a link that slows down takes the new, fair share of its bandwidth.
struct LinkFault {
  LinkId link = -1;
  Ticks at = 0;
  Ticks until = std::numeric_limits<Ticks>::max();  // when it is as before
  BytesPerSecond bandwidth;                         // 0: dead
  bool reroutes = false;

  bool is_dead() const { return !(bandwidth > BytesPerSecond()); }
};

/// The SMs of a rank stand still: no compute op goes on, and messages of transfers that hold SMs move no bytes, whether
/// it is their sender or receiver that pauses. Copy engines, start-ups, latencies and the host go on.
struct Pause {
  Rank rank = -1;
  Ticks at = 0;
  Ticks until = 0;
};

struct Faults {
  std::vector<LinkFault> links;
  std::vector<Pause> pauses;

  bool empty() const { return links.empty() && pauses.empty(); }
};

/// Throws std::invalid_argument, with the reason, if they cannot happen to this cluster: a link or a rank that is not
/// there or has two faults at the same time, a time before 0, an end before the begin, a bandwidth beyond that of the
/// link, or a way around that does not exist.
void check(const Faults& faults, const Cluster& cluster);
// The same for one of them, and those before it in its list.
void check_link_fault(const Faults& faults, std::size_t index, const Cluster& cluster);
void check_pause(const Faults& faults, std::size_t index, const Cluster& cluster);
/// Of a link that reroutes, with all those that do when it begins to.
void check_way_around(const Faults& faults, std::size_t index, const Cluster& cluster);

/// The first of them as a reason: "link gpu0 -> nvswitch fails at 2 ms".
std::string describe(const Faults& faults, const Cluster& cluster);

}  // namespace orrery
