// The shape of one attention block and the work it counts.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>

namespace orrery {

enum class Mask { full, causal, window };

// Query i (0-based in the block) sees key j when, with e = i + n_k - n_q (the ends of both blocks are aligned, which
// for n_q = n_k is the usual causal mask):
//   full: always;  causal: j <= e;  window: e - window < j <= e (so `window` counts the query's own token).
struct AttentionShape {
  int64_t n_q = 0, n_k = 0;
  int64_t heads = 1, kv_heads = 1, head_dim = 128;
  Mask mask = Mask::full;
  int64_t window = 0;

  double scale() const { return 1.0 / std::sqrt(static_cast<double>(head_dim)); }
  int64_t last_key(int64_t i) const { return mask == Mask::full ? n_k - 1 : std::min(n_k - 1, i + n_k - n_q); }
  int64_t first_key(int64_t i) const {
    return mask == Mask::window ? std::max<int64_t>(0, i + n_k - n_q - window + 1) : 0;
  }

  // Unmasked (query, key) pairs of one head.
  double pairs() const {
    double sum = 0;
    for (int64_t i = 0; i < n_q; ++i) {
      sum += static_cast<double>(std::max<int64_t>(0, last_key(i) - first_key(i) + 1));
    }
    return sum;
  }
  // Two products of 2 * head_dim FLOPs per pair; the backward pass counts five of them.
  double forward_flops() const { return 4.0 * pairs() * static_cast<double>(head_dim * heads); }
  double backward_flops() const { return 2.5 * forward_flops(); }
  // Each tensor once through memory, bf16, and LSE in fp32.
  double forward_bytes() const {
    return 2.0 * static_cast<double>(head_dim) * static_cast<double>(2 * n_q * heads + 2 * n_k * kv_heads) +
           4.0 * static_cast<double>(n_q * heads);
  }
  double backward_bytes() const {
    return 2.0 * static_cast<double>(head_dim) * static_cast<double>(4 * n_q * heads + 4 * n_k * kv_heads) +
           4.0 * static_cast<double>(n_q * heads);
  }
};

inline std::string to_string(Mask mask) {
  return mask == Mask::full ? "full" : mask == Mask::causal ? "causal" : "window";
}

}  // namespace orrery
