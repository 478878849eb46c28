// The event tier: every start and end is an event, so rates may change while ops run. Internal to sim/.
//
// What is known in advance costs one event: an op of fixed duration, and a transfer alone on its links, from its start
// to its delivery. Only what others can slow down has events in between.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <limits>
#include <map>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "sim/block_store.hpp"
#include "sim/compute_rates.hpp"
#include "sim/event_queue.hpp"
#include "sim/fault_state.hpp"
#include "sim/flows.hpp"
#include "sim/link_tracer.hpp"
#include "sim/rank_accounts.hpp"
#include "sim/simulate.hpp"
#include "sim/span_batch.hpp"
#include "sim/survey.hpp"
#include "sim/trunks.hpp"

namespace orrery {

using StreamId = std::int32_t;  // rank * streams in use + which of them

/// Every stream is a small state machine that works through its ops. At one tick, first all events and everything they
/// set off without time passing, then one new sharing of links, SMs and HBM, then the next tick.
class EventEngine {
 public:
  /// The survey for a simulation with faults says that no link is private.
  EventEngine(BlockStore& blocks, const Cluster& cluster, const Survey& survey, const SimulationOptions& options);
  ~EventEngine();
  EventEngine(const EventEngine&) = delete;
  EventEngine& operator=(const EventEngine&) = delete;
  SimulationResult run();

 private:
  enum class EventKind : std::uint8_t {
    simple_compute_end,
    simple_transfer_end,
    compute_end,
    delivery,
    launch,
    startup_end,
    latency_end,
    arrival,
    flow_end,
    trunk_change,
    fault
  };

  /// Where in the life of its op a stream goes on.
  enum class State : std::uint8_t { start_waits, begin, transfer_waits, finish_waits };

  /// A block that some stream is in.
  struct OpenBlock {
    CompiledBlock* compiled = nullptr;
    const std::int64_t* counts_before = nullptr;
    std::int64_t number = -1;
    OpenBlock* next = nullptr;  // the block after this one, if its number still says so
    std::int32_t holders = 0;
    std::array<const CompiledOp*, streams_per_rank> first_on_stream{};  // of all ranks, if they are one set
  };

  struct alignas(64) StreamState {
    const CompiledOp* op = nullptr;  // null: none left
    OpenBlock* block = nullptr;
    Ticks ready_at = 0;  // when the last thing waited for so far was there; in flight: when the messages left
    union {
      Ticks begun = 0;  // of the op
      Ticks drawn;      // of compute that has not begun: its duration
    };
    union {
      std::int64_t wanted = 0;  // of the signal waited for
      Ticks alone;              // of compute that is under way: how long the op takes with the whole GPU
    };
    StreamId next_waiter = -1;   // on the same signal
    std::int32_t under_way = 0;  // messages
    Rank rank = 0;
    std::uint32_t first_signal = 0;  // of the rank
    State state = State::start_waits;
    std::uint16_t next_wait = 0;  // after the one that keeps it waiting; no byte, which might be part of anything
    Stream kind = Stream::compute;
  };
  static_assert(sizeof(StreamState) == 64);

  struct SignalState {
    std::int64_t count = 0;
    StreamId first_waiter = -1;
  };

  /// The way from one rank to another, and what went over it.
  struct alignas(64) Lane {
    const Route* route = nullptr;
    Ticks latency = 0;
    double bandwidth = 0;  // the smallest on the way
    double bytes = 0;
    Ticks moving = 0;        // how long links of its own were in use; not by flows of the max-min network
    TrunkId trunk = -1;      // its messages share only this with others
    bool is_direct = false;  // all its links are private: its messages share nothing
  };

  struct MessageState {
    const CompiledMessage* message = nullptr;
    Lane* lane = nullptr;
    Rank source = 0;
    Rank destination = 0;
    StreamId stream = 0;
    std::int32_t next_free = -1;
    Ticks moving_since = 0;  // over a trunk
  };
  using MessageId = std::int32_t;  // the first belong to the streams, for ops with one message

