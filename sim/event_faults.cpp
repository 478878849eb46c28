// The third part of the event tier: links that slow down or die and ranks that pause while the program runs.
#include <cmath>

#include "sim/event_engine.hpp"

namespace orrery {

void EventEngine::expect_faults(const Faults& faults) {
  faults_.emplace(faults, cluster_);
  for (std::size_t i = 0; i < faults_->changes().size(); ++i) {
    const FaultState::Change& change = faults_->changes()[i];
    if (change.at == 0) {
      change_faults(change);  // before anything else happens
    } else {
      push(change.at, EventKind::fault, static_cast<std::int32_t>(i));
    }
  }
}

void EventEngine::change_faults(const FaultState::Change& change) {
  faults_->apply(change);
  if (change.is_pause) {
    const Rank rank = faults_->pause(change).rank;
    compute_[rank].pause(change.begins);
    mark_dirty(rank);
  } else {
    const LinkId link = faults_->link_fault(change).link;
    network_.set_bandwidth(link, faults_->bandwidth(link));
  }
  is_unsettled_ = true;
  // Messages that cannot go on leave the network; those that left it before try again.
  std::vector<MessageId> again;
  again.swap(held_);
  for (FlowId flow = 0; flow < static_cast<FlowId>(flows_.size()); ++flow) {
    const MessageId id = flows_[flow].message;
    if (!network_.contains(flow) || !is_hindered(messages_[id])) continue;
    if (network_.seconds_left_at(flow, now_) * ticks_per_second < 0.5) continue;  // it ends now
    ++flows_[flow].generation;
    change_rate(messages_[id], network_.rate(flow), 0);
    leave_network(flow);
    bytes_left_[id] = network_.take_back(flow, now_);
    again.push_back(id);
  }
  for (const MessageId id : again) end_latency(id);
}

bool EventEngine::is_hindered(const MessageState& message) const {
  return faults_->is_closed(*message.lane->route) || stands_still(message);
}

/// A transfer by SMs needs those of both ends.
bool EventEngine::stands_still(const MessageState& message) const {
  if (!(streams_[message.stream].op->sms > 0)) return false;
  return faults_->is_paused(message.source) || faults_->is_paused(message.destination);
}

/// True if the message is not to enter the network now: it goes around a dead link first, or waits for the end of a
/// pause.
bool EventEngine::hindered(MessageId id) {
  MessageState& message = messages_[id];
  if (faults_->is_closed(*message.lane->route)) {
    const auto begun = bytes_left_.find(id);
    // The accounts count whole bytes, so that no sum depends on its order.
    const double left = std::round(begun == bytes_left_.end() ? message.message->size : begun->second);
    message.lane->bytes -= left;
    message.lane = &open_way(*message.lane, message.source, message.destination);
    message.lane->bytes += left;
    push(later(now_, message.lane->latency, message.stream), EventKind::latency_end, id);
    return true;
  }
  if (!stands_still(message)) return false;
  held_.push_back(id);
  return true;
}

/// The usual lane, or one that goes around what is dead now.
EventEngine::Lane& EventEngine::open_way(Lane& usual, Rank source, Rank destination) {
  if (!faults_->is_closed(*usual.route)) return usual;
  const CachedRoute& way = faults_->way_around(source, destination);
  Detour*& detour = detour_of_[&way];
  if (detour == nullptr) {
    detour = &detours_.emplace_back(Detour{{}, source, destination});
    detour->lane.route = way.route;
    detour->lane.latency = way.latency;
    detour->lane.bandwidth = way.bandwidth;
  }
  return detour->lane;
}

/// What is left of a message that has begun, else all of it.
double EventEngine::bytes_to_send(MessageId id) {
  const auto begun = bytes_left_.find(id);
  if (begun == bytes_left_.end()) return messages_[id].message->size;
  const double left = begun->second;
  bytes_left_.erase(begun);
  return left;
}

/// The dead link that a message of the stream waits for, as part of a sentence; empty if there is none.
std::string EventEngine::hindrance(StreamId stream) const {
  for (FlowId flow = 0; faults_ && flow < static_cast<FlowId>(flows_.size()); ++flow) {
    if (!network_.contains(flow) || messages_[flows_[flow].message].stream != stream) continue;
    return faults_->dead_link(*messages_[flows_[flow].message].lane->route);
  }
  return {};
}

}  // namespace orrery
