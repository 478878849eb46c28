// What one rank of pi-Attention holds.
#pragma once
#include "kernels/pi_halo.hpp"

namespace orrery {

using Bf16Bits = uint16_t;

// Keys and values each lie behind room for the halo: row 0 of the rank is row `halo` of the buffer. So do their
// gradients, whose halo rows belong to the previous rank; what the next rank returns arrives beside them.
struct PiHalo::Rank {
  int device = 0;
  bool gated = true;  // otherwise the window's output is the output
  std::unique_ptr<Stream> compute, copy;
  DeviceBuffer q, keys, values, gate, lse, o, out;
  DeviceBuffer d_out, d_o, d_gate, dq, d_keys, d_values, returned_keys, returned_values;
  std::unique_ptr<AttentionForward> attention;
  std::unique_ptr<AttentionBackward> gradient;
  std::unique_ptr<Event> start, end, sent, computed, returned;
  Recorded sent_count, returned_count;
  std::vector<std::pair<const char*, std::pair<Event, Event>>> spans;

  void* window_o() const { return gated ? o.get() : out.get(); }
  void* window_d_o() const { return gated ? d_o.get() : d_out.get(); }

  template <class F>
  void stamped(bool stamp, cudaStream_t stream, const char* op, F&& launch) {
    if (!stamp) return launch();
    std::pair<Event, Event> span;
    span.first.record(stream);
    launch();
    span.second.record(stream);
    spans.emplace_back(op, std::move(span));
  }
};

}  // namespace orrery
