#include <cuda_bf16.h>

#include "kernels/check.hpp"
#include "kernels/merge.hpp"

namespace orrery {
namespace {

constexpr int kThreads = 256;

struct alignas(16) Bf16x8 {
  __nv_bfloat162 pair[4];
};

__device__ inline void load8(const float* p, float (&x)[8]) {
  const float4 a = __ldcs(reinterpret_cast<const float4*>(p)), b = __ldcs(reinterpret_cast<const float4*>(p) + 1);
  x[0] = a.x, x[1] = a.y, x[2] = a.z, x[3] = a.w, x[4] = b.x, x[5] = b.y, x[6] = b.z, x[7] = b.w;
}
__device__ inline void load8(const __nv_bfloat16* p, float (&x)[8]) {
  const uint4 raw = __ldcs(reinterpret_cast<const uint4*>(p));
  const unsigned words[4] = {raw.x, raw.y, raw.z, raw.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    x[2 * i] = __uint_as_float(words[i] << 16);
    x[2 * i + 1] = __uint_as_float(words[i] & 0xffff0000u);
  }
}
__device__ inline void store8(float* p, const float (&x)[8]) {
  __stcs(reinterpret_cast<float4*>(p), make_float4(x[0], x[1], x[2], x[3]));
  __stcs(reinterpret_cast<float4*>(p) + 1, make_float4(x[4], x[5], x[6], x[7]));
}

// merge_kernel: o, lse (fp32, in place) := merge of them with (o2, lse2), weights exp(lse - max).
// Shapes: o, o2 [n_q][heads][d]; lse [heads][lse_stride], lse2 [heads][n_q]; d a power of two from 8 to 256, 16-byte
// aligned. Grid: each thread takes kUnroll groups of 8 numbers, kThreads groups apart, and has the loads of all of them
// in flight before the first use; blocks cover kUnroll * kThreads groups. The new LSE is written by the first thread of
// a row; all threads of a row sit in one warp and have read the old one before, so it can be written in place.
constexpr int kUnroll = 2;

template <class Block, bool kFirst>
__global__ void __launch_bounds__(kThreads)
    merge_kernel(float* __restrict__ o, float* lse, const Block* __restrict__ o2, const float* __restrict__ lse2,
                 unsigned groups, unsigned heads, unsigned n_q, unsigned lse_stride, unsigned per_row_log2) {
  const unsigned first_group = blockIdx.x * (kUnroll * kThreads) + threadIdx.x;
  float x[kUnroll][8], y[kUnroll][8], a[kUnroll], b[kUnroll];
  float* lse_at[kUnroll];
#pragma unroll
  for (int u = 0; u < kUnroll; ++u) {
    const unsigned g = first_group + u * kThreads;
    if (g >= groups) continue;
    const unsigned row = g >> per_row_log2, token = row / heads, head = row - token * heads;
    load8(o2 + size_t(g) * 8, y[u]);
    if (!kFirst) load8(o + size_t(g) * 8, x[u]);
    lse_at[u] = lse + size_t(head) * lse_stride + token;
    b[u] = lse2[size_t(head) * n_q + token];
    if (!kFirst) a[u] = *lse_at[u];
  }
  __syncwarp();
#pragma unroll
  for (int u = 0; u < kUnroll; ++u) {
    const unsigned g = first_group + u * kThreads;
    if (g >= groups) continue;
    const bool writes_lse = (g & ((1u << per_row_log2) - 1)) == 0;
    if (kFirst) {
      store8(o + size_t(g) * 8, y[u]);
      if (writes_lse) *lse_at[u] = b[u];
      continue;
    }
    const float top = fmaxf(a[u], b[u]);
    const float wa = __expf(a[u] - top), wb = __expf(b[u] - top), sum = wa + wb;
    const float inverse = __fdividef(1.0f, sum), fa = wa * inverse, fb = wb * inverse;
#pragma unroll
    for (int i = 0; i < 8; ++i) x[u][i] = fa * x[u][i] + fb * y[u][i];
    store8(o + size_t(g) * 8, x[u]);
    if (writes_lse) *lse_at[u] = top + __logf(sum);
  }
}

// out (bf16) = in (fp32). Shapes: count a multiple of 8. Any grid.
__global__ void to_bf16_kernel(__nv_bfloat16* __restrict__ out, const float* __restrict__ in, size_t groups) {
  for (size_t g = blockIdx.x * size_t(blockDim.x) + threadIdx.x; g < groups; g += size_t(gridDim.x) * blockDim.x) {
    float x[8];
    load8(in + g * 8, x);
    Bf16x8 y;
#pragma unroll
    for (int i = 0; i < 4; ++i) y.pair[i] = __floats2bfloat162_rn(x[2 * i], x[2 * i + 1]);
    reinterpret_cast<Bf16x8*>(out)[g] = y;
  }
}

// sum (fp32) += part (bf16), or = part. Shapes: groups of 8 numbers. Grid: as merge_kernel's.
template <bool kFirst>
__global__ void __launch_bounds__(kThreads)
    accumulate_kernel(float* __restrict__ sum, const __nv_bfloat16* __restrict__ part, size_t groups) {
  const size_t first_group = blockIdx.x * size_t(kUnroll * kThreads) + threadIdx.x;
  float x[kUnroll][8] = {}, y[kUnroll][8];
#pragma unroll
  for (int u = 0; u < kUnroll; ++u) {
    const size_t g = first_group + u * kThreads;
    if (g >= groups) continue;
    load8(part + g * 8, y[u]);
    if (!kFirst) load8(sum + g * 8, x[u]);
  }
#pragma unroll
  for (int u = 0; u < kUnroll; ++u) {
    const size_t g = first_group + u * kThreads;
    if (g >= groups) continue;
#pragma unroll
    for (int i = 0; i < 8; ++i) x[u][i] += y[u][i];
    store8(sum + g * 8, x[u]);
  }
}

// The eager operations: each reads its operands from memory and writes its result, four numbers a thread, any grid.
__global__ void convert_op(float4* out, const uint2* in, size_t n) {  // fp32 = bf16
  for (size_t i = blockIdx.x * size_t(blockDim.x) + threadIdx.x; i < n; i += size_t(gridDim.x) * blockDim.x) {
    const uint2 w = in[i];
    out[i] = make_float4(__uint_as_float(w.x << 16), __uint_as_float(w.x & 0xffff0000u), __uint_as_float(w.y << 16),
                         __uint_as_float(w.y & 0xffff0000u));
  }
}
__global__ void subtract_op(float4* out, const float4* a, const float4* b, size_t n) {  // a - b
  for (size_t i = blockIdx.x * size_t(blockDim.x) + threadIdx.x; i < n; i += size_t(gridDim.x) * blockDim.x) {
    const float4 x = a[i], y = b[i];
    out[i] = make_float4(x.x - y.x, x.y - y.y, x.z - y.z, x.w - y.w);
  }
}
// out = weight[head][token] * a, the weight broadcast along head_dim.
__global__ void scale_op(float4* out, const float4* a, const float* weight, size_t n, unsigned per_row, unsigned heads,
                         unsigned n_q) {
  for (size_t i = blockIdx.x * size_t(blockDim.x) + threadIdx.x; i < n; i += size_t(gridDim.x) * blockDim.x) {
    const unsigned row = static_cast<unsigned>(i / per_row), token = row / heads, head = row - token * heads;
    const float w = weight[size_t(head) * n_q + token];
    const float4 x = a[i];
    out[i] = make_float4(w * x.x, w * x.y, w * x.z, w * x.w);
  }
}
__global__ void sigmoid_op(float* out, const float* a, const float* b, size_t n) {  // sigmoid(b - a)
  for (size_t i = blockIdx.x * size_t(blockDim.x) + threadIdx.x; i < n; i += size_t(gridDim.x) * blockDim.x) {
    out[i] = 1.0f / (1.0f + expf(a[i] - b[i]));
  }
}
__global__ void log_sigmoid_op(float* out, const float* a, const float* b, size_t n) {  // logsigmoid(a - b)
  for (size_t i = blockIdx.x * size_t(blockDim.x) + threadIdx.x; i < n; i += size_t(gridDim.x) * blockDim.x) {
    const float x = a[i] - b[i];
    out[i] = fminf(x, 0.0f) - log1pf(expf(-fabsf(x)));
  }
}

int grid_for(size_t items, int per_sm) {
  const size_t blocks = (items + kThreads - 1) / kThreads, most = static_cast<size_t>(132 * per_sm);
  return static_cast<int>(blocks < most ? (blocks ? blocks : 1) : most);
}

template <class Block>
void merge(const MergeShape& s, float* o, float* lse, const Block* o2, const float* lse2, bool first,
           cudaStream_t stream) {
  if (s.head_dim % 8 || (s.head_dim & (s.head_dim - 1)))
    throw BenchError("merge: head_dim must be a power of two >= 8");
  unsigned log2 = 0;
  while ((8 << log2) < s.head_dim) ++log2;
  const auto rows = static_cast<unsigned>(s.n_q * s.heads), heads = static_cast<unsigned>(s.heads);
  const auto n_q = static_cast<unsigned>(s.n_q);
  const auto lse_stride = static_cast<unsigned>(s.lse_stride ? s.lse_stride : s.n_q);
  const unsigned groups = rows << log2;
  const int grid = static_cast<int>((groups + kUnroll * kThreads - 1) / (kUnroll * kThreads));
  if (first) {
    merge_kernel<Block, true><<<grid, kThreads, 0, stream>>>(o, lse, o2, lse2, groups, heads, n_q, lse_stride, log2);
  } else {
    merge_kernel<Block, false><<<grid, kThreads, 0, stream>>>(o, lse, o2, lse2, groups, heads, n_q, lse_stride, log2);
  }
  ORRERY_LAUNCHED();
}

}  // namespace

void merge_block(const MergeShape& s, float* o, float* lse, const void* block_o, const float* block_lse, bool first,
                 cudaStream_t stream) {
  merge(s, o, lse, static_cast<const __nv_bfloat16*>(block_o), block_lse, first, stream);
}

void merge_f32(const MergeShape& s, float* o, float* lse, const float* o2, const float* lse2, cudaStream_t stream) {
  merge(s, o, lse, o2, lse2, false, stream);
}

void to_bf16(void* out, const float* in, int64_t count, cudaStream_t stream) {
  const auto groups = static_cast<size_t>(count / 8);
  to_bf16_kernel<<<grid_for(groups, 1 << 20), kThreads, 0, stream>>>(static_cast<__nv_bfloat16*>(out), in, groups);
  ORRERY_LAUNCHED();
}

void accumulate(float* sum, const void* part, int64_t count, bool first, cudaStream_t stream) {
  const auto groups = static_cast<size_t>(count / 8);
  const int grid = static_cast<int>((groups + kUnroll * kThreads - 1) / (kUnroll * kThreads));
  const auto* in = static_cast<const __nv_bfloat16*>(part);
  if (first) {
    accumulate_kernel<true><<<grid, kThreads, 0, stream>>>(sum, in, groups);
  } else {
    accumulate_kernel<false><<<grid, kThreads, 0, stream>>>(sum, in, groups);
  }
  ORRERY_LAUNCHED();
}

void merge_eager(const MergeShape& s, float* o, float* lse, const void* block_o, const float* block_lse, float* scratch,
                 cudaStream_t stream) {
  const auto n4 = static_cast<size_t>(s.elements() / 4), rows = static_cast<size_t>(s.n_q * s.heads);
  const int big = grid_for(n4, 1 << 20), small = grid_for(rows, 1 << 20);
  auto* out = reinterpret_cast<float4*>(o);
  auto* block = reinterpret_cast<float4*>(scratch);
  auto* delta = block + n4;
  float* weight = scratch + 2 * s.elements();
  float* log_weight = weight + rows;
  convert_op<<<big, kThreads, 0, stream>>>(block, static_cast<const uint2*>(block_o), n4);
  sigmoid_op<<<small, kThreads, 0, stream>>>(weight, lse, block_lse, rows);
  subtract_op<<<big, kThreads, 0, stream>>>(delta, out, block, n4);
  scale_op<<<big, kThreads, 0, stream>>>(delta, delta, weight, n4, static_cast<unsigned>(s.head_dim / 4),
                                         static_cast<unsigned>(s.heads), static_cast<unsigned>(s.n_q));
  subtract_op<<<big, kThreads, 0, stream>>>(out, out, delta, n4);
  log_sigmoid_op<<<small, kThreads, 0, stream>>>(log_weight, lse, block_lse, rows);
  subtract_op<<<grid_for(rows / 4, 1 << 20), kThreads, 0, stream>>>(
      reinterpret_cast<float4*>(lse), reinterpret_cast<float4*>(lse), reinterpret_cast<float4*>(log_weight), rows / 4);
  ORRERY_LAUNCHED();
}

}  // namespace orrery
