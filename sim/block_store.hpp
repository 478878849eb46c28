// Blocks of a program as the engines run them: checked, and once for all ranks that do the same.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "sim/cluster.hpp"
#include "sim/program.hpp"
#include "sim/route_table.hpp"

namespace orrery {

/// A rank is given by its distance from the rank that runs the op, 0 .. ranks - 1, added modulo ranks.
struct RelativeSignal {
  std::int32_t distance = 0;
  std::int32_t signal = -1;  // -1: none
};

/// The same as one number, in a table of all signals of rank 0, of rank 1, ...: from the first signal of the rank that
/// runs the op to this one, modulo the size of the table.
using SignalPlace = std::uint32_t;
inline constexpr SignalPlace no_signal = ~SignalPlace{0};

/// Sorted by stage; the count is above Program::counts_before of the block.
struct CompiledWait {
  std::int64_t count = 0;
  RelativeSignal signal;
  SignalPlace place = no_signal;
};

struct CompiledMessage {
  double size = 0;
  std::int32_t source = 0;  // distances
  std::int32_t destination = 0;
  RelativeSignal delivered;
  SignalPlace delivered_place = no_signal;
  mutable double timed_bandwidth = 0;  // what the next is for: nearly all that send it go at the same speed
  mutable Ticks timed = 0;             // size / bandwidth
  RouteTable::Column route = -1;       // -1: nothing to carry, or not to another rank; delivered at once
};

/// What every op needs comes first, on one cache line, then its waits.
struct alignas(64) CompiledOp {
  Ticks duration = 0;
  const CompiledOp* next = nullptr;  // on the same stream in this block
  const CompiledMessage* messages = nullptr;
  std::int32_t message_count = 0;
  std::int32_t index = 0;  // as Program::describe wants it
  // What it raises when it ends, from `first_finished` on. A simple op that sends raises that the message was delivered
  // right before.
  std::array<SignalPlace, Op::max_signals + 1> raises{no_signal, no_signal, no_signal};
  std::uint8_t first_finished = 0, raise_count = 0;
  std::uint16_t account = 0;  // of BlockStore::accounts()
  Stream stream = Stream::compute;
  std::array<std::uint8_t, 3> waits_until{};  // by WaitStage: index after the last wait of that stage
  /// A transfer whose messages all travel, to or from the rank itself, and wait for nothing but the start-up: when they
  /// leave is known when it begins.
  bool sends_at_once = false;
  /// A marker, compute without messages, or a transfer that sends one at once, that waits for nothing once it has
  /// begun, raises nothing then, and holds no SMs: nothing happens between its begin and its end.
  bool is_simple = false;

  std::array<CompiledWait, Op::max_waits> waits;
  RelativeSignal started;
  SignalPlace started_place = no_signal;
  std::array<RelativeSignal, Op::max_signals> finished;
  Ticks issue = 0;        // host time from the start of the block to the op
  double hbm_demand = 0;  // bytes per second at full speed
  double sms = 0;
  double slows_transfers = 1;
  std::int32_t first_message = 0;  // index into CompiledBlock::messages
  std::uint8_t category = 0;
  std::uint8_t phase = 0;
};

struct CompiledSet {
  RankSet ranks;
  Ticks host_time = 0;  // sum of the launches
  std::int32_t first_op = 0;
  std::int32_t op_count = 0;
  std::array<const CompiledOp*, streams_per_rank> first_on_stream{};  // null: none
};

/// What the time of an op counts under.
struct Account {
  Stream stream = Stream::compute;
  std::uint8_t category = 0;
  std::uint8_t phase = 0;
};

struct CompiledBlock {
  std::vector<CompiledSet> sets;
  std::vector<CompiledOp> ops;
  std::vector<CompiledMessage> messages;
  std::vector<std::int32_t> set_of_rank;  // only if there are many sets
  std::int32_t holders = 0;
  bool kept = true;  // by the store

