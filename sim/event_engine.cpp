#include "sim/event_engine.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <limits>
#include <stdexcept>

// One function for the life of an op: most of these have one caller, and calls would cost more than what they do.
#define ORRERY_HOT [[gnu::always_inline]] inline

namespace orrery {

EventEngine::EventEngine(BlockStore& blocks, const Cluster& cluster, const Survey& survey,
                         const SimulationOptions& options)
    : blocks_(blocks),
      program_(blocks.program()),
      cluster_(cluster),
      perturbation_(options.perturbation),
      sink_(options.sink),
      trunks_(survey.trunks),
      trunk_states_(trunks_.trunks.size()),
      network_(cluster.links()),
      ranks_(blocks.ranks()),
      signals_per_rank_(blocks.signal_slots()),
      signal_count_(signals_per_rank_ * static_cast<std::uint32_t>(ranks_)),
      is_private_link_(survey.is_private_link),
      holds_sms_(survey.holds_sms),
      fixed_durations_(!survey.holds_sms && !survey.hbm_matters &&
                       (options.faults == nullptr || options.faults->pauses.empty())),
      hbm_matters_(survey.hbm_matters),
      slows_transfers_(survey.slows_transfers),
      has_launches_(survey.has_launches),
      rates_matter_(survey.hbm_matters || sink_ != nullptr),
      has_simple_ops_(fixed_durations_ && !has_launches_ && !rates_matter_ && options.faults == nullptr),
      no_counts_(static_cast<std::size_t>(blocks.signals_per_rank())),
      accounts_(blocks.ranks(), blocks.accounts()),
      spans_(sink_),
      link_tracer_(sink_, cluster.links().size()) {
  const auto ranks = static_cast<std::size_t>(blocks.ranks());
  for (std::size_t i = 0; i < streams_per_rank; ++i) {
    if (survey.uses_stream[i]) streams_in_use_.push_back(static_cast<Stream>(i));
  }
  streams_.resize(ranks * streams_in_use_.size());
  for (std::size_t i = 0; i < streams_.size(); ++i) {
    streams_[i].rank = static_cast<Rank>(i / streams_in_use_.size());
    streams_[i].first_signal = static_cast<std::uint32_t>(streams_[i].rank) * signals_per_rank_;
    streams_[i].kind = streams_in_use_[i % streams_in_use_.size()];
  }
  if (has_launches_) host_times_.resize(streams_.size());
  ready_.resize(std::bit_ceil(streams_.size()));
  ready_mask_ = static_cast<std::uint32_t>(ready_.size() - 1);
  signals_.resize(signal_count_);
  messages_.resize(streams_.size());
  lanes_.resize(ranks * blocks.routes().columns());
  compute_.resize(fixed_durations_ ? 0 : ranks);
  is_dirty_.resize(compute_.size());
  slowing_.resize(slows_transfers_ ? ranks : 0, 1);
  slowed_.resize(slowing_.size());
  lay_out_paths(survey);
  if (has_simple_ops_) blocks.join_markers();
  if (options.faults != nullptr) expect_faults(*options.faults);
}

EventEngine::~EventEngine() {
  for (const OpenBlock& block : open_blocks_) {
    if (block.holders > 0) blocks_.release(block.compiled);
  }
}

void EventEngine::lay_out_paths(const Survey& survey) {
  bool first = true;
  for (const bool takes_time : survey.takes_time) {
    row_of_category_.push_back(!takes_time ? takes_no_time : first ? gets_the_rest : static_cast<int>(path_rows_++));
    first = first && !takes_time;
  }
  if (!survey.contention.empty()) contention_row_ = static_cast<int>(path_rows_++);
  if (has_launches_) launch_row_ = static_cast<int>(path_rows_++);
  for (const Account& account : blocks_.accounts()) {
    const int row = row_of_category_[account.category];
    row_of_account_.push_back(row < 0 ? path_rows_ : static_cast<std::size_t>(row));
  }
  path_stride_ = path_rows_ + 1;
  paths_.resize(streams_.size() * path_stride_);
  message_path_.resize(path_rows_ + 1);
}

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
    self.next_wait = i;
    signal.first_waiter = stream;
    return false;
  } while (++i < end);
  self.next_wait = i;
  return true;
}

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

