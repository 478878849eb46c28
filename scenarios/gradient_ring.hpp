// Gradients of visiting KV blocks: they are summed while they travel with the block, and end at the block's owner.
// Shared by the schedules whose blocks go round a ring.
//
// Buffers: contributions alternate between two work slots, arriving gradients between two in slots. A hop may start
// once the receiver has summed what its slot held before; a work slot is reused once its last content has been sent.
#pragma once

#include "scenarios/schedule.hpp"

namespace orrery {

/// Where one backward step stands among all gradient hops of the program.
struct GradientStep {
  std::int64_t hop = 0;       // ordinal of the hop that follows this step; fills work slot hop % 2
  std::int64_t slot = 0;      // ordinal of the in slot that hop fills; what this step receives lies in slot - 1
  bool receives = false;      // a gradient arrives for this step's block
  std::int64_t arrived = 0;   // raises of grad_arrived (NCCL: grad_sent) by which it has
  bool reads_values = false;  // of this step's block, be it by gated skips alone
};

inline Buffer gradient_work_slot(std::int64_t hop) {
  return slot_of(BufferKind::d_kv_work, hop, 2);
}
inline Buffer gradient_in_slot(std::int64_t slot) {
  return slot_of(BufferKind::d_kv_in, slot, 2);
}

/// The attention of a backward step and the sum with the gradient that arrived. `action.into` says where the result
/// goes; `consumed` is raised when the block has been read, `computed` at the end.
void write_gradient(BlockWriter& writer, const Implementation& implementation, Rank rank, const GradientStep& step,
                    Action action, const TileWork& tile, Op op, SignalRef consumed);

/// Where a gradient hop goes: the next in slot, or (goes_home) a buffer at which its ring ends.
struct GradientTarget {
  Rank to = -1;
  bool goes_home = false;
  Buffer home{};
  std::int64_t arrivals = 0;  // raises of grad_arrived (grad_home if it goes home) on a rank once this hop is over
  SignalRef home_free{};      // must have been raised home_free_count times before `home` may be overwritten
  std::int64_t home_free_count = 0;
};

/// Sends the contribution of a step on its way. `computed`: raises of that signal once the step is over.
void write_gradient_hop(BlockWriter& writer, const Implementation& implementation, Rank rank, int layer, int step,
                        const GradientStep& position, std::int64_t computed, const GradientTarget& target,
                        const TokenSet& rows, HeadRange heads);

/// Makes `op` an NCCL kernel: it is running once it raises `posted`, and its message leaves when the receiver's runs
/// too.
void rendezvous(Op& op, Rank rank, Rank to, Signal posted, std::int64_t ordinal);

}  // namespace orrery
