// What one rank of a ring holds: streams, buffers, blocks ready to run, and the events others wait for.
#pragma once
#include "kernels/ring.hpp"

namespace orrery {

// Keys and values of a block lie together, [2][n][kv_heads][head_dim], so that one copy moves both. The rank's own
// block is never overwritten; received blocks alternate between two buffers: the block of step s lies in buffer s & 1.
struct Ring::Rank {
  explicit Rank(RankStreams& streams)
      : on(streams), compute(streams.compute()), copy(streams.add_side()), gradient(streams.add_side()) {}
  RankStreams& on;
  const cudaStream_t compute, copy, gradient;
  DeviceBuffer q, own, buffer[2], o_block, lse_block, o_sum, lse, o;
  DeviceBuffer d_o, lse_part, dq_part, dkv_part, dq_sum, dq, dkv_sum[2], dkv_home, dkv;
  std::vector<std::unique_ptr<AttentionForward>> forward;  // by step; null where a step has no work
  std::vector<std::unique_ptr<AttentionBackward>> backward;
  // By step, forward's steps first and then backward's.
  std::vector<Event> sent, consumed, gradient_sent, gradient_added;
  Recorded sent_count, consumed_count, gradient_count;
  int base = 0;  // 0 in the forward pass, the number of steps in the backward pass

  void* block(int step) const { return step == 0 ? own.get() : buffer[step & 1].get(); }
};

}  // namespace orrery
