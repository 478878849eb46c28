#include "sim/event_engine.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <stdexcept>

namespace orrery {

EventEngine::EventEngine(BlockStore& blocks, const Cluster& cluster, const Survey& survey,
                         const Perturbation* perturbation, SpanSink* sink)
    : blocks_(blocks),
      program_(blocks.program()),
      cluster_(cluster),
      perturbation_(perturbation),
      sink_(sink),
      network_(cluster.links()),
      signals_per_rank_(blocks.signals_per_rank()),
      is_private_link_(survey.is_private_link),
      fixed_durations_(!survey.holds_sms && !survey.hbm_matters),
      hbm_matters_(survey.hbm_matters),
      direct_routes_(blocks.routes().columns(), std::vector<DirectRoute>(static_cast<std::size_t>(blocks.ranks()))),
      path_size_(program_.categories().size() + 2),
      message_path_(path_size_),
      accounts_(blocks.ranks(), program_.categories().size(), program_.phases().size()),
      spans_(sink),
      link_tracer_(sink, cluster.links().size()) {
  const auto ranks = static_cast<std::size_t>(blocks.ranks());
  streams_.resize(ranks * streams_per_rank);
  signals_.resize(ranks * static_cast<std::size_t>(signals_per_rank_));
  compute_.resize(ranks);
  is_dirty_.resize(ranks);
  paths_.resize(streams_.size() * path_size_);
  if (sink != nullptr) network_.watch_links();
}

SimulationResult EventEngine::run() {
  for (StreamId stream = 0; stream < static_cast<StreamId>(streams_.size()); ++stream) make_ready(stream);
  run_ready();
  settle();
  while (!events_.empty()) {
    now_ = events_.top().time;
    while (!events_.empty() && events_.top().time == now_) {
      handle(events_.pop());
      run_ready();
    }
    settle();
  }
  check_all_done();
  return result();
}

/// Streams set off by others wait for their turn, so that long chains need no recursion.
void EventEngine::make_ready(StreamId stream) {
  if (streams_[stream].queued) return;
  streams_[stream].queued = true;
  ready_.push_back(stream);
}

void EventEngine::run_ready() {
  for (std::size_t next = 0; next < ready_.size(); ++next) {
    streams_[ready_[next]].queued = false;
    advance(ready_[next]);
  }
  ready_.clear();
}

/// Goes on until the stream has to wait for an event or a signal, or has no more ops.
void EventEngine::advance(StreamId stream) {
  StreamState& self = streams_[stream];
  while (true) {
    switch (self.state) {
      case State::fetch:
        if (!fetch(stream)) return;
        self.state = State::start_waits;
        self.next_wait = 0;
        break;
      case State::start_waits:
        if (!wait_through(stream, WaitStage::start) || !issued(stream)) return;
        self.state = State::begin;
        break;
      case State::begin:
        if (!begin(stream)) return;
        break;
      case State::working:
      case State::in_flight:
        return;
      case State::transfer_waits:
        if (!wait_through(stream, WaitStage::transfer) || !send(stream)) return;
        break;
      case State::finish_waits:
        if (!wait_through(stream, WaitStage::finish)) return;
        finish(stream);
        break;
    }
  }
}

/// Moves to the stream's next op, through as many blocks as it takes.
bool EventEngine::fetch(StreamId stream) {
  StreamState& self = streams_[stream];
  const Rank rank = rank_of(stream);
  const auto kind = static_cast<std::size_t>(stream % streams_per_rank);
  if (self.op != nullptr) {
    const std::int32_t next = self.op->next_on_stream;
    self.op = next < 0 ? nullptr : &self.block->ops[static_cast<std::size_t>(next)];
  }
  while (self.op == nullptr) {
    if (self.block != nullptr) {
      self.host_time += self.block->set_of(rank).host_time;
      blocks_.release(self.block);
      self.block = nullptr;
    }
    if (self.block_number + 1 >= blocks_.blocks()) return false;
    self.block = blocks_.acquire(++self.block_number);
    const std::int32_t first = self.block->set_of(rank).first_on_stream[kind];
    if (first >= 0) self.op = &self.block->ops[static_cast<std::size_t>(first)];
  }
  const auto before = program_.counts_before(self.block_number);
  self.counts_before = before.empty() ? nullptr : before.data();
  return true;
}

bool EventEngine::wait_through(StreamId stream, WaitStage stage) {
  StreamState& self = streams_[stream];
  const Rank rank = rank_of(stream);
  const std::uint8_t end = self.op->waits_until[static_cast<std::size_t>(stage)];
  for (; self.next_wait < end; ++self.next_wait) {
    const CompiledWait& wait = self.op->waits[self.next_wait];
    SignalState& signal = signals_[blocks_.wrap(rank, wait.signal.distance) * signals_per_rank_ + wait.signal.signal];
    const std::int64_t before = self.counts_before == nullptr ? 0 : self.counts_before[wait.signal.signal];
    if (signal.count >= before + wait.count) continue;
    self.next_waiter = signal.first_waiter;
    signal.first_waiter = stream;
    return false;
  }
  return true;
}

/// The launch event leads to State::begin. By then the host alone held the op back, since time 0.
bool EventEngine::issued(StreamId stream) {
  StreamState& self = streams_[stream];
  const Ticks issue = self.host_time + self.op->issue;
  if (issue <= now_) return true;
  self.state = State::begin;
  self.ready_at = issue;
  std::fill_n(path(stream), path_size_ - 1, 0);
  path(stream)[path_size_ - 1] = issue;
  push(issue, EventKind::launch, stream);
  return false;
}

/// True if the op has no duration and goes on at once.
bool EventEngine::begin(StreamId stream) {
  StreamState& self = streams_[stream];
  const CompiledOp& op = *self.op;
  const Rank rank = rank_of(stream);
  self.begun = now_;
  self.ready_at = now_;
  self.state = State::transfer_waits;
  accounts_.start(op.phase, now_);
  raise(rank, op.started, path(stream));
  if (kind_of(stream) == Stream::compute) {
    accounts_.clock(rank).enter_compute(now_);
    if (op.duration == 0) return true;
    self.alone = perturbation_ == nullptr ? op.duration
                                          : perturbation_->duration(op.duration, rank, self.block_number, op.index);
    if (fixed_durations_) {
      push(after(self.alone, stream), EventKind::compute_end, rank, compute_[rank].generation());
    } else {
      compute_[rank].start(now_, self.alone, op.hbm_demand);
      mark_dirty(rank);
    }
  } else {
    for (std::int32_t i = 0; i < op.message_count; ++i) {
      const CompiledMessage& message = self.block->messages[static_cast<std::size_t>(op.first_message + i)];
      if (message.route < 0) continue;
      accounts_.clock(blocks_.wrap(rank, message.source)).enter_comm(now_);
      accounts_.clock(blocks_.wrap(rank, message.destination)).enter_comm(now_);
    }
    if (op.sms > 0) {
      compute_[rank].hold_sms(op.sms);
      mark_dirty(rank);
    }
    if (op.duration == 0) return true;
    accounts_.clock(rank).enter_comm(now_);
    push(after(op.duration, stream), EventKind::startup_end, stream);
  }
  self.state = State::working;
  return false;
}

/// True if nothing travels and the op goes on at once.
bool EventEngine::send(StreamId stream) {
  StreamState& self = streams_[stream];
  const CompiledOp& op = *self.op;
  const Rank rank = rank_of(stream);
  self.departed = now_;
  self.state = State::in_flight;
  self.under_way = op.message_count + 1;  // one more, so that deliveries on the spot do not end the op
  for (std::int32_t i = 0; i < op.message_count; ++i) {
    const CompiledMessage& message = self.block->messages[static_cast<std::size_t>(op.first_message + i)];
    if (message.route < 0) {
      raise(rank, message.delivered, path(stream));
      --self.under_way;
      continue;
    }
    MessageId id = free_message_;
    if (id < 0) {
      id = static_cast<MessageId>(messages_.size());
      messages_.emplace_back();
    } else {
      free_message_ = messages_[id].next_free;
    }
    MessageState& state = messages_[id];
    state.message = &message;
    state.source = blocks_.wrap(rank, message.source);
    state.destination = blocks_.wrap(rank, message.destination);
    state.stream = stream;
    state.route = &blocks_.routes().at(message.route, state.source);
    state.direct = direct_route(message, state.source);
    if (kind_of(stream) == Stream::compute) {
      accounts_.clock(state.source).enter_comm(now_);
      accounts_.clock(state.destination).enter_comm(now_);
    }
    if (state.direct != nullptr && !hbm_matters_) {
      push(later(after(state.route->latency, stream), moving_alone(state), stream), EventKind::arrival, id);
    } else if (state.route->latency == 0) {
      end_latency(id);
    } else {
      push(after(state.route->latency, stream), EventKind::latency_end, id);
    }
  }
  if (--self.under_way > 0) return false;
  self.state = State::finish_waits;
  return true;
}

void EventEngine::finish(StreamId stream) {
  StreamState& self = streams_[stream];
  const CompiledOp& op = *self.op;
  const Rank rank = rank_of(stream);
  if (kind_of(stream) == Stream::compute) {
    accounts_.clock(rank).leave_compute(now_);
  } else if (op.sms > 0) {
    compute_[rank].release_sms(op.sms);
    mark_dirty(rank);
  }
  accounts_.end(static_cast<std::size_t>(stream), op.category, op.phase, self.begun, now_);
  if (sink_ != nullptr) {
    spans_.add({rank, op.stream, op.category, op.phase, op.index, self.block_number, self.begun, now_});
  }
  for (const RelativeSignal& signal : op.finished) raise(rank, signal, path(stream));
  self.ready_at = now_;
  self.state = State::fetch;
}

void EventEngine::raise(Rank rank, RelativeSignal relative, const Ticks* path_of_raiser) {
  if (relative.signal < 0) return;
  SignalState& signal = signals_[blocks_.wrap(rank, relative.distance) * signals_per_rank_ + relative.signal];
  const std::int64_t count = ++signal.count;
  StreamId* link = &signal.first_waiter;
  while (*link >= 0) {
    const StreamId waiter = *link;
    StreamState& state = streams_[waiter];
    const std::int64_t before = state.counts_before == nullptr ? 0 : state.counts_before[relative.signal];
    if (before + state.op->waits[state.next_wait].count > count) {
      link = &state.next_waiter;
      continue;
    }
    *link = state.next_waiter;
    if (now_ > state.ready_at) {
      state.ready_at = now_;
      std::copy_n(path_of_raiser, path_size_, path(waiter));
    }
    make_ready(waiter);
  }
}

void EventEngine::handle(const Event& event) {
  const auto target = static_cast<std::int32_t>(event.target);
  switch (static_cast<EventKind>(event.kind())) {
    case EventKind::launch:
      make_ready(target);
      break;
    case EventKind::startup_end:
      end_startup(target);
      break;
    case EventKind::compute_end:
      if (event.generation() != (compute_[target].generation() & Event::generation_mask)) return;
      end_compute(target);
      break;
    case EventKind::latency_end:
      end_latency(target);
      break;
    case EventKind::arrival:
      arrive(target);
      break;
    case EventKind::flow_end:
      if (event.generation() != (flows_[target].generation & Event::generation_mask)) return;
      end_flow(target);
      break;
  }
  ++handled_;
}

void EventEngine::end_startup(StreamId stream) {
  StreamState& self = streams_[stream];
  accounts_.clock(rank_of(stream)).leave_comm(now_);
  extend_path(path(stream), self.op->category, self.op->duration, self.op->duration);
  self.ready_at = now_;
  self.state = State::transfer_waits;
  make_ready(stream);
}

void EventEngine::end_compute(Rank rank) {
  const StreamId stream = rank * streams_per_rank + static_cast<StreamId>(Stream::compute);
  StreamState& self = streams_[stream];
  compute_[rank].stop();
  extend_path(path(stream), self.op->category, self.alone, now_ - self.begun);
  self.ready_at = now_;
  self.state = State::transfer_waits;
  make_ready(stream);
}

void EventEngine::end_latency(MessageId id) {
  const MessageState& message = messages_[id];
  if (message.direct != nullptr) {
    change_traffic(message, 0, message.route->bandwidth);
    push(after(moving_alone(message), message.stream), EventKind::arrival, id);
    return;
  }
  const FlowId flow = network_.add(*message.route->route, Bytes::from_si(message.message->size), now_);
  if (flow >= static_cast<FlowId>(flows_.size())) flows_.resize(static_cast<std::size_t>(flow) + 1);
  flows_[flow].message = id;
}

void EventEngine::end_flow(FlowId flow) {
  const MessageId id = flows_[flow].message;
  const MessageState& message = messages_[id];
  ++flows_[flow].generation;
  change_traffic(message, network_.rate(flow), 0);
  network_.remove(flow, now_);
  deliver(id);
}

void EventEngine::arrive(MessageId id) {
  const MessageState& message = messages_[id];
  if (hbm_matters_) change_traffic(message, message.route->bandwidth, 0);
  message.direct->bytes += message.message->size;
  message.direct->moving += moving_alone(message);
  deliver(id);
}

void EventEngine::change_traffic(const MessageState& message, double old_rate, double new_rate) {
  for (const Rank rank : {message.source, message.destination}) {
    compute_[rank].change_traffic(old_rate, new_rate);
    mark_dirty(rank);
  }
}

/// Null if the message shares links, or if links are watched.
EventEngine::DirectRoute* EventEngine::direct_route(const CompiledMessage& message, Rank source) {
  if (sink_ != nullptr) return nullptr;
  DirectRoute& entry = direct_routes_[static_cast<std::size_t>(message.route)][static_cast<std::size_t>(source)];
  if (entry.known == DirectRoute::Known::nothing) {
    const std::vector<LinkId>& links = blocks_.routes().at(message.route, source).route->links;
    const bool is_direct = std::all_of(links.begin(), links.end(),
                                       [&](LinkId link) { return is_private_link_[static_cast<std::size_t>(link)]; });
    entry.known = is_direct ? DirectRoute::Known::direct : DirectRoute::Known::shares;
  }
  return entry.known == DirectRoute::Known::direct ? &entry : nullptr;
}

void EventEngine::deliver(MessageId id) {
  MessageState& state = messages_[id];
  const CompiledMessage& message = *state.message;
  StreamState& sender = streams_[state.stream];
  accounts_.moved(state.source, state.destination, message.size);
  accounts_.clock(state.source).leave_comm(now_);
  accounts_.clock(state.destination).leave_comm(now_);

  const Ticks alone = state.route->latency + moving_alone(state);
  std::copy_n(path(state.stream), path_size_, message_path_.begin());
  extend_path(message_path_.data(), sender.op->category, alone, now_ - sender.departed);
  raise(rank_of(state.stream), message.delivered, message_path_.data());
  state.next_free = free_message_;
  free_message_ = id;
  if (--sender.under_way > 0) return;
  std::copy_n(message_path_.begin(), path_size_, path(state.stream));
  sender.ready_at = now_;
  sender.state = State::finish_waits;
  make_ready(state.stream);
}

void EventEngine::settle() {
  for (const FlowNetwork::Change& change : network_.solve(now_)) {
    FlowState& flow = flows_[change.flow];
    const MessageState& message = messages_[flow.message];
    ++flow.generation;
    const double left = network_.seconds_left(change.flow) * ticks_per_second;
    push(after(rounded(left, message.stream), message.stream), EventKind::flow_end, change.flow, flow.generation);
    change_traffic(message, change.old_rate, network_.rate(change.flow));
  }
  for (const Rank rank : dirty_) {
    is_dirty_[rank] = 0;
    ComputeRate& compute = compute_[rank];
    if (!compute.running() || !compute.update(cluster_.gpu(), now_)) continue;
    const StreamId stream = rank * streams_per_rank + static_cast<StreamId>(Stream::compute);
    const Ticks end = compute.exact() ? after(compute.exact_ticks_left(), stream)
                                      : after(rounded(compute.ticks_left(), stream), stream);
    push(end, EventKind::compute_end, rank, compute.generation());
  }
  dirty_.clear();
  if (sink_ != nullptr) link_tracer_.update(network_, now_);
}

void EventEngine::mark_dirty(Rank rank) {
  if (is_dirty_[rank] != 0 || !compute_[rank].running()) return;
  is_dirty_[rank] = 1;
  dirty_.push_back(rank);
}

Ticks EventEngine::later(Ticks time, Ticks delay, StreamId stream) const {
  if (delay > std::numeric_limits<Ticks>::max() - time) refuse_overflow(stream);
  return time + delay;
}

Ticks EventEngine::rounded(double delay, StreamId stream) const {
  if (!(delay < 9223372036854775807.0)) refuse_overflow(stream);
  return std::llround(delay);
}

void EventEngine::refuse_overflow(StreamId stream) const {
  throw std::overflow_error(
      fmt::format("{} would end beyond 2^63 ps (106 days) of simulated time; check its duration, its size and the "
                  "bandwidths on its way",
                  name(stream)));
}

void EventEngine::extend_path(Path path, std::uint8_t category, Ticks alone, Ticks elapsed) const {
  path[category] += std::min(alone, elapsed);
  path[path_size_ - 2] += std::max<Ticks>(elapsed - alone, 0);
}

}  // namespace orrery
