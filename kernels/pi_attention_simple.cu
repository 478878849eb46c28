#include <cuda_bf16.h>

#include "kernels/check.hpp"
#include "kernels/pi_attention.hpp"

namespace orrery {
namespace {

constexpr int kWarps = 4;
constexpr int kPerLane = 4;  // numbers of a row, at most 128 / 32

// The softmax over the keys seen so far, in the form that needs no second pass.
struct Online {
  float top = -INFINITY, sum = 0, o[kPerLane] = {};

  __device__ void add(float score, const float (&v)[kPerLane]) {
    const float new_top = fmaxf(top, score), keep = expf(top - new_top), weight = expf(score - new_top);
    top = new_top;
    sum = sum * keep + weight;
    for (int c = 0; c < kPerLane; ++c) o[c] = o[c] * keep + weight * v[c];
  }
  __device__ float lse() const { return sum > 0 ? top + logf(sum) : -INFINITY; }
};

// Shapes: as pi_attention.hpp, o fp32 [n][heads][d]. Grid: one warp a (token, head), heads fastest.
__global__ void __launch_bounds__(kWarps * 32) simple_kernel(PiAttentionShape s, PiAttentionForward t, float* o) {
  const int64_t row = int64_t(blockIdx.x) * kWarps + threadIdx.x / 32;
  if (row >= s.n * s.heads) return;
  const int64_t i = row / s.heads, head = row % s.heads, kv_head = head / (s.heads / s.kv_heads), d = s.head_dim;
  const int lane = threadIdx.x % 32, count = static_cast<int>(d / 32);
  auto load = [&](const void* data, int64_t token, int64_t heads, int64_t h, float(&out)[kPerLane]) {
    const auto* from = static_cast<const __nv_bfloat16*>(data) + (token * heads + h) * d;
    for (int c = 0; c < kPerLane; ++c) out[c] = c < count ? __bfloat162float(from[c * 32 + lane]) : 0.0f;
  };
  float q[kPerLane], x[kPerLane];
  load(t.q, i, s.heads, head, q);
  auto add = [&](Online& to, int64_t j) {
    load(t.k, j, s.kv_heads, kv_head, x);
    float score = 0;
    for (int c = 0; c < kPerLane; ++c) score += q[c] * x[c];
    for (int k = 16; k > 0; k /= 2) score += __shfl_xor_sync(0xffffffffu, score, k);
    load(t.v, j, s.kv_heads, kv_head, x);
    to.add(score * rsqrtf(static_cast<float>(d)), x);
  };
  Online window, skips;
  for (int64_t j = i - s.window + 1 > 0 ? i - s.window + 1 : 0; j <= i; ++j) add(window, j);
  const bool joint = s.fusion == Fusion::joint;
  if (s.period > 0) {
    for (int64_t m = 1; m <= s.skips && i - m * s.period >= 0; ++m) {
      if (m * s.period >= s.window) add(joint ? window : skips, i - m * s.period);
    }
  }
  float g = 1;
  if (skips.sum > 0) g = 1.0f / (1.0f + expf(-t.gate_logit[head * s.n + i]));
  for (int c = 0; c < count; ++c) {
    float y = g * window.o[c] / window.sum;
    if (skips.sum > 0) y += (1 - g) * skips.o[c] / skips.sum;
    o[(i * s.heads + head) * d + c * 32 + lane] = y;
  }
  if (lane == 0) {
    t.lse[head * s.n + i] = window.lse();
    if (t.lse_skips) t.lse_skips[head * s.n + i] = skips.lse();
  }
}

}  // namespace

void pi_attention_simple(const PiAttentionShape& s, const PiAttentionForward& t, float* o, cudaStream_t stream) {
  const int64_t blocks = (s.n * s.heads + kWarps - 1) / kWarps;
  if (blocks > 0x7fffffff) throw BenchError("pi_attention_simple: at most 2^33 rows");
  simple_kernel<<<static_cast<unsigned>(blocks), kWarps * 32, 0, stream>>>(s, t, o);
  ORRERY_LAUNCHED();
}

}  // namespace orrery
