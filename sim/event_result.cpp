// The other half of the event tier: what it gives at the end, and who waits if it never comes.
#include <fmt/format.h>

#include <algorithm>

#include "sim/event_engine.hpp"

namespace orrery {

std::string EventEngine::name(StreamId stream) const {
  const StreamState& self = streams_[stream];
  return blocks_.name(self.rank, self.block->number, *self.op);
}

/// No event is left, so whatever still waits waits forever. First those that wait for a link, since others may wait for
/// them.
void EventEngine::check_all_done() {
  constexpr int most_named = 12;
  int waiting = 0;
  std::string lines;
  const std::map<StreamId, std::string> hindrances = this->hindrances();
  for (const auto& [stream, link] : hindrances) {
    if (++waiting <= most_named) lines += fmt::format("\n  {} waits for {}", name(stream), link);
  }
  for (StreamId stream = 0; stream < static_cast<StreamId>(streams_.size()); ++stream) {
    const StreamState& self = streams_[stream];
    if (self.op == nullptr || hindrances.contains(stream) || ++waiting > most_named) continue;
    const CompiledWait& wait = self.op->waits[self.next_wait - std::size_t{1}];
    lines += fmt::format("\n  {} waits for signal {} of rank {}: it has been raised {} times, wanted are {}",
                         name(stream), program_.signals()[static_cast<std::size_t>(wait.signal.signal)],
                         wrap(self.rank, wait.signal.distance), signal(self, wait.place).count, self.wanted);
  }
  if (waiting == 0) return;
  if (waiting > most_named) lines += fmt::format("\n  and {} more", waiting - most_named);
  throw DeadlockError(fmt::format("deadlock after {}: {} op{} can never start or end{}", format(to_seconds(now_)),
                                  waiting, waiting == 1 ? "" : "s", lines));
}

SimulationResult EventEngine::result() {
  SimulationResult result;
  CriticalPath& critical = result.critical_path;
  critical.by_category.resize(program_.categories().size());
  // Of several streams that end last, the first.
  const auto last = std::max_element(streams_.begin(), streams_.end(), [](const StreamState& a, const StreamState& b) {
    return a.ready_at < b.ready_at;
  });
  if (last != streams_.end()) {
    result.end = last->ready_at;
    const Path longest = path(static_cast<StreamId>(last - streams_.begin()));
    if (contention_row_ >= 0) critical.contention = longest[contention_row_];
    if (launch_row_ >= 0) critical.launch = longest[launch_row_];
    Ticks rest = result.end - critical.contention - critical.launch;
    Ticks* remainder = nullptr;
    for (std::size_t c = 0; c < row_of_category_.size(); ++c) {
      Ticks& share = critical.by_category[c];
      if (row_of_category_[c] == gets_the_rest) remainder = &share;
      if (row_of_category_[c] >= 0) share = longest[row_of_category_[c]];
      rest -= share;
    }
    if (remainder != nullptr) *remainder = rest;
  }
  accounts_.close(program_.categories().size(), program_.phases().size(), result);
  for (LinkId link = 0; link < static_cast<LinkId>(cluster_.links().size()); ++link) {
    result.links.push_back(LinkTotals{{}, network_.busy(link)});
  }
  for (const Trunk& trunk : trunks_.trunks) {
    for (const LinkId link : trunk.links()) result.links[static_cast<std::size_t>(link)].busy = trunk.busy();
  }
  add_lanes(result);
  result.events = handled_;
  if (sink_ != nullptr) {
    spans_.flush();
    link_tracer_.flush();
  }
  return result;
}

void EventEngine::add_lanes(SimulationResult& result) const {
  const auto add = [&](const Lane& lane, Rank source, Rank destination) {
    if (!(lane.bytes > 0)) return;
    const Bytes bytes = Bytes::from_si(lane.bytes);
    result.ranks[static_cast<std::size_t>(source)].sent += bytes;
    result.ranks[static_cast<std::size_t>(destination)].received += bytes;
    for (const LinkId link : lane.route->links) {
      LinkTotals& totals = result.links[static_cast<std::size_t>(link)];
      totals.bytes += bytes;
      if (trunks_.of_link[static_cast<std::size_t>(link)] < 0) totals.busy += lane.moving;
    }
  };
  const auto ranks = static_cast<std::size_t>(blocks_.ranks());
  for (std::size_t i = 0; i < lanes_.size(); ++i) {
    const auto source = static_cast<Rank>(i % ranks);
    add(lanes_[i], source, wrap(source, blocks_.routes().distance(static_cast<RouteTable::Column>(i / ranks))));
  }
  for (const Detour& detour : detours_) add(detour.lane, detour.source, detour.destination);
}

}  // namespace orrery
