// The other half of the event tier: what it gives at the end, and who waits if it never comes.
#include <fmt/format.h>

#include <algorithm>

#include "sim/event_engine.hpp"

namespace orrery {

std::string EventEngine::name(StreamId stream) const {
  const StreamState& self = streams_[stream];
  return blocks_.name(rank_of(stream), self.block_number, *self.op);
}

/// No event is left, so whatever still waits waits forever.
void EventEngine::check_all_done() {
  constexpr int most_named = 12;
  int waiting = 0;
  std::string lines;
  for (StreamId stream = 0; stream < static_cast<StreamId>(streams_.size()); ++stream) {
    const StreamState& self = streams_[stream];
    if (self.op == nullptr || ++waiting > most_named) continue;
    const CompiledWait& wait = self.op->waits[self.next_wait];
    const Rank rank = blocks_.wrap(rank_of(stream), wait.signal.distance);
    const std::int64_t before = self.counts_before == nullptr ? 0 : self.counts_before[wait.signal.signal];
    lines += fmt::format("\n  {} waits for signal {} of rank {}: it has been raised {} times, wanted are {}",
                         name(stream), program_.signals()[wait.signal.signal], rank,
                         signals_[rank * signals_per_rank_ + wait.signal.signal].count, before + wait.count);
  }
  if (waiting == 0) return;
  if (waiting > most_named) lines += fmt::format("\n  and {} more", waiting - most_named);
  throw DeadlockError(fmt::format("deadlock after {}: {} op{} can never start or end{}", format(to_seconds(now_)),
                                  waiting, waiting == 1 ? "" : "s", lines));
}

void EventEngine::add_direct_routes(SimulationResult& result) {
  for (std::size_t column = 0; column < direct_routes_.size(); ++column) {
    for (Rank rank = 0; rank < blocks_.ranks(); ++rank) {
      const DirectRoute& direct = direct_routes_[column][static_cast<std::size_t>(rank)];
      if (!(direct.bytes > 0)) continue;
      for (const LinkId link : blocks_.routes().at(static_cast<RouteTable::Column>(column), rank).route->links) {
        result.links[static_cast<std::size_t>(link)].bytes += Bytes::from_si(direct.bytes);
        result.links[static_cast<std::size_t>(link)].busy += direct.moving;
      }
    }
  }
}

SimulationResult EventEngine::result() {
  SimulationResult result;
  CriticalPath& critical = result.critical_path;
  critical.by_category.resize(path_size_ - 2);
  if (const std::int64_t last = accounts_.last_stream(); last >= 0) {
    const Path longest = path(static_cast<StreamId>(last));
    std::copy_n(longest, path_size_ - 2, critical.by_category.begin());
    critical.contention = longest[path_size_ - 2];
    critical.launch = longest[path_size_ - 1];
  }
  accounts_.close(result);
  for (LinkId link = 0; link < static_cast<LinkId>(cluster_.links().size()); ++link) {
    result.links.push_back(LinkTotals{Bytes::from_si(network_.bytes_over(link)), network_.busy(link)});
  }
  add_direct_routes(result);
  result.events = handled_;
  if (sink_ != nullptr) {
    spans_.flush();
    link_tracer_.flush();
  }
  return result;
}

}  // namespace orrery