  struct TrunkState {
    Ticks end = 0;        // of the first of its flows, if there is one and nobody comes before
    Ticks scheduled = 0;  // for when an event is pending, which may be too early
    std::uint32_t generation = 0;
    bool is_pending = false;
    bool is_dirty = false;
  };

  // The breakdown of the time up to now of the chain of ops that led here. Every stream has one: a row for each
  // category but the first (which gets the rest), then contention, then launch, as far as any of these can take time,
  // so that the parts add up to the time exactly; and one more row for what is not counted. Whoever ends a wait hands
  // over its own; of several things that were there at the same tick the first counts: the op before on the stream,
  // then the waits in the op's order.
  using Path = Ticks*;
  Path path(StreamId stream) { return paths_.data() + static_cast<std::size_t>(stream) * path_stride_; }
  void copy_path(const Ticks* from, Path to) const {
    for (std::size_t i = 0; i < path_rows_; ++i) to[i] = from[i];
  }
  void extend_path(Path path, const CompiledOp& op, Ticks alone, Ticks elapsed) const {
    if (contention_row_ >= 0) {
      path[contention_row_] += std::max<Ticks>(elapsed - alone, 0);
      elapsed = std::min(alone, elapsed);
    }
    path[row_of_account_[op.account]] += elapsed;
  }
  void lay_out_paths(const Survey& survey);

  // Life of an op.
  static constexpr StreamId no_stream = -1;
  void make_ready(StreamId stream) { ready_[ready_end_++ & ready_mask_] = stream; }
  StreamId next_ready() { return ready_begin_ == ready_end_ ? no_stream : ready_[ready_begin_++ & ready_mask_]; }
  void advance(StreamId stream);
  void advance_any(StreamId stream, StreamState& self);
  bool wait_through(StreamId stream, StreamState& self, WaitStage stage);
  bool issued(StreamId stream, StreamState& self);
  void start(StreamId stream, StreamState& self, bool sends);
  bool begin_simple(StreamId stream, StreamState& self, bool sends);
  void send_simple(StreamId stream, StreamState& self);
  void expect_end(StreamId stream, StreamState& self, Ticks end, EventKind kind);
  void end_simple(StreamId stream, bool sends);
  void end_shared(const MessageState& message, StreamState& self, Ticks alone);
  bool begin(StreamId stream, StreamState& self);
  bool begin_compute(StreamId stream, StreamState& self);
  bool begin_transfer(StreamId stream, StreamState& self);
  bool send(StreamId stream, StreamState& self, Ticks departure);
  bool send_alone(StreamId stream, StreamState& self, Ticks departure);
  bool send_all(StreamId stream, StreamState& self, Ticks departure);
  void depart(StreamId stream, StreamState& self, const CompiledMessage& message, Ticks departure);
  MessageId new_message();
  void finish(StreamId stream, StreamState& self);
  static bool is_compute(const StreamState& self) { return self.kind == Stream::compute; }
  bool fetch(StreamId stream, StreamState& self, bool computes);
  bool fetch_from_next_block(StreamId stream, StreamState& self);
  void draw(StreamState& self) const;

  // Signals.
  SignalState& signal(const StreamState& self, SignalPlace place) {
    std::uint32_t index = self.first_signal + place;
    if (__builtin_expect_with_probability(index >= signal_count_, 0, 0.999)) index -= signal_count_;
    return signals_[index];
  }
  void raise(StreamId stream, const StreamState& self, SignalPlace place) { raise(self, place, path(stream)); }
  void raise(const StreamState& self, SignalPlace place, const Ticks* path) {
    SignalState& signal = this->signal(self, place);
    ++signal.count;
    if (signal.first_waiter >= 0) wake(signal, path);
  }
  StreamId raise_simple(StreamId stream, const StreamState& self, SignalPlace place);
  void raise_and_start(StreamId stream, const StreamState& self, SignalPlace place);
  void raise_all(StreamId stream, StreamState& self);
  void wake(SignalState& signal, const Ticks* path_of_raiser);

