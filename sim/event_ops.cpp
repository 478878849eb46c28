// The event tier's other ops, which wait, send and are slowed down while they are under way.
#include "sim/event_simple_ops.hpp"

namespace orrery {

/// Streams set off by others wait for their turn, so that long chains need no recursion.
void EventEngine::wake(SignalState& signal, const Ticks* path_of_raiser) {
  StreamId* link = &signal.first_waiter;
  while (*link >= 0) {
    const StreamId waiter = *link;
    StreamState& state = streams_[waiter];
    if (state.wanted > signal.count) {
      link = &state.next_waiter;
      continue;
    }
    *link = state.next_waiter;
    if (now_ > state.ready_at) {
      state.ready_at = now_;
      copy_path(path_of_raiser, path(waiter));
    }
    make_ready(waiter);
  }
}

/// The launch event leads to State::begin. By then the host alone held the op back, since time 0.
bool EventEngine::issued(StreamId stream, StreamState& self) {
  const Ticks issue = later(host_times_[stream], self.op->issue, stream);
  if (issue <= now_) return true;
  self.state = State::begin;
  self.ready_at = issue;
  std::fill_n(path(stream), path_rows_, 0);
  path(stream)[launch_row_] = issue;
  push(issue, EventKind::launch, stream);
  return false;
}

/// The same for one over a trunk. `alone`: how long it would have taken if nothing had slowed it down.
void EventEngine::end_shared(const MessageState& message, StreamState& self, Ticks alone) {
  const CompiledOp& op = *self.op;
  accounts_.clock(message.source).leave_comm(now_);
  accounts_.clock(message.destination).leave_comm(now_);
  extend_path(path(message.stream), op, op.duration + alone, now_ - self.begun);
  accounts_.add(self.rank, op.account, self.begun, now_);
  raise_all(message.stream, self);
}

/// True if the op has no duration and goes on at once; so the others.
bool EventEngine::begin(StreamId stream, StreamState& self) {
  const CompiledOp& op = *self.op;
  if (op.stream == Stream::compute) self.alone = self.drawn;
  self.begun = now_;
  self.ready_at = now_;
  accounts_.begin(op.account, now_);
  if (op.started_place != no_signal) raise(stream, self, op.started_place);
  return op.stream == Stream::compute ? begin_compute(stream, self) : begin_transfer(stream, self);
}

bool EventEngine::begin_compute(StreamId stream, StreamState& self) {
  const CompiledOp& op = *self.op;
  accounts_.clock(self.rank).enter_compute(now_);
  if (op.duration == 0) return true;
  if (fixed_durations_) {
    push(later(now_, self.alone, stream), EventKind::compute_end, stream);
  } else {
    compute_[self.rank].start(now_, self.alone, op.hbm_demand, op.sms);
    mark_dirty(self.rank);
  }
  if (slows_transfers_) slow_transfers(self.rank, op.slows_transfers);
  return false;
}

bool EventEngine::begin_transfer(StreamId stream, StreamState& self) {
  const CompiledOp& op = *self.op;
  for (std::int32_t i = 0; i < op.message_count; ++i) {
    if (op.messages[i].route >= 0) enter_comm(self.rank, op.messages[i]);
  }
  if (holds_sms_ && op.sms > 0) {
    compute_[self.rank].hold_sms(op.sms);
    mark_dirty(self.rank);
  }
  if (is_paced(op) && op.messages[0].route >= 0) return true;
  if (op.sends_at_once && !faults_) {
    extend_path(path(stream), op, op.duration, op.duration);
    return send(stream, self, later(now_, op.duration, stream));
  }
  if (op.duration == 0) return true;
  accounts_.clock(self.rank).enter_comm(now_);
  push(later(now_, op.duration, stream), EventKind::startup_end, stream);
  return false;
}

/// True if nothing travels and the op goes on at once.
bool EventEngine::send(StreamId stream, StreamState& self, Ticks departure) {
  const CompiledOp& op = *self.op;
  if (op.message_count == 0) return true;
  self.ready_at = departure;
  return op.message_count == 1 ? send_alone(stream, self, departure) : send_all(stream, self, departure);
}

bool EventEngine::send_all(StreamId stream, StreamState& self, Ticks departure) {
  const CompiledOp& op = *self.op;
  self.under_way = op.message_count;
  for (std::int32_t i = 0; i < op.message_count; ++i) {
    const CompiledMessage& message = op.messages[i];
    if (message.route < 0) {
      if (message.delivered_place != no_signal) raise(stream, self, message.delivered_place);
      --self.under_way;
      continue;
    }
    if (op.stream == Stream::compute) enter_comm(self.rank, message);
    depart(stream, self, message, departure);
  }
  return self.under_way == 0;
}

/// An op's only message. By a direct lane its delivery is the next thing to happen.
bool EventEngine::send_alone(StreamId stream, StreamState& self, Ticks departure) {
  const CompiledMessage& message = self.op->messages[0];
  if (message.route < 0 || rates_matter_) return send_all(stream, self, departure);
  Lane& lane = this->lane(message, wrap(self.rank, message.source));
  if (!lane.is_direct) return send_all(stream, self, departure);
  if (self.op->stream == Stream::compute) enter_comm(self.rank, message);
  const Ticks moving = moving_alone(message, lane, stream);
  lane.bytes += message.size;
  lane.moving += moving;
  push(later(later(departure, lane.latency, stream), moving, stream), EventKind::delivery, stream);
  return false;
}

void EventEngine::finish(StreamId stream, StreamState& self) {
  const CompiledOp& op = *self.op;
  if (op.stream == Stream::compute) {
    accounts_.clock(self.rank).leave_compute(now_);
    if (slows_transfers_) slow_transfers(self.rank, 1);
  } else if (holds_sms_ && op.sms > 0) {
    compute_[self.rank].release_sms(op.sms);
    mark_dirty(self.rank);
  }
  accounts_.add(self.rank, op.account, self.begun, now_);
  if (sink_ != nullptr) {
    spans_.add({self.rank, op.stream, op.category, op.phase, op.index, self.block->number, self.begun, now_});
  }
  self.ready_at = now_;
  for (std::uint8_t i = op.first_finished; i < op.raise_count; ++i) raise(stream, self, op.raises[i]);
}

void EventEngine::advance_any(StreamId stream, StreamState& self) {
  State at = self.state;
  while (true) {
    if (at == State::start_waits) {
      if (!wait_through(stream, self, WaitStage::start)) return;
      if (has_simple_ops_ && self.op->is_simple) {
        if (begin_simple(stream, self, self.op->message_count > 0)) return;
        if (!fetch(stream, self, is_compute(self))) return;
        continue;
      }
      if (has_launches_ && !issued(stream, self)) return;
      at = State::begin;
    }
    if (at == State::begin) {
      if (!begin(stream, self)) return;
      at = State::transfer_waits;
    }
    if (at == State::transfer_waits) {
      self.state = State::transfer_waits;
      if (!wait_through(stream, self, WaitStage::transfer) || !send(stream, self, now_)) return;
    }
    self.state = State::finish_waits;
    if (!wait_through(stream, self, WaitStage::finish)) return;
    finish(stream, self);
    if (!fetch(stream, self, is_compute(self))) return;
    at = State::start_waits;
  }
}

void EventEngine::end_compute(StreamId stream, StreamState& self) {
  extend_path(path(stream), *self.op, self.alone, now_ - self.begun);
  self.ready_at = now_;
  self.state = State::transfer_waits;
}

/// The only message of an op, by a direct lane.
void EventEngine::deliver_only(StreamId stream, StreamState& self) {
  const CompiledMessage& message = self.op->messages[0];
  leave_comm(self.rank, message);
  extend_path(path(stream), *self.op, now_ - self.ready_at, now_ - self.ready_at);
  if (message.delivered_place != no_signal) raise(stream, self, message.delivered_place);
  self.ready_at = now_;
  self.state = State::finish_waits;
}

void EventEngine::end_startup(StreamId stream, StreamState& self) {
  accounts_.clock(self.rank).leave_comm(now_);
  extend_path(path(stream), *self.op, self.op->duration, self.op->duration);
  self.ready_at = now_;
  self.state = State::transfer_waits;
}

}  // namespace orrery
