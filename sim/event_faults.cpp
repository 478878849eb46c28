// The third part of the event tier: links that slow down or die and ranks that pause while the program runs.
#include <cmath>

#include "sim/event_engine.hpp"

namespace orrery {

void EventEngine::expect_faults(const Faults& faults) {
  faults_.emplace(faults, cluster_);
  const auto changes = faults_->changes();
  for (std::size_t i = 0; i < changes.size(); ++i) {
    if (i > 0 && changes[i].at == changes[i - 1].at) continue;
    if (changes[i].at == 0) {
      change_faults(i);  // before anything else happens
    } else {
      push(changes[i].at, EventKind::fault, static_cast<std::int32_t>(i));
    }
  }
}

/// This one and all others of its tick, so that nobody goes around one dead link by another.
void EventEngine::change_faults(std::size_t first) {
  const auto changes = faults_->changes();
  for (std::size_t i = first; i < changes.size() && changes[i].at == changes[first].at; ++i) {
    faults_->apply(changes[i]);
    if (changes[i].is_pause) {
      const Rank rank = faults_->pause(changes[i]).rank;
      compute_[rank].pause(changes[i].begins);
      mark_dirty(rank);
    } else {
      const LinkId link = faults_->link_fault(changes[i]).link;
      network_.set_bandwidth(link, faults_->bandwidth(link));
    }
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

/// The dead links that messages wait for, by stream, each as part of a sentence.
std::map<StreamId, std::string> EventEngine::hindrances() const {
  std::map<StreamId, std::string> hindrances;
  for (FlowId flow = 0; faults_ && flow < static_cast<FlowId>(flows_.size()); ++flow) {
    if (!network_.contains(flow)) continue;
    const MessageState& message = messages_[flows_[flow].message];
    if (std::string link = faults_->dead_link(*message.lane->route); !link.empty())
      hindrances.emplace(message.stream, std::move(link));
  }
  return hindrances;
}

}  // namespace orrery