  Rank wrap(Rank rank, std::int32_t distance) const {
    Rank sum = rank + distance;
    if (__builtin_expect_with_probability(sum >= ranks_, 0, 0.999)) sum -= ranks_;
    return sum;
  }
  void enter_comm(Rank rank, const CompiledMessage& message) {
    accounts_.clock(wrap(rank, message.source)).enter_comm(now_);
    accounts_.clock(wrap(rank, message.destination)).enter_comm(now_);
  }
  void leave_comm(Rank rank, const CompiledMessage& message) {
    accounts_.clock(wrap(rank, message.source)).leave_comm(now_);
    accounts_.clock(wrap(rank, message.destination)).leave_comm(now_);
  }

  OpenBlock* open(std::int64_t number);
  void leave(OpenBlock* block);

  // Events.
  void prefetch() const;
  void handle(EventKind kind, std::int32_t target, std::uint32_t generation);
  StreamId handle_rare(EventKind kind, std::int32_t target, std::uint32_t generation);
  void end_compute(StreamId stream, StreamState& self);
  void end_startup(StreamId stream, StreamState& self);
  void deliver_only(StreamId stream, StreamState& self);
  void end_latency(MessageId message);
  void end_flow(FlowId flow);
  void approach(MessageId message, TrunkId trunk, Ticks first_byte);
  void admit_to_trunk(TrunkId trunk);
  bool change_trunk(TrunkId trunk);
  void end_trunk_flows(TrunkId trunk);
  void arrive(MessageId message);
  void deliver(MessageId message);
  void change_rate(const MessageState& message, double old_rate, double new_rate);
  void push(Ticks time, EventKind kind, std::int32_t target, std::uint32_t generation = 0) {
    events_.push(Event::make(time, static_cast<std::uint32_t>(kind), static_cast<std::uint32_t>(target), generation));
  }

  Lane& lane(const CompiledMessage& message, Rank source) {
    Lane& lane = lanes_[static_cast<std::size_t>(message.route) * static_cast<std::size_t>(ranks_) +
                        static_cast<std::size_t>(source)];
    if (lane.route == nullptr) open_lane(lane, message, source);
    return lane;
  }
  void open_lane(Lane& lane, const CompiledMessage& message, Rank source);
  /// From departure to delivery, but for the latency, if nothing else is on the way.
  Ticks moving_alone(const CompiledMessage& message, const Lane& lane, StreamId stream) const {
    if (message.timed_bandwidth != lane.bandwidth) {
      message.timed = rounded(message.size / lane.bandwidth * ticks_per_second, stream);
      message.timed_bandwidth = lane.bandwidth;
    }
    return message.timed;
  }

  // Faults.
  void expect_faults(const Faults& faults);
  void change_faults(std::size_t first);
  bool is_hindered(const MessageState& message) const;
  bool stands_still(const MessageState& message) const;
  bool hindered(MessageId message);
  Lane& open_way(Lane& usual, Rank source, Rank destination);
  double bytes_to_send(MessageId message);
  std::map<StreamId, std::string> hindrances() const;

  // End of a tick.
  void settle();
  void settle_trunk(TrunkId trunk);
  void time_trunk(TrunkId trunk, Ticks shared_at);
  void expect_change(TrunkId trunk);
  void settle_flows();
  void settle_paces();
  void slow_transfers(Rank rank, double times);
  bool is_paced(const CompiledOp& op) const;
  double pace(FlowId flow);
  void leave_network(FlowId flow);
  void time_flow(FlowId flow, double old_rate);
  void settle_compute(Rank rank);
  void mark_dirty(Rank rank);
  void mark_trunk_dirty(TrunkId trunk);
  Ticks later(Ticks time, Ticks delay, StreamId stream) const {
    // Two of them fit without their sign. The queue needs a time beyond the last.
    const auto sum = static_cast<std::uint64_t>(time) + static_cast<std::uint64_t>(delay);
    if (sum >= static_cast<std::uint64_t>(std::numeric_limits<Ticks>::max())) [[unlikely]]
      refuse_overflow(stream);
    return static_cast<Ticks>(sum);
  }
  Ticks rounded(double delay, StreamId stream) const {
    if (!(delay < 9223372036854775807.0)) refuse_overflow(stream);
    const auto whole = static_cast<Ticks>(delay);  // as std::llround, which is a call
    return whole + static_cast<Ticks>(delay - static_cast<double>(whole) >= 0.5);
  }
  [[noreturn]] void refuse_overflow(StreamId stream) const;

