// A schedule says, for every rank, layer and step, which block is attended and which rows travel where. It writes ops
// and their signals; what they cost is none of its business.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "cost_models/kernel_cost.hpp"
#include "scenarios/block_writer.hpp"
#include "scenarios/geometry.hpp"
#include "scenarios/implementation.hpp"
#include "scenarios/mask.hpp"
#include "scenarios/tile_table.hpp"

namespace orrery {

/// Signals of a rank. Each is raised the same number of times on every rank during a visit of a layer, so the count to
/// wait for follows from (visit, step).
enum class Signal : std::uint8_t {
  qkv_ready,             // this layer's projections are done, and packed for an exchange
  inputs_ready,          // Q, K, V (dO) are in the form the schedule needs
  exchange_posted,       // head exchange: raised at the first rank of the group when a member's kernel runs
  exchange_in_arrived,   // head exchange before attention: rows from one peer are here
  exchange_out_arrived,  // and after attention
  computed,              // the last compute op of a step is done
  kv_arrived,
  kv_consumed,
  kv_sent,
  kv_posted,
  kv_returned,  // ring, last received first: a block arrived from downstream
  grad_arrived,
  grad_consumed,
  grad_sent,
  grad_posted,
  grad_home,
  outer_kv_arrived,
  outer_kv_consumed,
  outer_kv_sent,
  outer_kv_posted,
  outer_grad_arrived,
  outer_grad_consumed,
  outer_grad_sent,
  outer_grad_posted,
  ring_summed,  // double_ring: the gradient of an inner ring is complete
  sms_free,     // the last wave of a forward step's attention leaves SMs to transfers
};
inline constexpr int signal_count = static_cast<int>(Signal::sms_free) + 1;
std::span<const std::string> signal_names();

/// A count may mix only signals that come in order: all from one sender, or held apart by other waits. So a schedule
/// with several senders has a signal for each of them, after the fixed ones.
struct SignalCounts {
  explicit SignalCounts(std::size_t extra_signals = 0) : counts(signal_count + extra_signals) {}
  std::vector<std::int64_t> counts;
  std::int64_t& operator[](Signal s) { return counts[static_cast<std::size_t>(s)]; }
  std::int64_t operator[](Signal s) const { return counts[static_cast<std::size_t>(s)]; }
};

/// One pass over one layer. A program is a sequence of visits: layers 0..L-1 forward, then L-1..0 backward.
struct Visit {
  int number = 0;
  int layer = 0;
  Phase phase = Phase::forward;
  int pattern_class = 0;
  SignalCounts before;  // raises of every signal on a rank in all earlier visits
};

/// What a schedule is made from. Everything outlives it.
struct ScheduleInput {
  const Geometry& geometry;
  const Implementation& implementation;
  const std::vector<Mask>& masks;        // by pattern class
  const std::vector<Mask>& value_masks;  // of patterns with gated skips; otherwise none
  const std::vector<Mask>& halo_masks;   // what a halo of whole windows fetches; otherwise none
  const std::vector<Mask>& halo_value_masks;
  TileShape tile;
  int inner_ring = 1;  // double_ring: members of an inner ring
};

class Schedule {
 public:
  virtual ~Schedule() = default;
  virtual int steps(const Visit& visit) const = 0;
  /// Names of the signals a schedule has beyond the fixed ones.
  virtual std::vector<std::string> extra_signals() const { return {}; }
  /// Raises of each signal on a rank in one visit; Visit::before is not read.
  virtual SignalCounts raises(const Visit& visit) const = 0;
  virtual void write_step(Rank rank, const Visit& visit, int step, BlockWriter& writer) const = 0;
  /// Pairs of all kernels of a visit, per head: what the blocks of write_step add up to, without generating them.
  virtual TileWork work_of(Rank rank, const Visit& visit) const = 0;
  /// Ranks whose steps are the same but for a shift of all rank numbers, see Program::partition.
  virtual void partition(const Visit& visit, int step, std::vector<RankSet>& sets) const = 0;
  /// What the rank's compute stream must wait for before the layer counts as done.
  virtual void wait_for_end(Rank rank, const Visit& visit, Op& op) const;
};

/// A row of the table of schedules. `needs_members` / `needs_inner`: the scenario states the degree.
struct ScheduleKind {
  std::string_view name;
  std::string_view description;
  std::unique_ptr<Schedule> (*make)(const ScheduleInput&);
  enum class HeadExchange { none, all_ranks, stated } head_exchange;
  bool needs_inner_ring = false;
  /// Slots for keys (K and V) and gradients (dK and dV) of others, by the buffers of the schedule's file, and what one
  /// holds: a block of a rank, the whole sequence, or the rows a pattern fetches.
  struct Slots {
    double keys = 2, gradients = 4;
    enum class Hold { block, sequence, fetched } hold = Hold::block;
  };
  std::string_view no_hops{};  // why no hop runs beside an attention (see intensity.hpp); empty if some do
  Slots slots{};
};
std::span<const ScheduleKind> schedules();

std::unique_ptr<Schedule> make_ring(const ScheduleInput&);
std::unique_ptr<Schedule> make_double_ring(const ScheduleInput&);
std::unique_ptr<Schedule> make_all_gather(const ScheduleInput&);
std::unique_ptr<Schedule> make_halo(const ScheduleInput&);

// --- For the files of the schedules ---

inline SignalRef extra_signal(Rank rank, std::size_t which) {
  return {rank, static_cast<std::int32_t>(signal_count + which)};
}
inline SignalRef at(Rank rank, Signal signal) {
  return {rank, static_cast<std::int32_t>(signal)};
}

/// Sets of neighbouring groups of equal work, as told by key(group).
template <class Key>
void partition_groups(const Geometry& geometry, Key key, std::vector<RankSet>& sets) {
  auto last = key(0);
  sets.push_back({0, 1, geometry.members});
  for (int group = 1; group < geometry.groups; ++group) {
    auto next = key(group);
    if (!geometry.even || next != last) sets.push_back({group * geometry.members, 1, 0});
    sets.back().count += geometry.members;
    last = std::move(next);
  }
}

/// The work of all pairs of groups, and which of them read values: those of the keys they score, and gated skips.
class BlockTables {
 public:
  explicit BlockTables(const ScheduleInput& input);
  const TileTable& keys(const Visit& visit) const { return keys_[static_cast<std::size_t>(visit.pattern_class)]; }
  const TileTable& values(const Visit& visit) const {
    return values_.empty() ? keys(visit) : values_[static_cast<std::size_t>(visit.pattern_class)];
  }
  bool reads_values(const Visit& visit, int query_group, int key_group) const {
    return values(visit).at(query_group, key_group).useful > 0;
  }

 private:
  std::vector<TileTable> keys_, values_;  // by pattern class
};

/// attend / attend_backward of the rank's queries against `keys` in `from`.
Action attention_action(const Geometry& geometry, Rank rank, const Visit& visit, const TokenSet& keys, Buffer from);

/// Writes an attend or attend_backward and, if the implementation merges in a kernel of its own and this is not the
/// layer's first block, the merge. `op` carries the waits; the last of the ops raises `computed`, the attention itself
/// `consumed`, if given.
void write_attention(BlockWriter& writer, const Implementation& implementation, Rank rank, Action action,
                     const TileWork& work, Op op, SignalRef consumed, std::span<const AttentionPart> apart = {});

}  // namespace orrery
