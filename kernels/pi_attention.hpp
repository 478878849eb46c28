// pi-Attention (Liu, Yu, arXiv 2511.10696) on one Hopper GPU: a causal window, skips of a fixed period, a gate.
//
// Query i sees the window, keys i - window + 1 .. i, and the skips, keys i - m * period, m = 1 .. skips, that lie
// outside the window (no key counts twice: with period < window the first skips add nothing).
//   gated: O = g softmax(window) V + (1 - g) softmax(skips) V, g = sigmoid(gate_logit); a row without skips is its
//          window alone. The softmax over a single skip is 1: that branch is V[i - period].
//   joint: one softmax over all of them; no gate.
//
// Tensors are token-major bf16, [tokens][heads][head_dim], 16-byte aligned; query head h reads key head
// h / (heads / kv_heads). Gate logits and LSE are fp32, [heads][tokens]; LSE is the natural logarithm.
// Everything throws BenchError, naming the limit, before it launches anything it cannot run.
#pragma once
#include <cuda_runtime.h>

#include <algorithm>
#include <cmath>
#include <cstdint>

namespace orrery {

enum class Fusion { gated, joint };

struct PiAttentionShape {
  int64_t n = 0;
  int64_t heads = 1, kv_heads = 1, head_dim = 128;
  int64_t window = 1;
  int64_t period = 0, skips = 0;  // no skips: 0
  Fusion fusion = Fusion::gated;

  double scale() const { return 1.0 / std::sqrt(static_cast<double>(head_dim)); }
  // Skips m = first_skip() .. last_skip() lie outside the window and inside the sequence of some query.
  int64_t first_skip() const { return period > 0 ? (window + period - 1) / period : 1; }
  int64_t last_skip() const { return period > 0 ? std::min(skips, (n - 1) / period) : 0; }
  bool has_skips() const { return first_skip() <= last_skip(); }
  // (query, key) pairs of one head whose score is computed; a single gated skip needs none.
  double window_pairs() const;
  double skip_pairs() const;
  double scored_pairs() const { return window_pairs() + (skips == 1 && fusion == Fusion::gated ? 0.0 : skip_pairs()); }
  double forward_flops() const { return 4.0 * scored_pairs() * static_cast<double>(head_dim * heads); }
  double backward_flops() const { return 2.5 * forward_flops(); }
  double forward_bytes() const;  // each tensor once through memory
};

struct PiAttentionForward {
  const void *q = nullptr, *k = nullptr, *v = nullptr;
  const float* gate_logit = nullptr;  // gated with skips
  void* o = nullptr;
  float* lse = nullptr;        // of the window; joint: of all keys
  float* lse_skips = nullptr;  // gated with more than one skip: of the skips
  void* o_window = nullptr;    // gated with more than one skip, optional: softmax(window) V, for the backward pass
};
void pi_attention_forward(const PiAttentionShape& shape, const PiAttentionForward& tensors, cudaStream_t stream);

// The gradients of all inputs from that of O and what the forward pass left. The same bits on every run: no sum is
// made of parts in an order that is left to chance.
struct PiAttentionBackward {
  const void *q = nullptr, *k = nullptr, *v = nullptr, *o = nullptr, *d_o = nullptr;
  const float *gate_logit = nullptr, *lse = nullptr;
  const float* lse_skips = nullptr;  // gated with more than one skip, as o_window
  const void* o_window = nullptr;
  void *dq = nullptr, *dk = nullptr, *dv = nullptr;
  float* d_gate_logit = nullptr;  // gated with skips
  void* workspace = nullptr;      // of pi_attention_workspace() bytes
};
size_t pi_attention_workspace(const PiAttentionShape& shape);
void pi_attention_backward(const PiAttentionShape& shape, const PiAttentionBackward& tensors, cudaStream_t stream);

// The same function by a kernel that is obviously right: one warp a row, fp32. O in fp32.
void pi_attention_simple(const PiAttentionShape& shape, const PiAttentionForward& tensors, float* o,
                         cudaStream_t stream);

// A block of a ring: all keys, or keys j <= i. O in fp32 and LSE are merged in place with what earlier blocks left
// there; `first` overwrites.
struct RingBlockShape {
  int64_t n_q = 0, n_k = 0;
  int64_t heads = 1, kv_heads = 1, head_dim = 128;
  bool causal = false;
};
void ring_block_forward(const RingBlockShape& shape, const void* q, const void* k, const void* v, float* o, float* lse,
                        bool first, cudaStream_t stream);

}  // namespace orrery
