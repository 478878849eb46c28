#include "scenarios/fault_plan.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <stdexcept>
#include <string>

#include "scenarios/nearest.hpp"
#include "sim/topologies.hpp"

namespace orrery {
namespace {

LinkId link_named(const Table& table, const Cluster& cluster) {
  const std::string name = table.string("link");
  std::vector<std::string> names;
  for (const Link& link : cluster.links()) {
    if (link.name == name) return static_cast<LinkId>(names.size());
    names.push_back(link.name);
  }
  const auto near = nearest(name, names);
  throw table.error_at("link", fmt::format("there is no link \"{}\" in this cluster, {}", in_one_line(name),
                                           near ? fmt::format("did you mean \"{}\"?", *near)
                                                : fmt::format("links are named like \"{}\"", names.front())));
}

/// Rounded as durations of the simulation are.
Ticks time(const Table& table, std::string_view key) {
  return to_ticks(table.seconds(key));
}

LinkFault read_link_fault(const Table& table, const Cluster& cluster, FaultPlan& plan, double link_efficiency) {
  LinkFault fault;
  fault.link = link_named(table, cluster);
  fault.at = time(table, "at");
  if (table.has("until")) fault.until = time(table, "until");
  if (table.has("dead")) {
    if (!table.boolean("dead"))
      throw table.error_at("dead", "dead = false is no fault, write dead = true, or a bandwidth instead");
    fault.reroutes = table.choice("then", {"stall", "reroute"}) == "reroute";
    plan.stated.emplace_back();
    return fault;
  }
  const BytesPerSecond stated = table.bandwidth("bandwidth");
  const Link& link = cluster.links()[static_cast<std::size_t>(fault.link)];
  const double efficiency = is_network_link(link) ? 1 : link_efficiency;
  fault.bandwidth = stated * efficiency;
  const BytesPerSecond usual = link.bandwidth;
  if (fault.is_dead())
    throw table.error_at("bandwidth",
                         "bandwidth is 0 (the link would be dead), write dead = true and what happens then");
  if (fault.bandwidth > usual) {
    throw table.error_at("bandwidth", fmt::format("bandwidth = {} is more than the link has ({}), write less",
                                                  format(stated), format(usual / efficiency)));
  }
  plan.stated.push_back(stated);
  return fault;
}

Pause read_pause(const Table& table, Rank ranks) {
  Pause pause;
  pause.rank = static_cast<Rank>(table.count("rank", 0, ranks - 1));
  pause.at = time(table, "at");
  const Ticks length = time(table, "for");
  if (length == 0) throw table.error_at("for", "for = 0 s is no pause, write more or remove it");
  if (length > std::numeric_limits<Ticks>::max() - pause.at)
    throw table.error_at("for", "the pause ends beyond 2^63 ps (106 days), write less");
  pause.until = pause.at + length;
  return pause;
}

/// Runs a check of sim/ on an entry of the list.
template <class Check>
void check_here(const Table& table, Check check) {
  try {
    check();
  } catch (const std::invalid_argument& error) {
    throw table.error_here(error.what());
  }
}

template <class Fault>
void check_begins(const std::vector<Fault>& faults, const std::vector<Table>& places, Ticks end) {
  for (std::size_t i = 0; i < faults.size(); ++i) {
    if (faults[i].at < end) continue;
    throw places[i].error_at("at", fmt::format("at = {} is beyond the run (it ends after {}), write less or remove it",
                                               format(to_seconds(faults[i].at)), format(to_seconds(end))));
  }
}

}  // namespace

void FaultPlan::check_end(Ticks end) const {
  if (!faults) return;
  check_begins(faults->links, links, end);
  check_begins(faults->pauses, pauses, end);
}

FaultPlan read_fault_plan(const Table& table, const Cluster& cluster, double link_efficiency) {
  FaultPlan plan;
  Faults faults;
  if (table.has("links")) plan.links = table.tables("links");
  if (table.has("pauses")) plan.pauses = table.tables("pauses");
  for (const Table& entry : plan.links) faults.links.push_back(read_link_fault(entry, cluster, plan, link_efficiency));
  for (const Table& entry : plan.pauses) faults.pauses.push_back(read_pause(entry, cluster.ranks()));
  table.finish();  // a mistyped key is the likely reason for what follows
  if (faults.empty()) throw table.error_here("[faults] has no fault, add links or pauses, or remove it");
  for (std::size_t i = 0; i < faults.links.size(); ++i)
    check_here(plan.links[i], [&] { check_link_fault(faults, i, cluster); });
  for (std::size_t i = 0; i < faults.links.size(); ++i)
    check_here(plan.links[i], [&] { check_way_around(faults, i, cluster); });
  for (std::size_t i = 0; i < faults.pauses.size(); ++i)
    check_here(plan.pauses[i], [&] { check_pause(faults, i, cluster); });
  plan.faults = std::make_shared<const Faults>(std::move(faults));
  return plan;
}

}  // namespace orrery
