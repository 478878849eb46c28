// What one rank of a ring holds: streams, buffers, blocks ready to run, and the events others wait for.
#pragma once
#include "kernels/ring.hpp"

namespace orrery {

// Keys and values of a block lie together, [2][n][kv_heads][head_dim], so that one copy moves both. The rank's own
// block is never overwritten; received blocks alternate between two buffers: the block of step s lies in buffer s & 1.
struct Ring::Rank {
  int device = 0;
  std::unique_ptr<Stream> compute, copy, gradient;
  DeviceBuffer q, own, buffer[2], o_block, lse_block, o_sum, lse, o;
  DeviceBuffer d_o, lse_part, dq_part, dkv_part, dq_sum, dq, dkv_sum[2], dkv_home, dkv;
  std::vector<std::unique_ptr<AttentionForward>> forward;  // by step; null where a step has no work
  std::vector<std::unique_ptr<AttentionBackward>> backward;
  // By step, forward's steps first and then backward's.
  std::vector<Event> sent, consumed, gradient_sent, gradient_added;
  Recorded sent_count, consumed_count, gradient_count;
  int base = 0;  // 0 in the forward pass, the number of ranks in the backward pass
  std::unique_ptr<Event> start, end;
  std::vector<Span> spans;

  void* block(int step) const { return step == 0 ? own.get() : buffer[step & 1].get(); }

  template <class F>
  void stamped(bool stamp, cudaStream_t stream, int step, const char* op, F&& launch) {
    if (!stamp) return launch();
    Span span{Event(), Event(), step, op};
    span.start.record(stream);
    launch();
    span.end.record(stream);
    spans.push_back(std::move(span));
  }
};

using Bf16Bits = uint16_t;

template <class T>
T* at(const DeviceBuffer& buffer, int64_t count) {
  return buffer.as<T>() + count;
}

}  // namespace orrery
