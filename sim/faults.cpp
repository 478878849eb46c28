#include "sim/faults.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <stdexcept>

namespace orrery {
namespace {

std::string at(Ticks time) {
  return format(to_seconds(time));
}

/// `what` ("link a -> b fails"): from a time until another, which is not to be shared with one before in the list.
template <class Fault, class Same>
void check_times(const std::vector<Fault>& faults, std::size_t i, const std::string& what, Same same) {
  const Fault& fault = faults[i];
  if (fault.at < 0) throw std::invalid_argument(fmt::format("{} before the run begins, give 0 s or more", what));
  if (fault.until <= fault.at) {
    throw std::invalid_argument(
        fmt::format("{} at {} and is back at {} (not later), give a later end", what, at(fault.at), at(fault.until)));
  }
  for (std::size_t other = 0; other < i; ++other) {
    if (!same(faults[other], fault) || fault.at >= faults[other].until || faults[other].at >= fault.until) continue;
    throw std::invalid_argument(
        fmt::format("{} at {} and at {}, before it is back from the other (one fault at a "
                    "time), let the first end before the second begins",
                    what, at(faults[other].at), at(fault.at)));
  }
}

}  // namespace

void check_link_fault(const Faults& faults, std::size_t index, const Cluster& cluster) {
  const LinkFault& fault = faults.links[index];
  if (fault.link < 0 || fault.link >= static_cast<LinkId>(cluster.links().size())) {
    throw std::invalid_argument(
        fmt::format("there is no link number {} (there are {}, counted from 0)", fault.link, cluster.links().size()));
  }
  const Link& link = cluster.links()[static_cast<std::size_t>(fault.link)];
  check_times(faults.links, index, fmt::format("link {} fails", link.name),
              [](const LinkFault& a, const LinkFault& b) { return a.link == b.link; });
  if (!(fault.bandwidth.si() >= 0) || fault.bandwidth > link.bandwidth) {
    throw std::invalid_argument(fmt::format("link {} would go on at {} (it has {}), give less", link.name,
                                            format(fault.bandwidth), format(link.bandwidth)));
  }
  if (fault.reroutes && !fault.is_dead())
    throw std::invalid_argument(fmt::format("link {} is slow, not dead (routes stay), give no reroute", link.name));
}

void check_pause(const Faults& faults, std::size_t index, const Cluster& cluster) {
  const Rank rank = faults.pauses[index].rank;
  if (rank < 0 || rank >= cluster.ranks())
    throw std::invalid_argument(fmt::format("rank {} pauses (there are {}, counted from 0)", rank, cluster.ranks()));
  check_times(faults.pauses, index, fmt::format("rank {} pauses", rank),
              [](const Pause& a, const Pause& b) { return a.rank == b.rank; });
}

void check_way_around(const Faults& faults, std::size_t index, const Cluster& cluster) {
  const LinkFault& fault = faults.links[index];
  if (!fault.reroutes) return;
  std::vector<LinkId> closed;
  for (const LinkFault& other : faults.links) {
    if (other.reroutes && other.at <= fault.at && fault.at < other.until) closed.push_back(other.link);
  }
  try {
    cluster.without(closed).check_connected();
  } catch (const std::runtime_error& error) {
    throw std::invalid_argument(fmt::format("there is no way around link {} at {} ({})",
                                            cluster.links()[static_cast<std::size_t>(fault.link)].name, at(fault.at),
                                            error.what()));
  }
}

void check(const Faults& faults, const Cluster& cluster) {
  for (std::size_t i = 0; i < faults.links.size(); ++i) check_link_fault(faults, i, cluster);
  for (std::size_t i = 0; i < faults.links.size(); ++i) check_way_around(faults, i, cluster);
  for (std::size_t i = 0; i < faults.pauses.size(); ++i) check_pause(faults, i, cluster);
}

std::string describe(const Faults& faults, const Cluster& cluster) {
  const auto earlier = [](const auto& a, const auto& b) { return a.at < b.at; };
  const auto link = std::min_element(faults.links.begin(), faults.links.end(), earlier);
  const auto pause = std::min_element(faults.pauses.begin(), faults.pauses.end(), earlier);
  if (pause != faults.pauses.end() && (link == faults.links.end() || pause->at < link->at))
    return fmt::format("rank {} pauses at {}", pause->rank, at(pause->at));
  return fmt::format("link {} {} at {}", cluster.links()[static_cast<std::size_t>(link->link)].name,
                     link->is_dead() ? "dies" : "slows down", at(link->at));
}

}  // namespace orrery
