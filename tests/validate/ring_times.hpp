// Rings with chosen peaks, and the times of their tiles and hops.
#pragma once

#include "tests/validate/ideal_runs.hpp"
#include "validate/closed_form.hpp"
#include "validate/ring_attention_paper.hpp"

namespace orrery {

inline constexpr int ring_sizes[] = {1, 2, 3, 4, 5, 7, 8, 13, 16, 31, 32, 64};

/// A ring of `ranks` with 64 tokens each. Its KV hop takes 1 us + 327.68 ns.
inline IdealCase ring_case(int ranks, double matrix_peak) {
  IdealCase c = ideal_case();
  c.groups = ranks;
  c.tokens = 64 * ranks;
  c.matrix_peak = matrix_peak;
  return c;
}

/// A ring on links without latency, heads of 128, attention at its peak.
inline IdealCase ring_on(const ring_attention_paper::Accelerator& accelerator, int ranks, Index block) {
  IdealCase c = ideal_case();
  c.groups = ranks;
  c.tokens = block * ranks;
  c.heads = c.kv_heads = 32;
  c.head_dim = 128;
  c.matrix_peak = accelerator.flop_rate.si();
  c.bandwidth = accelerator.bandwidth.si();
  c.link_latency = 0;
  return c;
}

/// Attention of a block's queries on a block's keys, of all pairs.
inline Ticks tile_ticks(const IdealCase& c, Phase phase = Phase::forward) {
  return attention_ticks(c, c.block() * c.block(), c.heads, phase);
}

inline Ticks hop_ticks(const IdealCase& c, Bytes bytes, Seconds startup = {}) {
  return message_time(startup, route_latency(c), bytes, BytesPerSecond::from_si(c.bandwidth));
}

/// Keys and values of a rank, or their gradients.
inline Bytes block_bytes(const IdealCase& c, double element_bytes) {
  return kv_bytes(c.block(), c.kv_heads, c.head_dim, element_bytes);
}

inline Ticks kv_hop(const IdealCase& c) {
  return hop_ticks(c, block_bytes(c, c.element_bytes));
}

struct BackwardTimes {
  Ticks tile, kv_hop, gradient_hop, joint_hop, sum;
};

inline BackwardTimes backward_times(const IdealCase& c) {
  const Bytes kv = block_bytes(c, c.element_bytes);
  const Bytes gradient = block_bytes(c, c.implementation.gradients_in_fp32 ? 4 : c.element_bytes);
  return {tile_ticks(c, Phase::backward), hop_ticks(c, kv), hop_ticks(c, gradient), hop_ticks(c, kv + gradient),
          to_ticks(3 * gradient / BytesPerSecond::from_si(c.hbm))};
}

/// Time of the backward pass of all layers: the program without it taken away.
inline Ticks backward_ticks(IdealCase c) {
  c.backward = false;
  const Ticks forward = run(c).end;
  c.backward = true;
  return run(c).end - forward;
}

}  // namespace orrery
