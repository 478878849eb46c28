#include "sim/simulator.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

namespace orrery {
namespace {

constexpr std::size_t span_batch = 4096;

}  // namespace

Simulator::Simulator(const Program& program, const Cluster& cluster, SpanSink* sink)
    : program_(program),
      cluster_(cluster),
      sink_(sink),
      queues_(program, cluster),
      network_(cluster.links()),
      path_size_(program.categories().size() + 2),
      phases_(program.phases().size()),
      link_tracer_(sink, cluster.links().size()) {
  const auto ranks = static_cast<std::size_t>(program.ranks());
  const auto signals = ranks * static_cast<std::size_t>(queues_.signals_per_rank());
  streams_.resize(ranks * streams_per_rank);
  signal_counts_.resize(signals);
  waiters_.resize(signals, -1);
  compute_.resize(ranks);
  is_dirty_.resize(ranks);
  paths_.resize(streams_.size() * path_size_);
  message_path_.resize(path_size_);
  totals_.resize(ranks);
  for (RankTotals& totals : totals_) totals.category_busy.resize(program.categories().size());
  clocks_.resize(ranks);
  if (sink != nullptr) network_.watch_links();
}

SimulationResult Simulator::run() {
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
void Simulator::make_ready(StreamId stream) {
  if (streams_[stream].ready) return;
  streams_[stream].ready = true;
  ready_.push_back(stream);
}

void Simulator::run_ready() {
  for (std::size_t next = 0; next < ready_.size(); ++next) {
    streams_[ready_[next]].ready = false;
    advance(ready_[next]);
  }
  ready_.clear();
}

/// Goes on until the stream has to wait for an event or a signal, or has no more ops.
void Simulator::advance(StreamId stream) {
  StreamState& self = streams_[stream];
  while (true) {
    if (self.state == State::fetch && !fetch(stream)) return;
    const PendingOp& op = queues_.op(self.op);
    switch (self.state) {
      case State::fetch:
        break;
      case State::start_waits:
        if (!wait_through(stream, op, WaitStage::start) || !issued(stream, op)) return;
        self.state = State::begin;
        break;
      case State::begin:
        if (!begin(stream, op)) return;
        break;
      case State::working:
        return;
      case State::transfer_waits:
        if (!wait_through(stream, op, WaitStage::transfer) || !send(stream, op)) return;
        break;
      case State::in_flight:
        return;
      case State::finish_waits:
        if (!wait_through(stream, op, WaitStage::finish)) return;
        finish(stream);
        break;
    }
  }
}

bool Simulator::fetch(StreamId stream) {
  StreamState& self = streams_[stream];
  self.op = queues_.front(stream);
  if (self.op < 0) return false;
  self.state = State::start_waits;
  self.next_wait = 0;
  return true;
}

bool Simulator::wait_through(StreamId stream, const PendingOp& op, WaitStage stage) {
  StreamState& self = streams_[stream];
  for (; self.next_wait < op.waits_until[static_cast<int>(stage)]; ++self.next_wait) {
    const PendingWait& wait = op.waits[self.next_wait];
    if (signal_counts_[wait.signal] >= wait.count) continue;
    self.next_waiter = waiters_[wait.signal];
    waiters_[wait.signal] = stream;
    return false;
  }
  return true;
}

/// The launch event leads to State::begin. By then the host alone held the op back, since time 0.
bool Simulator::issued(StreamId stream, const PendingOp& op) {
  if (op.issue <= now_) return true;
  streams_[stream].state = State::begin;
  std::fill_n(path(stream), path_size_ - 1, 0);
  path(stream)[path_size_ - 1] = op.issue;
  events_.push(op.issue, EventKind::launch, static_cast<std::uint32_t>(stream));
  return false;
}

/// True if the op has no duration and goes on at once.
bool Simulator::begin(StreamId stream, const PendingOp& op) {
  StreamState& self = streams_[stream];
  const Rank rank = rank_of(stream);
  self.begun = now_;
  self.state = State::transfer_waits;
  phases_[op.phase].start(now_);
  raise(op.started, path(stream));
  if (kind_of(stream) == Stream::compute) {
    clocks_[rank].enter_compute(now_);
    if (op.duration == 0) return true;
    compute_[rank].start(now_, op.duration, op.hbm_demand);
    mark_dirty(rank);
  } else {
    for (SlotId id = op.first_message; id >= 0; id = queues_.message(id).next) {
      const PendingMessage& message = queues_.message(id);
      if (message.route < 0) continue;
      clocks_[message.source].enter_comm(now_);
      clocks_[message.destination].enter_comm(now_);
    }
    if (op.sms > 0) {
      compute_[rank].hold_sms(op.sms);
      mark_dirty(rank);
    }
    if (op.duration == 0) return true;
    clocks_[rank].enter_comm(now_);
    events_.push(after(op.duration, stream, op), EventKind::startup_end, static_cast<std::uint32_t>(stream));
  }
  self.state = State::working;
  return false;
}

/// True if nothing travels and the op goes on at once.
bool Simulator::send(StreamId stream, const PendingOp& op) {
  StreamState& self = streams_[stream];
  self.departed = now_;
  self.state = State::in_flight;
  self.under_way = op.message_count + 1;  // one more, so that deliveries on the spot do not end the op
  for (SlotId id = op.first_message; id >= 0; id = queues_.message(id).next) {
    const PendingMessage& message = queues_.message(id);
    if (message.route < 0) {
      raise(message.delivered, path(stream));
      --self.under_way;
      continue;
    }
    if (kind_of(stream) == Stream::compute) {
      clocks_[message.source].enter_comm(now_);
      clocks_[message.destination].enter_comm(now_);
    }
    const Ticks latency = queues_.route(message.route).latency;
    if (latency == 0) {
      end_latency(id);
    } else {
      events_.push(after(latency, stream, op), EventKind::latency_end, static_cast<std::uint32_t>(id));
    }
  }
  if (--self.under_way > 0) return false;
  self.state = State::finish_waits;
  return true;
}

void Simulator::finish(StreamId stream) {
  StreamState& self = streams_[stream];
  const PendingOp& op = queues_.op(self.op);
  const Rank rank = rank_of(stream);
  if (kind_of(stream) == Stream::compute) {
    clocks_[rank].leave_compute(now_);
  } else if (op.sms > 0) {
    compute_[rank].release_sms(op.sms);
    mark_dirty(rank);
  }
  self.busy += now_ - self.begun;
  self.last_end = now_;
  totals_[rank].category_busy[op.category] += now_ - self.begun;
  phases_[op.phase].end(kind_of(stream), self.begun, now_);
  if (sink_ != nullptr) record(stream, op);
  for (const SignalId signal : op.finished) raise(signal, path(stream));
  self.state = State::fetch;
  self.op = -1;
  if (!queues_.pop(stream)) return;
  const StreamId first = rank * streams_per_rank;
  for (StreamId other = first; other < first + streams_per_rank; ++other) {
    if (other == stream || streams_[other].state != State::fetch) continue;
    std::copy_n(path(stream), path_size_, path(other));  // a full lookahead held it back, and this op ended that
    make_ready(other);
  }
}

void Simulator::raise(SignalId signal, const Ticks* path_of_raiser) {
  if (signal < 0) return;
  const std::int64_t count = ++signal_counts_[signal];
  StreamId* link = &waiters_[signal];
  while (*link >= 0) {
    const StreamId waiter = *link;
    StreamState& state = streams_[waiter];
    if (queues_.op(state.op).waits[state.next_wait].count > count) {
      link = &state.next_waiter;
      continue;
    }
    *link = state.next_waiter;
    std::copy_n(path_of_raiser, path_size_, path(waiter));
    make_ready(waiter);
  }
}

void Simulator::handle(const Event& event) {
  const auto target = static_cast<std::int32_t>(event.target);
  switch (event.kind()) {
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
    case EventKind::flow_end:
      if (event.generation() != (flows_[target].generation & Event::generation_mask)) return;
      end_flow(target);
      break;
  }
  ++handled_;
}

void Simulator::end_startup(StreamId stream) {
  StreamState& self = streams_[stream];
  const PendingOp& op = queues_.op(self.op);
  clocks_[rank_of(stream)].leave_comm(now_);
  extend_path(path(stream), op.category, op.duration, op.duration);
  self.state = State::transfer_waits;
  make_ready(stream);
}

void Simulator::end_compute(Rank rank) {
  const StreamId stream = rank * streams_per_rank + static_cast<StreamId>(Stream::compute);
  StreamState& self = streams_[stream];
  const PendingOp& op = queues_.op(self.op);
  compute_[rank].stop();
  extend_path(path(stream), op.category, op.duration, now_ - self.begun);
  self.state = State::transfer_waits;
  make_ready(stream);
}

void Simulator::end_latency(SlotId id) {
  const PendingMessage& message = queues_.message(id);
  const FlowId flow = network_.add(*queues_.route(message.route).route, Bytes::from_si(message.size), now_);
  if (flow >= static_cast<FlowId>(flows_.size())) flows_.resize(static_cast<std::size_t>(flow) + 1);
  flows_[flow].message = id;
}

void Simulator::end_flow(FlowId flow) {
  const SlotId id = flows_[flow].message;
  const PendingMessage& message = queues_.message(id);
  ++flows_[flow].generation;
  for (const Rank rank : {message.source, message.destination}) {
    compute_[rank].change_traffic(network_.rate(flow), 0);
    mark_dirty(rank);
  }
  network_.remove(flow, now_);
  deliver(id);
}

void Simulator::deliver(SlotId id) {
  const PendingMessage& message = queues_.message(id);
  StreamState& sender = streams_[message.stream];
  const PendingOp& op = queues_.op(sender.op);
  totals_[message.source].sent += Bytes::from_si(message.size);
  totals_[message.destination].received += Bytes::from_si(message.size);
  clocks_[message.source].leave_comm(now_);
  clocks_[message.destination].leave_comm(now_);

  const CachedRoute& route = queues_.route(message.route);
  const Ticks alone = route.latency + std::llround(message.size / route.bandwidth * ticks_per_second);
  std::copy_n(path(message.stream), path_size_, message_path_.begin());
  extend_path(message_path_.data(), op.category, alone, now_ - sender.departed);
  raise(message.delivered, message_path_.data());
  if (--sender.under_way > 0) return;
  std::copy_n(message_path_.begin(), path_size_, path(message.stream));
  sender.state = State::finish_waits;
  make_ready(message.stream);
}

void Simulator::settle() {
  for (const FlowNetwork::Change& change : network_.solve(now_)) {
    FlowState& flow = flows_[change.flow];
    const PendingMessage& message = queues_.message(flow.message);
    ++flow.generation;
    const PendingOp& op = queues_.op(streams_[message.stream].op);
    const double left = network_.seconds_left(change.flow) * ticks_per_second;
    events_.push(after_rounded(left, message.stream, op), EventKind::flow_end, static_cast<std::uint32_t>(change.flow),
                 flow.generation);
    for (const Rank rank : {message.source, message.destination}) {
      compute_[rank].change_traffic(change.old_rate, network_.rate(change.flow));
      mark_dirty(rank);
    }
  }
  for (const Rank rank : dirty_) {
    is_dirty_[rank] = 0;
    ComputeRate& compute = compute_[rank];
    if (!compute.running() || !compute.update(cluster_.gpu(), now_)) continue;
    const StreamId stream = rank * streams_per_rank + static_cast<StreamId>(Stream::compute);
    const PendingOp& op = queues_.op(streams_[stream].op);
    const Ticks end = compute.exact() ? after(compute.exact_ticks_left(), stream, op)
                                      : after_rounded(compute.ticks_left(), stream, op);
    events_.push(end, EventKind::compute_end, static_cast<std::uint32_t>(rank), compute.generation());
  }
  dirty_.clear();
  if (sink_ != nullptr) link_tracer_.update(network_, now_);
}

void Simulator::mark_dirty(Rank rank) {
  if (is_dirty_[rank] != 0 || !compute_[rank].running()) return;
  is_dirty_[rank] = 1;
  dirty_.push_back(rank);
}

Ticks Simulator::after(Ticks delay, StreamId stream, const PendingOp& op) const {
  if (delay > std::numeric_limits<Ticks>::max() - now_) refuse_overflow(stream, op);
  return now_ + delay;
}

Ticks Simulator::after_rounded(double delay, StreamId stream, const PendingOp& op) const {
  if (!(delay < 9223372036854775807.0)) refuse_overflow(stream, op);
  return after(std::llround(delay), stream, op);
}

void Simulator::refuse_overflow(StreamId stream, const PendingOp& op) const {
  throw std::overflow_error(
      fmt::format("{} would end beyond 2^63 ps (106 days) of simulated time; check its duration, "
                  "its size and the bandwidths on its way",
                  queues_.name(stream, op)));
}

void Simulator::extend_path(Path path, std::uint8_t category, Ticks alone, Ticks elapsed) const {
  path[category] += std::min(alone, elapsed);
  path[path_size_ - 2] += std::max<Ticks>(elapsed - alone, 0);
}

void Simulator::record(StreamId stream, const PendingOp& op) {
  spans_.push_back(
      Span{rank_of(stream), kind_of(stream), op.category, op.phase, op.index, op.block, streams_[stream].begun, now_});
  if (spans_.size() >= span_batch) flush_spans();
}

void Simulator::flush_spans() {
  if (!spans_.empty()) sink_->ops(spans_);
  spans_.clear();
}

}  // namespace orrery
