#include "sim/simulate.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <string>

#include "sim/simulator.hpp"

namespace orrery {

/// No event is left, so whatever still waits waits forever.
void Simulator::check_all_done() {
  constexpr int most_named = 12;
  int waiting = 0;
  std::string lines;
  for (StreamId stream = 0; stream < static_cast<StreamId>(streams_.size()); ++stream) {
    const StreamState& self = streams_[stream];
    if (self.op < 0 || ++waiting > most_named) continue;
    const PendingOp& op = queues_.op(self.op);
    const PendingWait& wait = op.waits[self.next_wait];
    lines += fmt::format("\n  {} waits for signal {} of rank {}: it has been raised {} times, wanted are {}",
                         queues_.name(stream, op), program_.signals()[wait.signal % queues_.signals_per_rank()],
                         wait.signal / queues_.signals_per_rank(), signal_counts_[wait.signal], wait.count);
  }
  if (waiting == 0) return;
  if (waiting > most_named) lines += fmt::format("\n  and {} more", waiting - most_named);
  bool held_back = false;
  for (Rank rank = 0; rank < program_.ranks(); ++rank) held_back = held_back || queues_.held_back(rank);
  if (held_back) {
    lines += fmt::format("\n(ops further than {} blocks ahead of a waiting one are not issued)", lookahead_blocks);
  }
  throw DeadlockError(fmt::format("deadlock after {}: {} op{} can never start or end{}", format(to_seconds(now_)),
                                  waiting, waiting == 1 ? "" : "s", lines));
}

SimulationResult Simulator::result() {
  SimulationResult result;
  StreamId last = 0;
  for (StreamId stream = 0; stream < static_cast<StreamId>(streams_.size()); ++stream) {
    totals_[rank_of(stream)].stream_busy[stream % streams_per_rank] = streams_[stream].busy;
    if (streams_[stream].last_end > streams_[last].last_end) last = stream;
  }
  CriticalPath& critical = result.critical_path;
  critical.by_category.resize(path_size_ - 2);
  if (!streams_.empty()) {
    result.end = streams_[last].last_end;
    std::copy_n(path(last), path_size_ - 2, critical.by_category.begin());
    critical.contention = path(last)[path_size_ - 2];
    critical.launch = path(last)[path_size_ - 1];
  }
  for (std::size_t rank = 0; rank < totals_.size(); ++rank) clocks_[rank].close(result.end, totals_[rank]);
  result.ranks = std::move(totals_);
  for (const PhaseClock& phase : phases_) result.phases.push_back(phase.totals());
  for (LinkId link = 0; link < static_cast<LinkId>(cluster_.links().size()); ++link) {
    result.links.push_back(LinkTotals{Bytes::from_si(network_.bytes_over(link)), network_.busy(link)});
  }
  result.events = handled_;
  if (sink_ != nullptr) {
    flush_spans();
    link_tracer_.flush();
  }
  return result;
}

SimulationResult simulate(const Program& program, const Cluster& cluster, SpanSink* sink) {
  return Simulator(program, cluster, sink).run();
}

}  // namespace orrery
