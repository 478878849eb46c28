// The ops that have been generated but have not finished: one queue per stream, refilled from the Program block by
// block.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "sim/cluster.hpp"
#include "sim/program.hpp"

namespace orrery {

using StreamId = std::int32_t;  // rank * streams_per_rank + stream
using SlotId = std::int32_t;    // of a pool; -1: none
using SignalId = std::int32_t;  // rank * signals per rank + signal; -1: none

/// A wait with its signal looked up. An op's waits are kept in the order of their stages.
struct PendingWait {
  std::int64_t count = 0;
  SignalId signal = -1;
};

/// An op, checked and looked up, as the simulator runs it.
struct PendingOp {
  Ticks issue = 0;  // when the host has issued it
  Ticks duration = 0;
  double hbm_demand = 0;  // bytes per second at full speed
  double sms = 0;
  std::int64_t block = 0;
  std::int32_t index = 0;
  SlotId next = -1;  // on the same stream
  SlotId first_message = -1;
  std::int32_t message_count = 0;
  SignalId started = -1;
  std::array<SignalId, Op::max_signals> finished{};
  std::uint8_t category = 0;
  std::uint8_t phase = 0;
  std::array<std::uint8_t, 3> waits_until{};  // by WaitStage: index after the last wait of that stage
  std::array<PendingWait, Op::max_waits> waits;
};

struct PendingMessage {
  double size = 0;
  std::int32_t route = -1;  // index for OpQueues::route; -1: delivered at once
  Rank source = 0;
  Rank destination = 0;
  SignalId delivered = -1;
  SlotId next = -1;  // of the same op
  StreamId stream = 0;
};

struct CachedRoute {
  const Route* route = nullptr;
  Ticks latency = 0;
  double bandwidth = 0;  // the smallest on the way
};

class OpQueues {
 public:
  OpQueues(const Program& program, const Cluster& cluster);

  /// The first op of the stream, generating blocks until there is one. -1 if the program has no more for this stream,
  /// or none within the lookahead.
  SlotId front(StreamId stream);
  /// Drops the first op and its messages. True if this finished the rank's oldest block, so that front() may now find
  /// more for a stream that had run dry.
  bool pop(StreamId stream);
  /// True if front() has not seen the last block of the rank.
  bool held_back(Rank rank) const { return rank_states_[rank].next_block < blocks_; }

  const PendingOp& op(SlotId slot) const { return ops_[slot]; }
  const PendingMessage& message(SlotId slot) const { return messages_[slot]; }
  const CachedRoute& route(std::int32_t index) const { return routes_[index]; }
  std::int32_t signals_per_rank() const { return signals_per_rank_; }

  /// `rank 3 compute "layer 1 step 2 attention"`, for error messages.
  std::string name(StreamId stream, const PendingOp& op) const;

 private:
  struct Queue {
    SlotId first = -1;
    SlotId last = -1;
  };
  struct RankState {
    std::int64_t next_block = 0;
    std::int64_t oldest_block = 0;                            // the first one that may have unfinished ops
    std::array<std::int32_t, lookahead_blocks> unfinished{};  // ops, by block modulo lookahead_blocks
    Ticks host_clock = 0;
    std::vector<std::pair<Rank, std::int32_t>> routes;  // destination, index into routes_; by destination
  };

  void generate_block(Rank rank);
  static bool advance_oldest(RankState& state);
  void append(Rank rank, const Op& op);
  void append_message(Rank rank, const Op& op, const Message& message, StreamId stream, PendingOp& pending);
  void look_up_waits(Rank rank, const Op& op, PendingOp& pending) const;
  void check(Rank rank, const Op& op) const;
  SignalId look_up(Rank rank, const Op& op, SignalRef signal) const;
  std::int32_t route_index(Rank source, Rank destination);

  const Program& program_;
  const Cluster& cluster_;
  const Rank ranks_;
  const std::int64_t blocks_;
  const std::int32_t signals_per_rank_;
  const std::size_t categories_;
  const std::size_t phases_;
  OpBuffer buffer_;
  std::vector<Queue> queues_;
  std::vector<RankState> rank_states_;
  std::vector<PendingOp> ops_;
  std::vector<PendingMessage> messages_;
  std::vector<CachedRoute> routes_;
  SlotId free_op_ = -1;
  SlotId free_message_ = -1;
};

}  // namespace orrery
