// What one rank of pi-Attention holds.
#pragma once
#include "kernels/pi_halo.hpp"

namespace orrery {

using Bf16Bits = uint16_t;

// Keys and values each lie behind room for the halo: row 0 of the rank is row `halo` of the buffer. So do their
// gradients, whose halo rows belong to the previous rank; what the next rank returns arrives beside them.
struct PiHalo::Rank {
  explicit Rank(RankStreams& streams) : on(streams), compute(streams.compute()), copy(streams.add_side()) {}
  RankStreams& on;
  const cudaStream_t compute, copy;
  bool gated = true;  // otherwise the window's output is the output
  DeviceBuffer q, keys, values, gate, lse, o, out;
  DeviceBuffer d_out, d_o, d_gate, dq, d_keys, d_values, returned_keys, returned_values;
  std::unique_ptr<AttentionForward> attention;
  std::unique_ptr<AttentionBackward> gradient;
  Event sent{false}, computed{false}, returned{false};
  Recorded sent_count, returned_count;

  void* window_o() const { return gated ? o.get() : out.get(); }
  void* window_d_o() const { return gated ? d_o.get() : d_out.get(); }
};

}  // namespace orrery
