// The event tier: every start and end is an event, so rates may change while ops run. Internal to sim/.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "sim/block_store.hpp"
#include "sim/compute_rates.hpp"
#include "sim/event_queue.hpp"
#include "sim/flows.hpp"
#include "sim/link_tracer.hpp"
#include "sim/rank_accounts.hpp"
#include "sim/simulate.hpp"
#include "sim/span_batch.hpp"
#include "sim/survey.hpp"

namespace orrery {

using StreamId = std::int32_t;  // rank * streams_per_rank + stream
using SignalId = std::int32_t;  // rank * signals per rank + signal

/// Every stream is a small state machine that works through its ops. At one tick, first all events and everything they
/// set off without time passing, then one new sharing of links, SMs and HBM, then the next tick.
class EventEngine {
 public:
  EventEngine(BlockStore& blocks, const Cluster& cluster, const Survey& survey, const Perturbation* perturbation,
              SpanSink* sink);
  SimulationResult run();

 private:
  enum class EventKind : std::uint8_t { launch, startup_end, compute_end, latency_end, flow_end, arrival };

  /// What a stream does next when it is advanced.
  enum class State : std::uint8_t { fetch, start_waits, begin, working, transfer_waits, in_flight, finish_waits };

  struct StreamState {
    const CompiledOp* op = nullptr;  // null: none left
    CompiledBlock* block = nullptr;
    const std::int64_t* counts_before = nullptr;
    std::int64_t block_number = -1;
    Ticks host_time = 0;         // at the start of the block
    Ticks ready_at = 0;          // when the last thing waited for so far was there
    Ticks begun = 0;             // of the op
    Ticks departed = 0;          // of its messages
    Ticks alone = 0;             // compute: how long the op takes with the whole GPU
    StreamId next_waiter = -1;   // on the same signal
    std::int32_t under_way = 0;  // messages
    State state = State::fetch;
    std::uint8_t next_wait = 0;
    bool queued = false;  // is in ready_
  };

  struct SignalState {
    std::int64_t count = 0;
    StreamId first_waiter = -1;
  };

  /// A route whose links are all private: its messages need no sharing of links.
  struct DirectRoute {
    enum class Known : std::uint8_t { nothing, direct, shares } known = Known::nothing;
    double bytes = 0;
    Ticks moving = 0;
  };

  struct MessageState {
    const CompiledMessage* message = nullptr;
    const CachedRoute* route = nullptr;
    Rank source = 0;
    Rank destination = 0;
    StreamId stream = 0;
    std::int32_t next_free = -1;
    DirectRoute* direct = nullptr;  // null: it shares links
  };
  using MessageId = std::int32_t;

  // The breakdown of the time up to now of the chain of ops that led here: one entry per category, then contention,
  // then launch, so that the parts add up to the time exactly. Every stream has one. Whoever ends a wait hands over its
  // own; of several things that were there at the same tick the first counts: the op before on the stream, then the
  // waits in the op's order.
  using Path = Ticks*;
  Path path(StreamId stream) { return paths_.data() + static_cast<std::size_t>(stream) * path_size_; }
  void extend_path(Path path, std::uint8_t category, Ticks alone, Ticks elapsed) const;

  // Life of an op.
  void make_ready(StreamId stream);
  void run_ready();
  void advance(StreamId stream);
  bool fetch(StreamId stream);
  bool wait_through(StreamId stream, WaitStage stage);
  bool issued(StreamId stream);
  bool begin(StreamId stream);
  bool send(StreamId stream);
  void finish(StreamId stream);
  void raise(Rank rank, RelativeSignal signal, const Ticks* path);

  // Events.
  void handle(const Event& event);
  void end_startup(StreamId stream);
  void end_compute(Rank rank);
  void end_latency(MessageId message);
  void end_flow(FlowId flow);
  void arrive(MessageId message);
  void change_traffic(const MessageState& message, double old_rate, double new_rate);
  void deliver(MessageId message);
  void push(Ticks time, EventKind kind, std::int32_t target, std::uint32_t generation = 0) {
    events_.push(Event::make(time, static_cast<std::uint32_t>(kind), static_cast<std::uint32_t>(target), generation));
  }

  DirectRoute* direct_route(const CompiledMessage& message, Rank source);
  /// From departure to delivery if nothing else is on the way.
  Ticks moving_alone(const MessageState& message) const {
    return rounded(message.message->size / message.route->bandwidth * ticks_per_second, message.stream);
  }

  // End of a tick.
  void settle();
  void mark_dirty(Rank rank);
  Ticks later(Ticks time, Ticks delay, StreamId stream) const;
  Ticks after(Ticks delay, StreamId stream) const { return later(now_, delay, stream); }
  Ticks rounded(double delay, StreamId stream) const;
  [[noreturn]] void refuse_overflow(StreamId stream) const;

  void check_all_done();
  void add_direct_routes(SimulationResult& result);
  SimulationResult result();

  static Rank rank_of(StreamId stream) { return stream / streams_per_rank; }
  static Stream kind_of(StreamId stream) { return static_cast<Stream>(stream % streams_per_rank); }
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
  FlowNetwork network_;
  EventQueue events_;
  Ticks now_ = 0;
  std::uint64_t handled_ = 0;
  std::int32_t signals_per_rank_;
  const std::vector<bool>& is_private_link_;
  bool fixed_durations_;  // of compute: no communication slows it down
  bool hbm_matters_;
  std::vector<std::vector<DirectRoute>> direct_routes_;  // by route and source

  std::vector<StreamState> streams_;
  std::vector<StreamId> ready_;
  std::vector<SignalState> signals_;
  std::vector<MessageState> messages_;
  MessageId free_message_ = -1;
  std::vector<FlowState> flows_;
  std::vector<ComputeRate> compute_;
  std::vector<Rank> dirty_;
  std::vector<std::uint8_t> is_dirty_;

  std::size_t path_size_;
  std::vector<Ticks> paths_;
  std::vector<Ticks> message_path_;

  Accounts accounts_;
  SpanBatch spans_;
  LinkTracer link_tracer_;
};

}  // namespace orrery