/// The launch event leads to State::begin. By then the host alone held the op back, since time 0.
bool EventEngine::issued(StreamId stream, StreamState& self) {
  const Ticks issue = host_times_[stream] + self.op->issue;
  if (issue <= now_) return true;
  self.state = State::begin;
  self.ready_at = issue;
  std::fill_n(path(stream), path_rows_, 0);
  path(stream)[launch_row_] = issue;
  push(issue, EventKind::launch, stream);
  return false;
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

/// The same for one over a trunk. `alone`: how long it would have taken if nothing had slowed it down.
void EventEngine::end_shared(const MessageState& message, StreamState& self, Ticks alone) {
  const CompiledOp& op = *self.op;
  accounts_.clock(message.source).leave_comm(now_);
  accounts_.clock(message.destination).leave_comm(now_);
  extend_path(path(message.stream), op, op.duration + alone, now_ - self.begun);
  accounts_.add(self.rank, op.account, self.begun, now_);
  end_simple(message.stream, self);
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

void EventEngine::advance_any(StreamId stream, StreamState& self) {
  State at = self.state;
  while (true) {
    if (at == State::start_waits) {
      if (!wait_through(stream, self, WaitStage::start)) return;
      if (has_simple_ops_ && self.op->is_simple) {
        if (begin_simple(stream, self)) return;
        if (!fetch(stream, self)) return;
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
    if (!fetch(stream, self)) return;
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

/// Returns the stream that goes on. Others may have been made ready.
ORRERY_HOT StreamId EventEngine::handle(EventKind kind, std::int32_t target, std::uint32_t generation) {
  if (kind != EventKind::simple_end) return handle_rare(kind, target, generation);
  StreamState& self = streams_[target];
  end_simple(target, self);
  return fetch(target, self) ? target : no_stream;
}

StreamId EventEngine::handle_rare(EventKind kind, std::int32_t target, std::uint32_t generation) {
  const auto is_stale = [&](std::uint32_t current) { return generation != (current & Event::generation_mask); };
  switch (kind) {
    case EventKind::compute_end: {
      if (!fixed_durations_) {
        ComputeRate& compute = compute_[streams_[target].rank];
        if (is_stale(compute.generation())) break;
        compute.stop();
      }
      end_compute(target, streams_[target]);
      return target;
    }
    case EventKind::simple_end:
    case EventKind::launch:
      return target;
    case EventKind::startup_end:
      end_startup(target, streams_[target]);
      return target;
    case EventKind::latency_end:
      end_latency(target);
      return no_stream;
    case EventKind::delivery:
      deliver_only(target, streams_[target]);
      return target;
    case EventKind::arrival:
      arrive(target);
      return no_stream;
    case EventKind::flow_end:
      if (is_stale(flows_[target].generation)) break;
      end_flow(target);
      return no_stream;
    case EventKind::trunk_end:
      if (is_stale(trunk_states_[target].generation) || !end_trunk_flows(target)) break;
      return no_stream;
    case EventKind::fault:
      change_faults(faults_->changes()[static_cast<std::size_t>(target)]);
      return no_stream;
  }
  --handled_;
  return no_stream;
}

/// What the coming events need, as far as the queue knows them: first the state of the stream, then what that points
/// to.
ORRERY_HOT void EventEngine::prefetch() const {
  const Event* const later = events_.peek(8);
  if (later == nullptr || later->kind() != static_cast<std::uint32_t>(EventKind::simple_end)) return;
  __builtin_prefetch(&streams_[later->target]);
  const Event* const soon = events_.peek(4);
  if (soon->kind() != static_cast<std::uint32_t>(EventKind::simple_end)) return;
  const StreamState& state = streams_[soon->target];
  __builtin_prefetch(&accounts_.clock(state.rank));
  __builtin_prefetch(&paths_[soon->target * path_stride_]);
  const SignalState* const signals = signals_.data() + state.first_signal;
  for (std::uint32_t i = 0; i < signals_per_rank_; i += 64 / sizeof(SignalState)) __builtin_prefetch(signals + i);
}

SimulationResult EventEngine::run() {
  for (StreamId stream = 0; stream < static_cast<StreamId>(streams_.size()); ++stream) {
    if (fetch_from_next_block(stream, streams_[stream])) make_ready(stream);
  }
  for (StreamId stream = next_ready(); stream != no_stream; stream = next_ready()) advance(stream);
  while (true) {
    const Event* event = events_.first();
    if (is_unsettled_ && (event == nullptr || event->time != now_)) {
      settle();
      event = events_.first();
    }
    if (event == nullptr) break;
    now_ = event->time;
    ++handled_;
    const auto kind = static_cast<EventKind>(event->kind());
    const auto target = static_cast<std::int32_t>(event->target);
    const std::uint32_t generation = event->generation();
    events_.drop_first();
    prefetch();
    StreamId stream = handle(kind, target, generation);
    if (stream == no_stream) stream = next_ready();
    for (; stream != no_stream; stream = next_ready()) advance(stream);
  }
  check_all_done();
  return result();
}

/// Through as many blocks as it takes.
bool EventEngine::fetch_from_next_block(StreamId stream, StreamState& self) {
  std::int64_t number = 0;
  while (true) {
    OpenBlock* const before = self.block;
    if (self.block != nullptr) {
      number = self.block->number + 1;
      if (has_launches_) host_times_[stream] += self.block->compiled->set_of(self.rank).host_time;
      leave(self.block);
    }
    if (number == blocks_.blocks()) break;
    self.block = open(number);
    if (before != nullptr && !has_launches_) before->next = self.block;
    self.op = self.block->compiled->set_of(self.rank).first_on_stream[static_cast<std::size_t>(self.kind)];
    if (self.op != nullptr) {
      draw(self);
      return true;
    }
  }
  self.block = nullptr;
  return false;
}

EventEngine::OpenBlock* EventEngine::open(std::int64_t number) {
  OpenBlock*& recent = recent_blocks_[static_cast<std::size_t>(number) % recent_blocks_.size()];
  if (recent == nullptr || recent->number != number) {
    if (recent != nullptr) leave(recent);
    if (free_blocks_.empty()) free_blocks_.push_back(&open_blocks_.emplace_back());
    recent = free_blocks_.back();
    free_blocks_.pop_back();
    recent->compiled = blocks_.acquire(number);
    const auto before = program_.counts_before(number);
    recent->counts_before = before.empty() ? no_counts_.data() : before.data();
    recent->number = number;
    recent->next = nullptr;
    recent->holders = 1;
    recent->first_on_stream = {};
    if (recent->compiled->sets.size() == 1) recent->first_on_stream = recent->compiled->sets[0].first_on_stream;
  }
  ++recent->holders;
  return recent;
}

void EventEngine::leave(OpenBlock* block) {
  if (--block->holders > 0) return;
  blocks_.release(block->compiled);
  block->number = -1;
  free_blocks_.push_back(block);
}

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

/// False if it is too early: flows have come, and the first ends later.
bool EventEngine::end_trunk_flows(TrunkId id) {
  TrunkState& state = trunk_states_[id];
  if (state.end > now_) {
    state.scheduled = state.end;
    push(state.end, EventKind::trunk_end, id, state.generation);
    return false;
  }
  state.is_pending = false;
  Trunk& trunk = trunks_.trunks[id];
  ended_.clear();
  trunk.remove_first(now_, ended_);
  is_unsettled_ = true;
  mark_trunk_dirty(id);
  for (const MessageId message : ended_) {
    messages_[message].lane->moving += now_ - messages_[message].moving_since;
    if (rates_matter_) change_rate(messages_[message], trunk.rate(), 0);
    deliver(message);
  }
  return true;
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
    if (fetch(stream, sender)) make_ready(stream);
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

/// An event that is too early stays; when it comes, another takes its place. So flows that come cost no event.
void EventEngine::settle_trunk(TrunkId id) {
  TrunkState& state = trunk_states_[id];
  Trunk& trunk = trunks_.trunks[id];
  state.is_dirty = false;
  const double old_rate = trunk.rate();
  trunk.share(now_);
  if (trunk.empty()) return;
  if (rates_matter_ && trunk.rate() != old_rate) {
    trunk.each_member([&](MessageId message) { change_rate(messages_[message], old_rate, trunk.rate()); });
  }
  const StreamId stream = messages_[trunk.first()].stream;
  state.end = later(now_, rounded(trunk.ticks_left(), stream), stream);
  if (state.is_pending && state.scheduled <= state.end) return;
  state.is_pending = true;
  state.scheduled = state.end;
  push(state.end, EventKind::trunk_end, id, ++state.generation);
}

void EventEngine::settle() {
  for (const TrunkId trunk : dirty_trunks_) settle_trunk(trunk);
  dirty_trunks_.clear();
  if (network_.is_unsettled()) settle_flows();
  std::sort(dirty_flows_.begin(), dirty_flows_.end());
  dirty_flows_.erase(std::unique(dirty_flows_.begin(), dirty_flows_.end()), dirty_flows_.end());
  for (const FlowId flow : dirty_flows_) {
    // It may have ended at this very tick, and another may have its place.
    if (!network_.contains(flow) || !(streams_[messages_[flows_[flow].message].stream].op->sms > 0)) continue;
    const double old_rate = pace(flow);
    if (network_.rate(flow) != old_rate) time_flow(flow, old_rate);
  }
  dirty_flows_.clear();
  for (const Rank rank : dirty_) settle_compute(rank);
  dirty_.clear();
  is_unsettled_ = sink_ != nullptr;
  if (sink_ != nullptr) link_tracer_.update(now_);
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

void EventEngine::refuse_overflow(StreamId stream) const {
  throw std::overflow_error(
      fmt::format("{} would end beyond 2^63 ps (106 days) of simulated time; check its duration, its size and the "
                  "bandwidths on its way",
                  name(stream)));
}

}  // namespace orrery
