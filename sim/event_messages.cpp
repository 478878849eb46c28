// What is under way in the event tier: over links of its own, over a trunk, or as a flow of the max-min network.
#include <algorithm>

#include "sim/event_simple_ops.hpp"

namespace orrery {

void EventEngine::depart(StreamId stream, StreamState& self, const CompiledMessage& message, Ticks departure) {
  const Rank source = wrap(self.rank, message.source);
  Lane& usual = this->lane(message, source);
  Lane& lane = faults_ ? open_way(usual, source, wrap(self.rank, message.destination)) : usual;
  lane.bytes += message.size;
  const Ticks first_byte = later(departure, lane.latency, stream);
  const MessageId id = self.op->message_count == 1 ? stream : new_message();
  messages_[id] = {&message, &lane, source, wrap(self.rank, message.destination), stream, -1, 0};
  if (lane.is_direct) {
    const Ticks moving = moving_alone(message, lane, stream);
    lane.moving += moving;
    if (!rates_matter_) return push(later(first_byte, moving, stream), EventKind::arrival, id);
  }
  if (lane.trunk >= 0 && !rates_matter_) return approach(id, lane.trunk, first_byte);
  if (first_byte == now_) {
    end_latency(id);
  } else {
    push(first_byte, EventKind::latency_end, id);
  }
}

EventEngine::MessageId EventEngine::new_message() {
  const MessageId id = free_message_;
  if (id < 0) {
    messages_.emplace_back();
    return static_cast<MessageId>(messages_.size()) - 1;
  }
  free_message_ = messages_[id].next_free;
  return id;
}

void EventEngine::open_lane(Lane& lane, const CompiledMessage& message, Rank source) {
  const CachedRoute& route = blocks_.routes().at(message.route, source);
  lane.route = route.route;
  lane.latency = route.latency;
  lane.bandwidth = route.bandwidth;
  if (slows_transfers_) return;  // all share links as flows, whose rates can change at any time
  lane.trunk = trunks_.of(*route.route);
  const std::vector<LinkId>& links = route.route->links;
  lane.is_direct = std::all_of(links.begin(), links.end(),
                               [&](LinkId link) { return is_private_link_[static_cast<std::size_t>(link)]; });
}

void EventEngine::end_latency(MessageId id) {
  MessageState& message = messages_[id];
  const Lane& lane = *message.lane;
  if (lane.is_direct) {
    change_rate(message, 0, lane.bandwidth);
    return push(later(now_, moving_alone(*message.message, lane, message.stream), message.stream), EventKind::arrival,
                id);
  }
  is_unsettled_ = true;
  if (lane.trunk >= 0) {
    Trunk& trunk = trunks_.trunks[static_cast<std::size_t>(lane.trunk)];
    trunk.add(id, message.message->size, now_);
    message.moving_since = now_;
    if (rates_matter_) change_rate(message, 0, trunk.rate());
    return mark_trunk_dirty(lane.trunk);
  }
  if (faults_ && hindered(id)) return;
  const double bytes = faults_ ? bytes_to_send(id) : message.message->size;
  const FlowId flow = network_.add(*lane.route, Bytes::from_si(bytes), now_);
  if (flow >= static_cast<FlowId>(flows_.size())) flows_.resize(static_cast<std::size_t>(flow) + 1);
  flows_[flow].message = id;
  if (!slows_transfers_ || !(streams_[message.stream].op->sms > 0)) return;
  for (const Rank rank : {message.source, message.destination}) slowed_[static_cast<std::size_t>(rank)].push_back(flow);
  pace(flow);
}

void EventEngine::arrive(MessageId id) {
  change_rate(messages_[id], messages_[id].lane->bandwidth, 0);
  deliver(id);
}

void EventEngine::end_flow(FlowId flow) {
  const MessageId id = flows_[flow].message;
  ++flows_[flow].generation;
  change_rate(messages_[id], network_.rate(flow), 0);
  leave_network(flow);
  network_.remove(flow, now_);
  is_unsettled_ = true;
  deliver(id);
}

/// To a trunk, which takes it in when it next changes. Only if nobody needs to know rates in between.
void EventEngine::approach(MessageId id, TrunkId trunk, Ticks first_byte) {
  MessageState& message = messages_[id];
  message.moving_since = first_byte;
  trunks_.trunks[trunk].expect(id, message.message->size, first_byte);
  if (!trunk_states_[trunk].is_dirty) expect_change(trunk);
}

/// What has come before this tick.
void EventEngine::admit_to_trunk(TrunkId id) {
  Trunk& trunk = trunks_.trunks[id];
  Ticks last = -1;
  while (trunk.expects() && trunk.next_arrival() < now_) {
    last = trunk.next_arrival();
    trunk.admit();
    trunk.share(last);
  }
  if (last >= 0) time_trunk(id, last);
}

/// False if it is too early: flows have come, and the first ends later.
bool EventEngine::change_trunk(TrunkId id) {
  Trunk& trunk = trunks_.trunks[id];
  trunk_states_[id].is_pending = false;
  admit_to_trunk(id);
  const bool ends = !trunk.empty() && trunk_states_[id].end <= now_;
  const bool comes = trunk.expects() && trunk.next_arrival() == now_;
  if (!ends && !comes) {
    expect_change(id);
    return false;
  }
  is_unsettled_ = true;
  mark_trunk_dirty(id);
  if (ends) end_trunk_flows(id);
  if (comes) trunk.admit();
  return ends;
}

void EventEngine::end_trunk_flows(TrunkId id) {
  Trunk& trunk = trunks_.trunks[id];
  ended_.clear();
  trunk.remove_first(now_, ended_);
  for (const MessageId message : ended_) {
    messages_[message].lane->moving += now_ - messages_[message].moving_since;
    if (rates_matter_) change_rate(messages_[message], trunk.rate(), 0);
    deliver(message);
  }
}

void EventEngine::mark_trunk_dirty(TrunkId trunk) {
  if (trunk_states_[trunk].is_dirty) return;
  trunk_states_[trunk].is_dirty = true;
  dirty_trunks_.push_back(trunk);
}

void EventEngine::change_rate(const MessageState& message, double old_rate, double new_rate) {
  if (sink_ != nullptr) link_tracer_.change(*message.lane->route, old_rate, new_rate);
  if (!hbm_matters_) return;
  for (const Rank rank : {message.source, message.destination}) {
    compute_[rank].change_traffic(old_rate, new_rate);
    mark_dirty(rank);
  }
}

void EventEngine::deliver(MessageId id) {
  MessageState& state = messages_[id];
  const StreamId stream = state.stream;
  StreamState& sender = streams_[stream];
  const Ticks alone = state.lane->latency + moving_alone(*state.message, *state.lane, stream) +
                      (is_paced(*sender.op) ? sender.op->duration : 0);
  if (has_simple_ops_ && sender.op->is_simple) {
    end_shared(state, sender, alone);
    if (fetch(stream, sender, is_compute(sender))) make_ready(stream);
    return;
  }
  accounts_.clock(state.source).leave_comm(now_);
  accounts_.clock(state.destination).leave_comm(now_);

  const bool is_last = --sender.under_way == 0;
  const Path path = is_last ? this->path(stream) : message_path_.data();
  if (!is_last) copy_path(this->path(stream), path);
  extend_path(path, *sender.op, alone, now_ - sender.ready_at);
  if (state.message->delivered_place != no_signal) raise(sender, state.message->delivered_place, path);
  if (id >= static_cast<MessageId>(streams_.size())) {
    state.next_free = free_message_;
    free_message_ = id;
  }
  if (!is_last) return;
  sender.ready_at = now_;
  sender.state = State::finish_waits;
  make_ready(stream);
}

}  // namespace orrery