  const CompiledSet& set_of(Rank rank) const {
    if (!set_of_rank.empty()) return sets[static_cast<std::size_t>(set_of_rank[static_cast<std::size_t>(rank)])];
    std::size_t i = 0;
    while (!sets[i].ranks.contains(rank)) ++i;
    return sets[i];
  }
};

/// Compiles blocks when asked for and keeps some of them.
class BlockStore {
 public:
  /// Throws std::invalid_argument if the program has more ranks than the cluster, or too many signals.
  BlockStore(const Program& program, const Cluster& cluster);
  ~BlockStore();
  BlockStore(const BlockStore&) = delete;
  BlockStore& operator=(const BlockStore&) = delete;

  /// The block stays until it is released as often as it was acquired. Throws std::invalid_argument if it makes no
  /// sense, naming the op.
  CompiledBlock* acquire(std::int64_t block);
  void release(CompiledBlock* block) {
    if (--block->holders == 0 && !block->kept) delete block;
  }

  Rank ranks() const { return ranks_; }
  std::int64_t blocks() const { return blocks_; }
  std::int32_t signals_per_rank() const { return signals_per_rank_; }
  /// The table of signals has only those in use, once that is known: so many for a rank.
  void keep_signals(const std::vector<bool>& used);
  /// From now on a marker that waits for nothing is part of the simple op before it on its stream, of the same phase,
  /// which raises the marker's signals after its own.
  void join_markers();
  SignalPlace signal_slots() const { return signal_slots_; }
  const Program& program() const { return program_; }
  RouteTable& routes() { return routes_; }
  /// Of the ops compiled so far.
  std::span<const Account> accounts() const { return accounts_; }

  Rank wrap(Rank rank, std::int32_t distance) const {
    const Rank sum = rank + distance;
    return sum >= ranks_ ? sum - ranks_ : sum;
  }

  /// `rank 3 compute "layer 1 step 2 attention"`, for error messages.
  std::string name(Rank rank, std::int64_t block, const CompiledOp& op) const;

 private:
  std::unique_ptr<CompiledBlock> compile(std::int64_t block);
  void compile_set(std::int64_t block, const RankSet& ranks, CompiledBlock& compiled);
  void check_partition(std::int64_t block, const std::vector<RankSet>& sets) const;
  void check(Rank rank, const Op& op) const;
  void check(Rank rank, const Op& op, const Message& message) const;
  void link(CompiledBlock& compiled) const;
  void link_signals(CompiledOp& op) const;
  bool joins(const CompiledOp& marker, const CompiledOp& before) const;
  std::uint16_t account(const Op& op);
  CompiledMessage relative(Rank rank, const Op& op, const Message& message);
  RelativeSignal relative(Rank rank, const Op& op, SignalRef signal) const;
  SignalPlace place(RelativeSignal signal) const {
    if (signal.signal < 0) return no_signal;
    return static_cast<SignalPlace>(signal.distance) * signal_slots_ +
           slot_of_signal_[static_cast<std::size_t>(signal.signal)];
  }
  std::int32_t distance(Rank from, Rank to) const { return to >= from ? to - from : to - from + ranks_; }

  const Program& program_;
  const Cluster& cluster_;
  const Rank ranks_;
  const std::int64_t blocks_;
  const std::int32_t signals_per_rank_;
  SignalPlace signal_slots_;
  std::vector<SignalPlace> slot_of_signal_;
  bool joins_markers_ = false;
  const std::size_t categories_;
  const std::size_t phases_;
  std::vector<std::int32_t> place_of_account_;  // by stream, category and phase; -1: no op so far
  RouteTable routes_;
  std::vector<Account> accounts_;
  OpBuffer buffer_;
  std::vector<RankSet> partition_;
  struct Kept {
    std::int64_t shape = -1;
    CompiledBlock* block = nullptr;
  };
  std::vector<Kept> kept_;  // by shape modulo its size
};

}  // namespace orrery
