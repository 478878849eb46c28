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
#include <string>
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
    std::size_t history = 4;  // raises of a signal that are remembered
    std::size_t union_window = 8;
  };

  DependencyEngine(BlockStore& blocks, const Cluster& cluster, const Survey& survey, const Columns& columns,
                   const Perturbation* perturbation, Depths depths);

  /// Throws NotApplicable, or TooShallow with depths that may do.
  SimulationResult run();

  struct TooShallow {
    Depths enough;
  };

 private:
  struct OpenBlock;

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

  /// How long a message takes, by column of its source.
  struct Flight {
    std::vector<double> whole;   // from departure to delivery
    std::vector<double> moving;  // without the latency
  };

  /// Sums of one kind of op: per column the time, per phase its bounds.
  struct OpSums {
    std::vector<double> busy, first_begin, last_end;
  };

  std::shared_ptr<OpenBlock> open(std::int64_t number);
  void work_off(std::int64_t number);
  void check_comm_order() const;
  void retry_stalled();
  void split_stalled();
  void stall(Task task);
  bool is_blocked(const Task& task) const;

  bool attempt(Task& task);
  bool available(const Task& task, WaitStage stage);
  void wait_for(const Task& task, WaitStage stage, Rows& time);
  void begin(const Task& task, Rows& time);
  void send(const Task& task, Rows& time);
  void deliver(const Task& task, const CompiledMessage& message, Rows& time);
  void finish(const Task& task, const Rows& time);
  void raise(const Task& task, RelativeSignal signal, const Rows& time);
  std::int64_t count_of(const Task& task, const CompiledWait& wait) const;
  const Flight& flight(const CompiledMessage& message);
  OpSums& sums_of(const CompiledOp& op);

  void try_to_jump(std::int64_t& number);
  template <class Time, class Sum>
  void each(Time time, Sum sum);
  Snapshot take_snapshot(std::int64_t number);
  bool jump(const Snapshot& before, std::int64_t repetitions);

  SimulationResult result();
  void add_ranks(SimulationResult& result) const;
  void add_phases(SimulationResult& result) const;
  void add_links(SimulationResult& result) const;

  BlockStore& blocks_;
  const Program& program_;
  const Cluster& cluster_;
  const Columns& columns_;
  const Perturbation* perturbation_;
  const std::size_t n_;  // columns
  const bool has_launches_;
  std::vector<int> row_of_category_;  // of Rows; -1: the category that takes what is left of the time
  std::size_t rows_ = 1;

  std::vector<double> host_time_;
  std::vector<Rows> stream_end_;  // by stream
  std::vector<Rows> time_;        // of the op in work, by stream
  std::vector<std::vector<double>> begun_;
  Rows work_, departed_, delivered_;  // of one op, kept for their memory
  std::vector<double> from_;          // likewise
  std::vector<SignalHistory> signals_;

  std::deque<Task> stalled_;
  std::vector<std::vector<std::uint8_t>> blocked_;  // by stream and column: something stalled comes first
  Depths depths_;

  CommAccounts comm_;
  std::vector<double> compute_;
  std::map<std::pair<RouteTable::Column, double>, Flight> flights_;
  std::map<std::tuple<int, int, int>, OpSums> sums_;             // by stream, category, phase
  std::vector<std::vector<double>> route_bytes_, route_moving_;  // by route and column of the source
  std::uint64_t evaluations_ = 0;
  std::map<std::int64_t, Snapshot> snapshots_;  // by shape
};

}  // namespace orrery