  void check_all_done();
  SimulationResult result();
  void add_lanes(SimulationResult& result) const;
  std::string name(StreamId stream) const;

  struct FlowState {
    MessageId message = -1;
    std::uint32_t generation = 0;
  };

  BlockStore& blocks_;
  const Program& program_;
  const Cluster& cluster_;
  const Perturbation* perturbation_;
  SpanSink* sink_;
  Trunks trunks_;
  std::vector<TrunkState> trunk_states_;
  std::vector<TrunkId> dirty_trunks_;
  std::vector<Trunk::Member> ended_;  // flows of a trunk
  FlowNetwork network_;
  EventQueue events_;
  Ticks now_ = 0;
  std::uint64_t handled_ = 0;
  const Rank ranks_;
  const std::uint32_t signals_per_rank_, signal_count_;
  const std::vector<bool>& is_private_link_;
  const bool holds_sms_;
  const bool fixed_durations_;  // of compute: no communication slows it down
  const bool hbm_matters_;
  const bool slows_transfers_;  // compute, transfers that hold SMs
  const bool has_launches_;
  const bool rates_matter_;    // of flows: to compute, or to who watches links
  const bool has_simple_ops_;  // nothing can come between the begin and the end of those that say so
  const bool in_cache_;        // the state of all ranks
  const bool prefetches_;      // most events are ends of simple ops, or the state is large

  std::vector<Stream> streams_in_use_;
  std::vector<StreamState> streams_;
  std::vector<Ticks> host_times_;  // by stream, at the start of its block; empty without launches
  std::vector<StreamId> ready_;    // a ring, with room for all: a stream waits for one thing at a time
  std::uint32_t ready_begin_ = 0, ready_end_ = 0, ready_mask_ = 0;
  std::vector<SignalState> signals_;
  std::vector<Lane> lanes_;  // by column of the table of routes, and source
  std::vector<MessageState> messages_;
  MessageId free_message_ = -1;
  std::vector<FlowState> flows_;
  std::vector<ComputeRate> compute_;
  std::vector<double> slowing_;              // by rank: how much its compute op slows transfers; empty: nothing does
  std::vector<std::vector<FlowId>> slowed_;  // by rank: flows from and to it that this changes
  std::vector<FlowId> dirty_flows_;
  std::vector<Rank> dirty_;
  std::vector<std::uint8_t> is_dirty_;
  bool is_unsettled_ = true;

  struct Detour {
    Lane lane;
    Rank source = 0, destination = 0;
  };
  std::optional<FaultState> faults_;
  std::deque<Detour> detours_;
  std::unordered_map<const CachedRoute*, Detour*> detour_of_;
  std::vector<MessageId> held_;                       // since a rank pauses
  std::unordered_map<MessageId, double> bytes_left_;  // of messages that have begun and are not in the network

  std::deque<OpenBlock> open_blocks_;
  std::vector<OpenBlock*> free_blocks_;
  std::array<OpenBlock*, 256> recent_blocks_{};  // by number modulo their number; held
  std::vector<std::int64_t> no_counts_;          // zeros

  static constexpr int takes_no_time = -2, gets_the_rest = -1;
  std::vector<int> row_of_category_;         // of paths, or one of these two
  std::vector<std::size_t> row_of_account_;  // the last row: not counted
  int contention_row_ = -1, launch_row_ = -1;
  std::size_t path_rows_ = 0, path_stride_ = 0;
  std::vector<Ticks> paths_;
  std::vector<Ticks> message_path_;

  Accounts accounts_;
  SpanBatch spans_;
  LinkTracer link_tracer_;
};

}  // namespace orrery
