#include <cuda_bf16.h>

#include "kernels/check.hpp"
#include "kernels/merge.hpp"

namespace orrery {
namespace {

constexpr int kThreads = 256;

// Four numbers a thread: the 16-byte loads of a warp are then consecutive. (Eight a thread as two loads 16 bytes apart
// of 32 measured 12 % slower.)
__device__ inline float4 load4(const float* p) {
  return *reinterpret_cast<const float4*>(p);
}
__device__ inline float4 load4(const __nv_bfloat16* p) {
  const uint2 w = *reinterpret_cast<const uint2*>(p);
  return make_float4(__uint_as_float(w.x << 16), __uint_as_float(w.x & 0xffff0000u), __uint_as_float(w.y << 16),
                     __uint_as_float(w.y & 0xffff0000u));
}
__device__ inline void store4(float* p, float4 x) {
  *reinterpret_cast<float4*>(p) = x;
}

// merge_kernel: o, lse (fp32, in place) := merge of them with (o2, lse2), weights exp(lse - max).
// Shapes: o, o2 [n_q][heads][d]; lse [heads][lse_stride], lse2 [heads][n_q]; d a power of two from 4 to 128, 16-byte
// aligned. Grid: (heads, tokens / rows of a block); a block takes kThreads / (d / 4) consecutive tokens of one head, so
// that the LSE it touches are whole sectors, and one thread 4 numbers, so at most one warp a row. The new LSE is
// written by the first thread of a row; all threads of the row are in its warp and have read the old one before.
template <class Block, bool kFirst>
__global__ void __launch_bounds__(kThreads)
    merge_kernel(float* __restrict__ o, float* lse, const Block* __restrict__ o2, const float* __restrict__ lse2,
                 unsigned n_q, unsigned lse_stride, unsigned per_row_log2) {
  const unsigned heads = gridDim.x, head = blockIdx.x, column = threadIdx.x & ((1u << per_row_log2) - 1);
  const unsigned token = blockIdx.y * (kThreads >> per_row_log2) + (threadIdx.x >> per_row_log2);
  const bool in_range = token < n_q;
  const size_t at = (((size_t(token) * heads + head) << per_row_log2) + column) * 4;
  float* lse_at = lse + size_t(head) * lse_stride + token;
  float4 x = {}, y = {};
  float a = 0, b = 0;
  if (in_range) {
    y = load4(o2 + at);
    b = lse2[size_t(head) * n_q + token];
    if (!kFirst) {
      x = load4(o + at);
      a = *lse_at;
    }
  }
  __syncwarp();
  if (!in_range) return;
  if (kFirst) {
    store4(o + at, y);
    if (column == 0) *lse_at = b;
    return;
  }
  const float top = fmaxf(a, b);
  const float wa = __expf(a - top), wb = __expf(b - top), sum = wa + wb;
  const float inverse = __fdividef(1.0f, sum), fa = wa * inverse, fb = wb * inverse;
  store4(o + at, make_float4(fa * x.x + fb * y.x, fa * x.y + fb * y.y, fa * x.z + fb * y.z, fa * x.w + fb * y.w));
  if (column == 0) *lse_at = top + __logf(sum);
}

// out (bf16) = in (fp32). Shapes: groups of 4 numbers. Grid: one thread a group.
__global__ void __launch_bounds__(kThreads)
    to_bf16_kernel(__nv_bfloat16* __restrict__ out, const float* __restrict__ in, size_t groups) {
  const size_t g = blockIdx.x * size_t(kThreads) + threadIdx.x;
  if (g >= groups) return;
  const float4 x = load4(in + g * 4);
  const __nv_bfloat162 low = __floats2bfloat162_rn(x.x, x.y), high = __floats2bfloat162_rn(x.z, x.w);
  uint2 words;
  words.x = *reinterpret_cast<const unsigned*>(&low);
  words.y = *reinterpret_cast<const unsigned*>(&high);
  reinterpret_cast<uint2*>(out)[g] = words;
}

// sum (fp32) += part (bf16), or = part. Shapes: groups of 4 numbers. Grid: one thread a group.
template <bool kFirst>
__global__ void __launch_bounds__(kThreads)
    accumulate_kernel(float* __restrict__ sum, const __nv_bfloat16* __restrict__ part, size_t groups) {
  const size_t g = blockIdx.x * size_t(kThreads) + threadIdx.x;
  if (g >= groups) return;
  const float4 y = load4(part + g * 4);
  if (kFirst) return store4(sum + g * 4, y);
  const float4 x = load4(sum + g * 4);
  store4(sum + g * 4, make_float4(x.x + y.x, x.y + y.y, x.z + y.z, x.w + y.w));
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
  if (s.head_dim < 4 || s.head_dim > 128 || (s.head_dim & (s.head_dim - 1))) {
    throw BenchError("merge: head_dim must be a power of two from 4 to 128");
  }
  unsigned log2 = 0;
  while ((4 << log2) < s.head_dim) ++log2;
  const auto n_q = static_cast<unsigned>(s.n_q), tokens = static_cast<unsigned>(kThreads >> log2);
  const auto lse_stride = static_cast<unsigned>(s.lse_stride ? s.lse_stride : s.n_q);
  const dim3 grid(static_cast<unsigned>(s.heads), (n_q + tokens - 1) / tokens);
  if (first) {
    merge_kernel<Block, true><<<grid, kThreads, 0, stream>>>(o, lse, o2, lse2, n_q, lse_stride, log2);
  } else {
    merge_kernel<Block, false><<<grid, kThreads, 0, stream>>>(o, lse, o2, lse2, n_q, lse_stride, log2);
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
  const auto groups = static_cast<size_t>(count / 4);
  to_bf16_kernel<<<grid_for(groups, 1 << 20), kThreads, 0, stream>>>(static_cast<__nv_bfloat16*>(out), in, groups);
  ORRERY_LAUNCHED();
}

void accumulate(float* sum, const void* part, int64_t count, bool first, cudaStream_t stream) {
  const auto groups = static_cast<size_t>(count / 4);
  const int grid = static_cast<int>((groups + kThreads - 1) / kThreads);
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
