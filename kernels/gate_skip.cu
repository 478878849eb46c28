#include "kernels/bf16_words.cuh"
#include "kernels/check.hpp"
#include "kernels/gate_skip.hpp"

namespace orrery {
namespace {

constexpr int kThreads = 256;

// The gated skip and its gradients. Shapes: o, out, d_out [n][heads][d], v, dv [..n][kv_heads][d], gate [heads][n]; d a
// power of two from 64 to 256, so that a row is 8 to 32 threads of one warp.
struct GateRow {
  int64_t token, row;
  int head, word;
  __device__ GateRow(int64_t at, int heads, int words) : row(at / words) {
    token = row / heads;
    head = static_cast<int>(row - token * heads);
    word = static_cast<int>(at - row * words);
  }
};

// Grid: one 16-byte word of out a thread.
__global__ void gate_skip_kernel(uint4* out, const uint4* o, const uint4* __restrict__ v,
                                 const float* __restrict__ gate, GateSkip s, int words) {
  const int64_t at = blockIdx.x * int64_t(blockDim.x) + threadIdx.x;
  const GateRow r(at, static_cast<int>(s.heads), words);
  if (r.token >= s.n) return;
  float x[8], y[8];
  unpack(o[at], x);
  if (r.token >= s.first_row) {
    const float g = gate[r.head * s.n + r.token];
    const int64_t kv_head = r.head / (s.heads / s.kv_heads);
    unpack(__ldg(v + ((r.token - s.period) * s.kv_heads + kv_head) * words + r.word), y);
#pragma unroll
    for (int i = 0; i < 8; ++i) x[i] = g * x[i] + (1.0f - g) * y[i];
  }
  out[at] = pack(x);
}

// Grid: one 16-byte word of d_o a thread; the threads of a row sum its d_gate.
__global__ void gate_skip_backward_kernel(uint4* __restrict__ d_o, float* __restrict__ d_gate,
                                          const uint4* __restrict__ d_out, const uint4* __restrict__ o,
                                          const uint4* __restrict__ v, const float* __restrict__ gate, GateSkip s,
                                          int words) {
  const int64_t at = blockIdx.x * int64_t(blockDim.x) + threadIdx.x;
  const GateRow r(at, static_cast<int>(s.heads), words);
  const bool in_range = r.token < s.n;
  float sum = 0;
  if (in_range) {
    float dy[8], x[8], y[8];
    unpack(d_out[at], dy);
    if (r.token >= s.first_row) {
      const float g = gate[r.head * s.n + r.token];
      const int64_t kv_head = r.head / (s.heads / s.kv_heads);
      unpack(o[at], x);
      unpack(__ldg(v + ((r.token - s.period) * s.kv_heads + kv_head) * words + r.word), y);
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        sum += dy[i] * (x[i] - y[i]);
        dy[i] *= g;
      }
    }
    d_o[at] = pack(dy);
  }
  for (int offset = words / 2; offset; offset /= 2) sum += __shfl_xor_sync(~0u, sum, offset);
  if (in_range && r.word == 0) d_gate[r.head * s.n + r.token] = sum;
}

// Grid: one 16-byte word of a row of dv a thread, from row first_row - period.
__global__ void gate_skip_values_kernel(uint4* dv, const uint4* __restrict__ d_out, const float* __restrict__ gate,
                                        GateSkip s, int words, int64_t written_from) {
  const GateRow r(blockIdx.x * int64_t(blockDim.x) + threadIdx.x, static_cast<int>(s.kv_heads), words);
  const int64_t token = s.first_row + r.token, key = token - s.period;
  if (token >= s.n) return;
  uint4* target = dv + (key * s.kv_heads + r.head) * words + r.word;
  float sum[8] = {}, y[8];
  if (key >= written_from) unpack(*target, sum);
  const int group = static_cast<int>(s.heads / s.kv_heads);
  for (int64_t head = r.head * group; head < (r.head + 1) * group; ++head) {
    const float rest = 1.0f - gate[head * s.n + token];
    unpack(__ldg(d_out + (token * s.heads + head) * words + r.word), y);
#pragma unroll
    for (int i = 0; i < 8; ++i) sum[i] += rest * y[i];
  }
  *target = pack(sum);
}

int grid_for(int64_t items) {
  return static_cast<int>((items + kThreads - 1) / kThreads);
}

int words_of(const GateSkip& s) {
  if (s.head_dim != 64 && s.head_dim != 128 && s.head_dim != 256) throw BenchError("gate: heads of 64, 128 or 256");
  return static_cast<int>(s.head_dim / 8);
}

}  // namespace

void gate_skip(const GateSkip& s, void* out, const void* o, const void* v, const float* gate, cudaStream_t stream) {
  const int words = words_of(s);
  gate_skip_kernel<<<grid_for(s.n * s.heads * words), kThreads, 0, stream>>>(
      static_cast<uint4*>(out), static_cast<const uint4*>(o), static_cast<const uint4*>(v), gate, s, words);
  ORRERY_LAUNCHED();
}

void gate_skip_backward(const GateSkip& s, void* d_o, float* d_gate, const void* d_out, const void* o, const void* v,
                        const float* gate, cudaStream_t stream) {
  const int words = words_of(s);
  gate_skip_backward_kernel<<<grid_for(s.n * s.heads * words), kThreads, 0, stream>>>(
      static_cast<uint4*>(d_o), d_gate, static_cast<const uint4*>(d_out), static_cast<const uint4*>(o),
      static_cast<const uint4*>(v), gate, s, words);
  ORRERY_LAUNCHED();
}

void gate_skip_values(const GateSkip& s, void* dv, const void* d_out, const float* gate, int64_t written_from,
                      cudaStream_t stream) {
  const int words = words_of(s);
  if (s.n <= s.first_row) return;
  gate_skip_values_kernel<<<grid_for((s.n - s.first_row) * s.kv_heads * words), kThreads, 0, stream>>>(
      static_cast<uint4*>(dv), static_cast<const uint4*>(d_out), gate, s, words, written_from);
  ORRERY_LAUNCHED();
}

}  // namespace orrery
