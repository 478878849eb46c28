// The end of a tick in the event tier: who shares what from now on, and what therefore ends when.
#include <algorithm>
#include <limits>

#include "sim/event_engine.hpp"

namespace orrery {

void EventEngine::settle_trunk(TrunkId id) {
  Trunk& trunk = trunks_.trunks[id];
  trunk_states_[id].is_dirty = false;
  const double old_rate = trunk.rate();
  trunk.share(now_);
  if (trunk.empty() && !trunk.expects()) return;
  if (rates_matter_ && trunk.rate() != old_rate) {
    trunk.each_member([&](MessageId message) { change_rate(messages_[message], old_rate, trunk.rate()); });
  }
  if (!trunk.empty()) time_trunk(id, now_);
  expect_change(id);
}

/// From its last sharing on.
void EventEngine::time_trunk(TrunkId id, Ticks shared_at) {
  const Trunk& trunk = trunks_.trunks[id];
  const StreamId stream = messages_[trunk.first()].stream;
  trunk_states_[id].end = later(shared_at, rounded(trunk.ticks_left(), stream), stream);
}

/// Flows that come cost no event as long as others are under way that end before them. An event that is too early
/// stays; when it comes, another takes its place.
void EventEngine::expect_change(TrunkId id) {
  TrunkState& state = trunk_states_[id];
  const Trunk& trunk = trunks_.trunks[id];
  Ticks next = trunk.empty() ? trunk.next_arrival() : state.end;
  if (!trunk.empty() && trunk.expects() && !trunk.arrivals_end_later()) next = std::min(next, trunk.next_arrival());
  if (state.is_pending && state.scheduled <= next) return;
  state.is_pending = true;
  state.scheduled = next;
  push(next, EventKind::trunk_change, id, ++state.generation);
}

void EventEngine::settle() {
  for (const TrunkId trunk : dirty_trunks_) settle_trunk(trunk);
  dirty_trunks_.clear();
  if (network_.is_unsettled()) settle_flows();
  if (!dirty_flows_.empty()) settle_paces();
  for (const Rank rank : dirty_) settle_compute(rank);
  dirty_.clear();
  is_unsettled_ = sink_ != nullptr;
  if (sink_ != nullptr) link_tracer_.update(now_);
}

/// Of transfers beside compute that has begun or ended.
void EventEngine::settle_paces() {
  std::sort(dirty_flows_.begin(), dirty_flows_.end());
  dirty_flows_.erase(std::unique(dirty_flows_.begin(), dirty_flows_.end()), dirty_flows_.end());
  for (const FlowId flow : dirty_flows_) {
    // It may have ended at this very tick, and another may have its place.
    if (!network_.contains(flow) || !(streams_[messages_[flows_[flow].message].stream].op->sms > 0)) continue;
    const double old_rate = pace(flow);
    if (network_.rate(flow) != old_rate) time_flow(flow, old_rate);
  }
  dirty_flows_.clear();
}

void EventEngine::settle_flows() {
  for (const FlowNetwork::Change& change : network_.solve(now_)) time_flow(change.flow, change.old_rate);
}

void EventEngine::time_flow(FlowId id, double old_rate) {
  FlowState& flow = flows_[id];
  const MessageState& message = messages_[flow.message];
  ++flow.generation;
  change_rate(message, old_rate, network_.rate(id));
  if (network_.rate(id) == 0) return;  // a dead link
  const double left = network_.seconds_left(id) * ticks_per_second;
  push(later(now_, rounded(left, message.stream), message.stream), EventKind::flow_end, id, flow.generation);
}

/// The compute op that begins or ends on `rank` changes how long the bytes of its transfers take.
void EventEngine::slow_transfers(Rank rank, double times) {
  const auto place = static_cast<std::size_t>(rank);
  if (slowing_[place] == times) return;
  slowing_[place] = times;
  dirty_flows_.insert(dirty_flows_.end(), slowed_[place].begin(), slowed_[place].end());
  is_unsettled_ = true;
}

/// The start-up of a transfer by SMs that sends one message is the time by which it is slower than its links, from the
/// first byte to the last.
bool EventEngine::is_paced(const CompiledOp& op) const {
  return slows_transfers_ && op.sms > 0 && op.stream != Stream::compute && op.message_count == 1;
}

/// Both ends copy; the slower one counts. Returns the rate it had.
double EventEngine::pace(FlowId flow) {
  const MessageState& message = messages_[flows_[flow].message];
  const double times = std::max(slowing_[static_cast<std::size_t>(message.source)],
                                slowing_[static_cast<std::size_t>(message.destination)]);
  const CompiledOp& op = *streams_[message.stream].op;
  const double size = message.message->size;
  const double most = is_paced(op) && op.duration > 0 && size > 0
                          ? size / (to_seconds(op.duration).si() + size / message.lane->bandwidth)
                          : std::numeric_limits<double>::infinity();
  return network_.pace(flow, most, times, now_);
}

void EventEngine::leave_network(FlowId flow) {
  if (!slows_transfers_) return;
  const MessageState& message = messages_[flows_[flow].message];
  for (const Rank rank : {message.source, message.destination})
    std::erase(slowed_[static_cast<std::size_t>(rank)], flow);
}

void EventEngine::settle_compute(Rank rank) {
  is_dirty_[rank] = 0;
  ComputeRate& compute = compute_[rank];
  if (!compute.running() || !compute.update(cluster_.gpu(), now_) || compute.is_paused()) return;
  const auto stream = static_cast<StreamId>(static_cast<std::size_t>(rank) * streams_in_use_.size());
  const Ticks left = compute.exact() ? compute.exact_ticks_left() : rounded(compute.ticks_left(), stream);
  push(later(now_, left, stream), EventKind::compute_end, stream, compute.generation());
}

void EventEngine::mark_dirty(Rank rank) {
  if (is_dirty_[rank] != 0 || !compute_[rank].running()) return;
  is_dirty_[rank] = 1;
  is_unsettled_ = true;
  dirty_.push_back(rank);
}

}  // namespace orrery
