// The dependency tier: if nothing depends on what else is active, an op starts when the last of the things it waits for
// is there. Then no queue of events is needed: finish times follow in any order that respects the waits, here op by op
// for whole sets of ranks at once. The times form a (max, +) system (Baccelli, Cohen, Olsder, Quadrat: Synchronization
// and Linearity, 1992). The result is that of the event tier, to the tick.
//
// Signals count in the order in which ops are worked off here, which must be their order in time as far as any wait can
// tell; this is checked.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <tuple>
#include <vector>

#include "sim/block_store.hpp"
#include "sim/columns.hpp"
#include "sim/comm_account.hpp"
#include "sim/signal_history.hpp"
#include "sim/simulate.hpp"
#include "sim/survey.hpp"

namespace orrery {

class DependencyEngine {
 public:
  struct Depths {
    std::size_t history = 4;  // raises of a signal that are remembered; a power of two
    CommAccounts::Depths comm;
  };

  DependencyEngine(BlockStore& blocks, const Cluster& cluster, const Survey& survey, const Columns& columns,
                   const Perturbation* perturbation, Depths depths, bool may_lock_step);

  /// Throws NotApplicable, or what would let another engine run it.
  SimulationResult run();

  struct TooShallow {
    Depths enough;
  };
  struct NotInLockStep {};

 private:
  struct OpenBlock;
  class LockStep;

  /// All times and sums at the start of a block, to compare with when its shape comes again.
  struct Snapshot {
    std::int64_t number = 0;
    std::vector<double> times;
    std::vector<std::size_t> rows;  // of the times
    std::vector<double> sums;
    std::vector<std::vector<std::int64_t>> counts;  // by signal
  };

  /// An op of a set of ranks that has not been worked off yet, or not to its end.
  struct Task {
    std::shared_ptr<OpenBlock> block;
    ColumnSet columns;
    const CompiledOp* op = nullptr;
    int stage = 0;  // the next WaitStage
  };

  /// The messages of one size over one route: how long one takes, and how many there are, by column of the source.
  struct Flight {
    std::vector<double> whole;   // from departure to delivery
    std::vector<double> moving;  // without the latency
    ColumnSums sent;
  };

  /// What there is of one kind of op. Its time is the sum of three parts.
  struct OpKind {
    ColumnSums fixed;                                                      // known before the op runs
    std::vector<double> varying;                                           // the rest; empty if there is none
    std::map<std::pair<const Flight*, std::int32_t>, ColumnSums> flights;  // and distance to the source: how many
  };

  struct PhaseBounds {
    double first_begin, last_end;
  };

  void run_blocks();
  std::shared_ptr<OpenBlock> open(std::int64_t number);
  void account(OpenBlock& block, const ColumnSet& columns, std::int32_t op);
  void work_off(std::int64_t number);
  void check_comm_order() const;
  void work(Task& task);
  void retry_stalled();
  void split_stalled();
  void stall(Task task);
  bool is_blocked(const Task& task) const;

  // Life of an op.
  bool attempt(Task& task);
  bool available(const Task& task, WaitStage stage);
  void wait_for(const Task& task, WaitStage stage, Rows& time);
  void begin(const Task& task, Rows& time);
  void take_duration(const Task& task, Rows& time);
  void send(const Task& task, Rows& time);
  void deliver(const Task& task, std::int32_t message, Rows& time);
  void finish(const Task& task, const Rows& time);
  static bool sends_its_own(const Task& task);
  void raise(const Task& task, RelativeSignal signal, const Rows& time);
  std::int64_t count_of(const Task& task, const CompiledWait& wait) const;
  Flight& flight(const CompiledMessage& message);
  OpKind& kind_of(const CompiledOp& op);

  void try_to_jump(std::int64_t& number);
  template <class Time, class Sum>
  void each(Time time, Sum sum);
  Snapshot take_snapshot(std::int64_t number);
  bool jump(const Snapshot& before, std::int64_t repetitions);

  SimulationResult result();
  std::vector<double> busy(const OpKind& kind) const;
  void add_ranks(SimulationResult& result) const;
  void add_phases(SimulationResult& result) const;
  void add_messages(SimulationResult& result) const;

  BlockStore& blocks_;
  const Program& program_;
  const Cluster& cluster_;
  const Survey& survey_;
  const Columns& columns_;
  const Perturbation* perturbation_;
  const std::size_t n_;  // columns
  const bool has_launches_;
  const bool in_lock_step_;
  std::vector<int> row_of_category_;  // of Rows; -1: the category that takes what is left of the time
  std::size_t rows_ = 1;

  std::vector<double> host_time_;
  std::vector<Rows> stream_end_;             // by stream
  std::vector<Rows> time_;                   // of an op that stalled halfway, by stream
  std::vector<std::vector<double>> begun_;   // likewise
  Rows work_, departed_, delivered_;         // of the op in work, by place in its columns
  std::vector<double> work_begun_, buffer_;  // likewise
  std::vector<SignalHistory> signals_;

  std::deque<Task> stalled_;
  std::vector<std::vector<std::uint8_t>> blocked_;  // by stream and column: something stalled comes first
  Depths depths_;

  CommAccounts comm_;
  std::map<std::pair<RouteTable::Column, double>, Flight> flights_;
  std::map<std::tuple<int, int, int>, OpKind> kinds_;  // by stream, category, phase
  std::vector<PhaseBounds> phases_;
  std::uint64_t evaluations_ = 0;
  std::map<std::int64_t, Snapshot> snapshots_;  // by shape
};

/// A block some of whose ops are in work.
struct DependencyEngine::OpenBlock {
  BlockStore* store = nullptr;
  std::int64_t number = 0;
  CompiledBlock* compiled = nullptr;
  std::span<const std::int64_t> counts_before;
  std::vector<double> host_time;       // by column, at the start of the block; empty if no op has a launch cost
  std::vector<ColumnSet> columns;      // by set
  std::vector<const Flight*> flights;  // by message; null: does not travel
  std::vector<OpKind*> varying;        // by op; null: its time is accounted for already

  OpenBlock() = default;
  OpenBlock(const OpenBlock&) = delete;
  OpenBlock& operator=(const OpenBlock&) = delete;
  ~OpenBlock() {
    if (compiled != nullptr) store->release(compiled);
  }
};

}  // namespace orrery
