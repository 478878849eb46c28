// The event loop behind simulate(). Internal to sim/.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "sim/compute_rates.hpp"
#include "sim/event_queue.hpp"
#include "sim/flows.hpp"
#include "sim/link_tracer.hpp"
#include "sim/op_queues.hpp"
#include "sim/rank_accounts.hpp"
#include "sim/simulate.hpp"

namespace orrery {

/// Every stream is a small state machine that works through its ops. At one tick, first all events and everything they
/// set off without time passing, then one new sharing of links, SMs and HBM, then the next tick.
class Simulator {
 public:
  Simulator(const Program& program, const Cluster& cluster, SpanSink* sink);
  SimulationResult run();

 private:
  /// What a stream does next when it is advanced.
  enum class State : std::uint8_t { fetch, start_waits, begin, working, transfer_waits, in_flight, finish_waits };

  struct StreamState {
    SlotId op = -1;
    State state = State::fetch;
    std::uint8_t next_wait = 0;
    bool ready = false;          // is in ready_
    StreamId next_waiter = -1;   // on the same signal
    std::int32_t under_way = 0;  // messages
    Ticks begun = 0;             // of the op
    Ticks departed = 0;          // of its messages
    Ticks busy = 0;
    Ticks last_end = 0;
  };

  // The breakdown of the time up to now of the chain of ops that led here: one entry per category, then contention,
  // then launch. Every stream has one; whoever wakes a stream hands over its own, so that the parts add up to `now`
  // exactly.
  using Path = Ticks*;
  Path path(StreamId stream) { return paths_.data() + static_cast<std::size_t>(stream) * path_size_; }
  void extend_path(Path path, std::uint8_t category, Ticks alone, Ticks elapsed) const;

  // Life of an op.
  void make_ready(StreamId stream);
  void run_ready();
  void advance(StreamId stream);
  bool fetch(StreamId stream);
  bool wait_through(StreamId stream, const PendingOp& op, WaitStage stage);
  bool issued(StreamId stream, const PendingOp& op);
  bool begin(StreamId stream, const PendingOp& op);
  bool send(StreamId stream, const PendingOp& op);
  void finish(StreamId stream);
  void raise(SignalId signal, const Ticks* path);

  // Events.
  void handle(const Event& event);
  void end_startup(StreamId stream);
  void end_compute(Rank rank);
  void end_latency(SlotId message);
  void end_flow(FlowId flow);
  void deliver(SlotId message);

  // End of a tick.
  void settle();
  void mark_dirty(Rank rank);
  Ticks after(Ticks delay, StreamId stream, const PendingOp& op) const;
  Ticks after_rounded(double delay, StreamId stream, const PendingOp& op) const;
  [[noreturn]] void refuse_overflow(StreamId stream, const PendingOp& op) const;

  void record(StreamId stream, const PendingOp& op);
  void flush_spans();
  void check_all_done();
  SimulationResult result();

  static Rank rank_of(StreamId stream) { return stream / streams_per_rank; }
  static Stream kind_of(StreamId stream) { return static_cast<Stream>(stream % streams_per_rank); }

  struct FlowState {
    SlotId message = -1;
    std::uint32_t generation = 0;
  };

  const Program& program_;
  const Cluster& cluster_;
  SpanSink* sink_;
  OpQueues queues_;
  FlowNetwork network_;
  EventQueue events_;
  Ticks now_ = 0;
  std::uint64_t handled_ = 0;

  std::vector<StreamState> streams_;
  std::vector<StreamId> ready_;
  std::vector<FlowState> flows_;
  std::vector<std::int64_t> signal_counts_;
  std::vector<StreamId> waiters_;  // by signal: first of the list
  std::vector<ComputeRate> compute_;
  std::vector<Rank> dirty_;
  std::vector<std::uint8_t> is_dirty_;

  std::size_t path_size_;
  std::vector<Ticks> paths_;
  std::vector<Ticks> message_path_;

  std::vector<RankTotals> totals_;
  std::vector<RankClock> clocks_;
  std::vector<PhaseClock> phases_;
  std::vector<Span> spans_;
  LinkTracer link_tracer_;
};

}  // namespace orrery
