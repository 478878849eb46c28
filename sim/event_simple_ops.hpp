// The ops that the event tier works off fastest, each with one event: nothing can come between their begin and their
// end, or only what shares a trunk with them. Internal to the event tier; in a header for its parts that go on with
// such ops.
#pragma once

#include "sim/event_engine.hpp"

// One function for the life of an op: most of these have one caller, and calls would cost more than what they do.
#define ORRERY_HOT [[gnu::always_inline]] inline

namespace orrery {

ORRERY_HOT bool EventEngine::wait_through(StreamId stream, StreamState& self, WaitStage stage) {
  const CompiledOp& op = *self.op;
  const std::uint8_t end = op.waits_until[static_cast<std::size_t>(stage)];
  std::uint16_t i = self.next_wait;
  if (i == end) return true;
  const std::int64_t* const before = self.block->counts_before;
  do {
    const CompiledWait& wait = op.waits[i];
    SignalState& signal = this->signal(self, wait.place);
    const std::int64_t wanted = before[wait.signal.signal] + wait.count;
    if (signal.count >= wanted) continue;
    self.wanted = wanted;
    self.next_waiter = signal.first_waiter;
    self.next_wait = static_cast<std::uint16_t>(i + 1);  // woken only once this one is met
    signal.first_waiter = stream;
    return false;
  } while (++i < end);
  self.next_wait = i;
  return true;
}

/// For a simple op that ends. Most often one stream waits, for this very raise: it is returned, to go on. Others are
/// made ready.
ORRERY_HOT StreamId EventEngine::raise_simple(StreamId stream, const StreamState& self, SignalPlace place) {
  SignalState& signal = this->signal(self, place);
  const std::int64_t count = ++signal.count;
  const StreamId waiter = signal.first_waiter;
  if (waiter < 0) return no_stream;
  StreamState& state = streams_[waiter];
  if (state.next_waiter >= 0 || state.wanted > count) return wake(signal, path(stream)), no_stream;
  signal.first_waiter = -1;
  if (now_ > state.ready_at) {
    state.ready_at = now_;
    copy_path(path(stream), path(waiter));
  }
  return waiter;
}

/// Whoever this sets off waits for its turn, so that long chains need no recursion.
ORRERY_HOT void EventEngine::raise_all(StreamId stream, StreamState& self) {
  const CompiledOp& op = *self.op;
  self.ready_at = now_;
  for (std::uint8_t i = 0; i < op.raise_count; ++i) {
    const StreamId woken = raise_simple(stream, self, op.raises[i]);
    if (woken != no_stream) make_ready(woken);
  }
}

/// False if it is a marker, and so over.
ORRERY_HOT bool EventEngine::begin_simple(StreamId stream, StreamState& self, bool sends) {
  const CompiledOp& op = *self.op;
  accounts_.begin(op.account, now_);
  if (sends) return send_simple(stream, self), true;
  if (op.duration == 0) {
    accounts_.add(self.rank, op.account, now_, now_);
    raise_all(stream, self);
    return false;
  }
  const Ticks end = later(now_, self.drawn, stream);
  accounts_.clock(self.rank).compute(now_, end);
  expect_end(stream, self, end, EventKind::simple_compute_end);
  return true;
}

ORRERY_HOT void EventEngine::send_simple(StreamId stream, StreamState& self) {
  const CompiledMessage& message = self.op->messages[0];
  const Rank source = wrap(self.rank, message.source), destination = wrap(self.rank, message.destination);
  Lane& lane = this->lane(message, source);
  lane.bytes += message.size;
  const Ticks first_byte = later(later(now_, self.op->duration, stream), lane.latency, stream);
  if (lane.is_direct) {
    const Ticks moving = moving_alone(message, lane, stream);
    const Ticks end = later(first_byte, moving, stream);
    lane.moving += moving;
    accounts_.clock(source).comm(now_, end);
    accounts_.clock(destination).comm(now_, end);
    return expect_end(stream, self, end, EventKind::simple_transfer_end);
  }
  self.begun = now_;
  accounts_.clock(source).enter_comm(now_);
  accounts_.clock(destination).enter_comm(now_);
  messages_[stream] = {&message, &lane, source, destination, stream, -1, 0};
  if (lane.trunk >= 0) return approach(stream, lane.trunk, first_byte);
  if (first_byte == now_) return end_latency(stream);
  push(first_byte, EventKind::latency_end, stream);
}

/// All accounts of an op whose end nothing can change: then its end is to be told to others, and no more.
ORRERY_HOT void EventEngine::expect_end(StreamId stream, StreamState& self, Ticks end, EventKind kind) {
  const CompiledOp& op = *self.op;
  extend_path(path(stream), op, end - now_, end - now_);
  accounts_.add(self.rank, op.account, now_, end);
  push(end, kind, stream);
}

/// Moves to the stream's next op. Most often the next block is open already, and the same for all ranks.
ORRERY_HOT bool EventEngine::fetch(StreamId stream, StreamState& self, bool computes) {
  self.state = State::start_waits;
  self.next_wait = 0;
  self.op = self.op->next;
  if (self.op == nullptr) {
    OpenBlock* const block = self.block;
    OpenBlock* const next = block->next;
    if (next == nullptr || next->number != block->number + 1 || block->holders == 1) {
      return fetch_from_next_block(stream, self);
    }
    self.op = next->first_on_stream[static_cast<std::size_t>(self.kind)];
    if (self.op == nullptr) return fetch_from_next_block(stream, self);
    --block->holders;
    ++next->holders;
    self.block = next;
  }
  if (computes) draw(self);
  return true;
}

/// Early, so that what waits and begins next need not wait for the draw.
ORRERY_HOT void EventEngine::draw(StreamState& self) const {
  const CompiledOp& op = *self.op;
  self.drawn = perturbation_ == nullptr ? op.duration
                                        : perturbation_->duration(op.duration, self.rank, self.block->number, op.index);
}

/// Begins the op that the stream is at, if nothing is missing.
ORRERY_HOT void EventEngine::start(StreamId stream, StreamState& self, bool sends) {
  if (!wait_through(stream, self, WaitStage::start)) return;
  if (!self.op->is_simple) return advance_any(stream, self);
  if (begin_simple(stream, self, sends)) return;
  if (fetch(stream, self, is_compute(self))) make_ready(stream);
}

ORRERY_HOT void EventEngine::raise_and_start(StreamId stream, const StreamState& self, SignalPlace place) {
  const StreamId woken = raise_simple(stream, self, place);
  if (woken == no_stream) return;
  StreamState& state = streams_[woken];
  // What is not in the cache comes while the stream that woke it goes on.
  if (!in_cache_ || state.state != State::start_waits) return make_ready(woken);
  start(woken, state, state.op->message_count > 0);
}

/// All that follows from the end of a simple op, in code of its own for either kind of it and for each of its raises,
/// so that few branches ask what others have asked before: which nobody could predict either. The stream itself goes on
/// last: until then its path is that of whom it wakes.
ORRERY_HOT void EventEngine::end_simple(StreamId stream, bool sends) {
  StreamState& self = streams_[stream];
  const CompiledOp& op = *self.op;
  self.ready_at = now_;
  static_assert(std::tuple_size_v<decltype(op.raises)> == 3);
  if (op.raise_count > 0) raise_and_start(stream, self, op.raises[0]);
  if (op.raise_count > 1) raise_and_start(stream, self, op.raises[1]);
  if (op.raise_count > 2) raise_and_start(stream, self, op.raises[2]);
  if (fetch(stream, self, !sends)) start(stream, self, sends && self.op->message_count > 0);
}

/// Goes on until the stream has to wait for an event or a signal, or has no more ops.
ORRERY_HOT void EventEngine::advance(StreamId stream) {
  StreamState& self = streams_[stream];
  if (!has_simple_ops_ || self.state != State::start_waits) return advance_any(stream, self);
  start(stream, self, self.op->message_count > 0);
}

}  // namespace orrery
