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
  std::uint8_t i = self.next_wait;
  if (i == end) return true;
  const std::int64_t* const before = self.block->counts_before;
  do {
    const CompiledWait& wait = op.waits[i];
    SignalState& signal = this->signal(self, wait.place);
    const std::int64_t wanted = before[wait.signal.signal] + wait.count;
    if (signal.count >= wanted) continue;
    self.wanted = wanted;
    self.next_waiter = signal.first_waiter;
    self.next_wait = static_cast<std::uint8_t>(i + 1);  // woken only once this one is met
    signal.first_waiter = stream;
    return false;
  } while (++i < end);
  self.next_wait = i;
  return true;
}

/// What a simple op raises. Most often one stream waits, for this very raise.
ORRERY_HOT void EventEngine::raise_all(StreamId stream, const StreamState& self) {
  const CompiledOp& op = *self.op;
  const Ticks* const own = path(stream);
  for (std::uint8_t i = 0; i < op.raise_count; ++i) {
    SignalState& signal = this->signal(self, op.raises[i]);
    const std::int64_t count = ++signal.count;
    const StreamId waiter = signal.first_waiter;
    if (waiter < 0) continue;
    StreamState& state = streams_[waiter];
    if (state.next_waiter >= 0 || state.wanted > count) {
      wake(signal, own);
      continue;
    }
    signal.first_waiter = -1;
    if (now_ > state.ready_at) {
      state.ready_at = now_;
      copy_path(own, path(waiter));
    }
    make_ready(waiter);
  }
}

/// False if it is a marker, and so over.
ORRERY_HOT bool EventEngine::begin_simple(StreamId stream, StreamState& self) {
  const CompiledOp& op = *self.op;
  accounts_.begin(op.account, now_);
  if (op.message_count > 0) return send_simple(stream, self), true;
  if (op.duration == 0) {
    accounts_.add(self.rank, op.account, now_, now_);
    self.ready_at = now_;
    raise_all(stream, self);
    return false;
  }
  const Ticks end = later(now_, self.drawn, stream);
  accounts_.clock(self.rank).compute(now_, end);
  expect_end(stream, self, end);
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
    return expect_end(stream, self, end);
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
ORRERY_HOT void EventEngine::expect_end(StreamId stream, StreamState& self, Ticks end) {
  const CompiledOp& op = *self.op;
  extend_path(path(stream), op, end - now_, end - now_);
  accounts_.add(self.rank, op.account, now_, end);
  push(end, EventKind::simple_end, stream);
}

ORRERY_HOT void EventEngine::end_simple(StreamId stream, StreamState& self) {
  self.ready_at = now_;
  raise_all(stream, self);
}

/// Moves to the stream's next op. Most often the next block is open already, and the same for all ranks.
ORRERY_HOT bool EventEngine::fetch(StreamId stream, StreamState& self) {
  self.state = State::start_waits;
  self.next_wait = 0;
  self.op = self.op->next;
  if (self.op != nullptr) {
    draw(self);
    return true;
  }
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
  draw(self);
  return true;
}

/// Early, so that what waits and begins next need not wait for the draw.
ORRERY_HOT void EventEngine::draw(StreamState& self) const {
  const CompiledOp& op = *self.op;
  if (op.stream != Stream::compute) return;
  self.drawn = perturbation_ == nullptr ? op.duration
                                        : perturbation_->duration(op.duration, self.rank, self.block->number, op.index);
}

/// Goes on until the stream has to wait for an event or a signal, or has no more ops.
ORRERY_HOT void EventEngine::advance(StreamId stream) {
  StreamState& self = streams_[stream];
  if (!has_simple_ops_ || self.state != State::start_waits) return advance_any(stream, self);
  do {
    if (!wait_through(stream, self, WaitStage::start)) return;
    if (!self.op->is_simple) return advance_any(stream, self);
    if (begin_simple(stream, self)) return;
  } while (fetch(stream, self));
}

}  // namespace orrery
