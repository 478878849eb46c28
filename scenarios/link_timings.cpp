#include "scenarios/link_timings.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "cost_models/collective_tables.hpp"
#include "cost_models/nccl_channels.hpp"

namespace orrery {
namespace {

/// NCCL's rate depends on the number of ranks: the table of as many, or of the most that were measured below it.
const LinkTable* table_of(const Scenario& s, const std::string& link, const std::string& op) {
  const auto find = [&](const std::string& name) {
    return s.profile.kernels->link_of(link, name_of(s.implementation.transport), name);
  };
  const LinkTable* found = find(op);
  for (Rank ranks = 3; s.implementation.transport == Transport::nccl && ranks <= s.context_ranks(); ++ranks) {
    if (const LinkTable* more = find(fmt::format("{} {} ranks", op, ranks))) found = more;
  }
  return found;
}

}  // namespace

LinkTimings link_timings(const Scenario& s) {
  LinkTimings timings;
  const auto joining = std::find_if(s.links.begin(), s.links.end(), [](const auto& link) { return link.domain > 1; });
  if (joining == s.links.end()) return timings;
  timings.domain = joining->domain;
  if (!s.profile.kernels || s.ranks() < 2) return timings;
  const std::string& link = joining->type.name;
  const auto timing_of = [&](const LinkTable& table) {
    LinkTiming timing;
    timing.table = table;
    timing.latency = s.cluster.route(0, 1).latency;
    // The table holds for the link as it was measured; a what-if of another bandwidth changes the bytes' part alone.
    timing.rate = joining->type.bandwidth * s.profile.link_efficiency.value;
    return timing;
  };
  const bool nccl = s.implementation.transport == Transport::nccl;
  const MeasuredKernels& kernels = *s.profile.kernels;
  if (const LinkTable* table = table_of(s, link, nccl ? "send_recv" : "peer_copy both")) {
    timings.neighbours = timing_of(*table);
    if (s.implementation.nccl_send_recv) timings.neighbours->by_channels = send_recv_by_channels(kernels, link);
  }
  if (!nccl) return timings;
  const auto collective = [&](const std::optional<LinkTable>& table, int hops) {
    return table ? std::optional(CollectiveTiming{timing_of(*table), hops}) : std::nullopt;
  };
  timings.gather = collective(ring_collective_over(s.groups, kernels, link, "all_gather"), s.groups - 1);
  timings.scatter = collective(ring_collective_over(s.groups, kernels, link, "reduce_scatter"), s.groups - 1);
  timings.exchange = collective(all_to_all_over(s.members, kernels, link), 1);
  return timings;
}

}  // namespace orrery
