#include "sim/op_queues.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <stdexcept>

namespace orrery {
namespace {

std::string op_name(const Program& program, Rank rank, const Op& op) {
  return fmt::format("rank {} {} \"{}\"", rank,
                     static_cast<int>(op.stream) < streams_per_rank ? name_of(op.stream) : "(unknown stream)",
                     program.describe(rank, op.block, op.index));
}

/// Takes a slot off the free list, which is linked through `next`, or makes a new one.
template <class Slot>
SlotId take_slot(std::vector<Slot>& pool, SlotId& first_free) {
  if (first_free < 0) {
    pool.emplace_back();
    return static_cast<SlotId>(pool.size() - 1);
  }
  const SlotId slot = first_free;
  first_free = pool[slot].next;
  return slot;
}

std::int32_t checked_signals_per_rank(const Program& program) {
  const auto signals = program.signals().size();
  const auto most = static_cast<std::size_t>(std::numeric_limits<SignalId>::max());
  if (program.ranks() > 0 && signals > most / static_cast<std::size_t>(program.ranks())) {
    throw std::invalid_argument(fmt::format(
        "{} ranks with {} signals each are too many (signals are numbered with 31 bits)", program.ranks(), signals));
  }
  return static_cast<std::int32_t>(signals);
}

}  // namespace

OpQueues::OpQueues(const Program& program, const Cluster& cluster)
    : program_(program),
      cluster_(cluster),
      ranks_(program.ranks()),
      blocks_(program.blocks()),
      signals_per_rank_(checked_signals_per_rank(program)),
      categories_(program.categories().size()),
      phases_(program.phases().size()) {
  if (ranks_ < 0 || ranks_ > cluster.ranks()) {
    throw std::invalid_argument(fmt::format(
        "the program has {} ranks (the cluster has {}); use a cluster of at least as many", ranks_, cluster.ranks()));
  }
  queues_.resize(static_cast<std::size_t>(ranks_) * streams_per_rank);
  rank_states_.resize(static_cast<std::size_t>(ranks_));
}

SlotId OpQueues::front(StreamId stream) {
  const Rank rank = stream / streams_per_rank;
  RankState& state = rank_states_[rank];
  while (queues_[stream].first < 0 && state.next_block < blocks_ &&
         state.next_block < state.oldest_block + lookahead_blocks) {
    generate_block(rank);
    advance_oldest(state);  // a block may be empty
  }
  return queues_[stream].first;
}

bool OpQueues::advance_oldest(RankState& state) {
  const std::int64_t before = state.oldest_block;
  while (state.oldest_block < state.next_block && state.unfinished[state.oldest_block % lookahead_blocks] == 0) {
    ++state.oldest_block;
  }
  return state.oldest_block != before;
}

bool OpQueues::pop(StreamId stream) {
  Queue& queue = queues_[stream];
  const SlotId slot = queue.first;
  PendingOp& op = ops_[slot];
  for (SlotId message = op.first_message; message >= 0;) {
    const SlotId next = messages_[message].next;
    messages_[message].next = free_message_;
    free_message_ = message;
    message = next;
  }
  queue.first = op.next;
  if (queue.first < 0) queue.last = -1;
  op.next = free_op_;
  free_op_ = slot;
  RankState& state = rank_states_[stream / streams_per_rank];
  if (--state.unfinished[op.block % lookahead_blocks] > 0 || op.block != state.oldest_block) return false;
  return advance_oldest(state);
}

void OpQueues::generate_block(Rank rank) {
  const std::int64_t block = rank_states_[rank].next_block++;
  buffer_.begin(block);
  program_.generate(rank, block, buffer_);
  rank_states_[rank].unfinished[block % lookahead_blocks] = static_cast<std::int32_t>(buffer_.ops().size());
  for (const Op& op : buffer_.ops()) append(rank, op);
}

void OpQueues::append(Rank rank, const Op& op) {
  check(rank, op);
  Ticks& host_clock = rank_states_[rank].host_clock;
  if (op.launch > std::numeric_limits<Ticks>::max() - host_clock) {
    throw std::overflow_error(fmt::format("{} is issued beyond 2^63 ps (106 days)", op_name(program_, rank, op)));
  }
  host_clock += op.launch;

  const SlotId slot = take_slot(ops_, free_op_);
  PendingOp& pending = ops_[slot];
  pending.issue = host_clock;
  pending.duration = op.duration;
  // Rounding the duration down may make an op that just saturates HBM ask for a little more than there is.
  pending.hbm_demand =
      op.duration == 0 ? 0 : std::min(op.hbm_traffic / to_seconds(op.duration), cluster_.gpu().hbm_bandwidth).si();
  pending.sms = op.sms;
  pending.block = op.block;
  pending.index = op.index;
  pending.next = -1;
  pending.started = look_up(rank, op, op.started);
  for (int i = 0; i < Op::max_signals; ++i) pending.finished[i] = look_up(rank, op, op.finished[i]);
  pending.category = op.category;
  pending.phase = op.phase;
  look_up_waits(rank, op, pending);

  const StreamId stream = rank * streams_per_rank + static_cast<StreamId>(op.stream);
  pending.first_message = -1;
  pending.message_count = op.message_count;
  const auto messages = buffer_.messages_of(op);
  for (std::size_t i = messages.size(); i-- > 0;) append_message(rank, op, messages[i], stream, pending);

  Queue& queue = queues_[stream];
  (queue.last < 0 ? queue.first : ops_[queue.last].next) = slot;
  queue.last = slot;
}

void OpQueues::look_up_waits(Rank rank, const Op& op, PendingOp& pending) const {
  std::uint8_t count = 0;
  for (int stage = 0; stage < 3; ++stage) {
    for (int i = 0; i < op.wait_count; ++i) {
      const Wait& wait = op.waits[i];
      if (static_cast<int>(wait.stage) != stage || wait.signal.rank == -1) continue;
      pending.waits[count++] = PendingWait{wait.count, look_up(rank, op, wait.signal)};
    }
    pending.waits_until[stage] = count;
  }
}

void OpQueues::append_message(Rank rank, const Op& op, const Message& message, StreamId stream, PendingOp& pending) {
  if (message.source < 0 || message.source >= ranks_ || message.destination < 0 || message.destination >= ranks_ ||
      !(message.size.si() >= 0) || !std::isfinite(message.size.si())) {
    throw std::invalid_argument(
        fmt::format("{} sends {} bytes from rank {} to rank {} (the program has {} ranks, and a "
                    "size is zero or more)",
                    op_name(program_, rank, op), message.size.si(), message.source, message.destination, ranks_));
  }
  const bool travels = message.source != message.destination && message.size.si() > 0;
  const SlotId slot = take_slot(messages_, free_message_);
  messages_[slot] = PendingMessage{message.size.si(),
                                   travels ? route_index(message.source, message.destination) : -1,
                                   message.source,
                                   message.destination,
                                   look_up(rank, op, message.delivered),
                                   pending.first_message,
                                   stream};
  pending.first_message = slot;
}

void OpQueues::check(Rank rank, const Op& op) const {
  const char* problem = nullptr;
  if (op.launch < 0) problem = "a negative launch time";
  if (op.duration < 0) problem = "a negative duration";
  if (!(op.hbm_traffic.si() >= 0)) problem = "a negative HBM traffic";
  if (!(op.sms >= 0)) problem = "a negative number of SMs";
  if (static_cast<int>(op.stream) >= streams_per_rank) problem = "no such stream";
  if (op.category >= categories_) problem = "a category that Program::categories() does not list";
  if (op.phase >= phases_) problem = "a phase that Program::phases() does not list";
  if (op.wait_count > Op::max_waits) problem = "more waits than fit";
  if (problem != nullptr) throw std::invalid_argument(fmt::format("{} has {}", op_name(program_, rank, op), problem));
}

SignalId OpQueues::look_up(Rank rank, const Op& op, SignalRef signal) const {
  if (signal.rank == -1) return -1;
  if (signal.rank < 0 || signal.rank >= ranks_ || signal.signal < 0 || signal.signal >= signals_per_rank_) {
    throw std::invalid_argument(
        fmt::format("{} names signal {} of rank {} (the program has {} ranks with {} signals each)",
                    op_name(program_, rank, op), signal.signal, signal.rank, ranks_, signals_per_rank_));
  }
  return signal.rank * signals_per_rank_ + signal.signal;
}

std::int32_t OpQueues::route_index(Rank source, Rank destination) {
  auto& known = rank_states_[source].routes;
  const auto place = std::lower_bound(known.begin(), known.end(), destination,
                                      [](const auto& entry, Rank wanted) { return entry.first < wanted; });
  if (place != known.end() && place->first == destination) return place->second;
  const Route& route = cluster_.route(source, destination);
  double bandwidth = std::numeric_limits<double>::infinity();
  for (const LinkId link : route.links) bandwidth = std::min(bandwidth, cluster_.links()[link].bandwidth.si());
  const auto index = static_cast<std::int32_t>(routes_.size());
  routes_.push_back(CachedRoute{&route, to_ticks(route.latency), bandwidth});
  known.insert(place, {destination, index});
  return index;
}

std::string OpQueues::name(StreamId stream, const PendingOp& op) const {
  return fmt::format("rank {} {} \"{}\"", stream / streams_per_rank,
                     name_of(static_cast<Stream>(stream % streams_per_rank)),
                     program_.describe(stream / streams_per_rank, op.block, op.index));
}

}  // namespace orrery
