#include "kernels/bf16_words.cuh"
#include "kernels/check.hpp"
#include "kernels/elementwise.hpp"

namespace orrery {
namespace {

constexpr int kThreads = 256;

int grid_for(int64_t items) {
  return static_cast<int>((items + kThreads - 1) / kThreads);
}

// out = in. Grid: one 16-byte word a thread.
__global__ void copy_words(uint4* __restrict__ out, const uint4* __restrict__ in, int64_t words) {
  const int64_t i = blockIdx.x * int64_t(blockDim.x) + threadIdx.x;
  if (i < words) __stcs(out + i, __ldcs(in + i));
}

// RMS norm. Shapes: in, out [tokens][hidden], weight [hidden]; hidden a multiple of 8 and at most 8 * kKept * kThreads.
// Grid: one block a token; the row stays in registers between the sum and the product.
template <int kKept>
__global__ void rms_norm_kernel(uint4* __restrict__ out, const uint4* __restrict__ in, const uint4* __restrict__ weight,
                                int words) {
  __shared__ float partial[kThreads / 32];
  const uint4* row = in + blockIdx.x * int64_t(words);
  uint4 kept[kKept];
  float sum = 0;
#pragma unroll
  for (int c = 0; c < kKept; ++c) {
    const int w = threadIdx.x + c * kThreads;
    if (w >= words) break;
    kept[c] = __ldcs(row + w);
    float x[8];
    unpack(kept[c], x);
#pragma unroll
    for (int i = 0; i < 8; ++i) sum += x[i] * x[i];
  }
  for (int offset = 16; offset; offset /= 2) sum += __shfl_xor_sync(~0u, sum, offset);
  if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = sum;
  __syncthreads();
  sum = 0;
#pragma unroll
  for (int i = 0; i < kThreads / 32; ++i) sum += partial[i];
  const float scale = rsqrtf(sum / (8.0f * words) + 1e-5f);
#pragma unroll
  for (int c = 0; c < kKept; ++c) {
    const int w = threadIdx.x + c * kThreads;
    if (w >= words) break;
    float x[8], g[8];
    unpack(kept[c], x);
    unpack(__ldg(weight + w), g);
#pragma unroll
    for (int i = 0; i < 8; ++i) x[i] *= scale * g[i];
    __stcs(out + blockIdx.x * int64_t(words) + w, pack(x));
  }
}

// out = a + b, or silu(a) * b; out may be a or b. Grid: one 16-byte word a thread.
template <bool kSwiglu>
__global__ void binary_kernel(uint4* out, const uint4* a, const uint4* b, int64_t words) {
  const int64_t w = blockIdx.x * int64_t(blockDim.x) + threadIdx.x;
  if (w >= words) return;
  float x[8], y[8];
  unpack(__ldcs(a + w), x);
  unpack(__ldcs(b + w), y);
#pragma unroll
  for (int i = 0; i < 8; ++i) x[i] = kSwiglu ? x[i] / (1.0f + __expf(-x[i])) * y[i] : x[i] + y[i];
  __stcs(out + w, pack(x));
}

// table[t][i] = (cos, sin)(t * base^(-2i/d)). Grid: one entry a thread. In double: it is made once.
__global__ void rotary_table_kernel(float2* table, int64_t tokens, int half, double base) {
  const int64_t at = blockIdx.x * int64_t(blockDim.x) + threadIdx.x;
  if (at >= tokens * half) return;
  const double angle = double(at / half) * pow(base, -double(at % half) / half);
  table[at] = make_float2(float(cos(angle)), float(sin(angle)));
}

// Rotary embedding in place. Shapes: x [tokens][heads][d], table [tokens][d/2]; d a multiple of 16.
// Grid: one thread for 8 pairs: words (d/16) a row, both halves.
__global__ void rotary_kernel(uint4* x, const float2* __restrict__ table, int64_t count, int heads, int words) {
  const int64_t at = blockIdx.x * int64_t(blockDim.x) + threadIdx.x;
  if (at >= count) return;
  const int64_t row = at / words;
  const int w = static_cast<int>(at - row * words);
  uint4* low_at = x + row * 2 * words + w;
  uint4* high_at = low_at + words;
  float low[8], high[8];
  unpack(*low_at, low);
  unpack(*high_at, high);
  const float2* turn = table + (row / heads) * (8 * words) + 8 * w;
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    const float2 t = __ldg(turn + i);
    const float a = low[i], b = high[i];
    low[i] = a * t.x - b * t.y;
    high[i] = b * t.x + a * t.y;
  }
  *low_at = pack(low);
  *high_at = pack(high);
}

// out[t] = table[index[t]]. Grid: one 16-byte word a thread.
__global__ void embed_kernel(uint4* __restrict__ out, const uint4* __restrict__ table,
                             const uint32_t* __restrict__ index, int64_t count, int words) {
  const int64_t at = blockIdx.x * int64_t(blockDim.x) + threadIdx.x;
  if (at >= count) return;
  const int64_t token = at / words;
  __stcs(out + at, __ldg(table + int64_t(index[token]) * words + (at - token * words)));
}

// out[j][i] = in[i][j], i below a and j below b. Shapes: rows of `words` 16-byte words. Grid: one word a thread, in the
// order of `out`, so that writes are whole lines and reads whole rows.
__global__ void swap_rows_kernel(uint4* __restrict__ out, const uint4* __restrict__ in, unsigned count, unsigned a,
                                 unsigned b, unsigned words) {
  const unsigned at = blockIdx.x * blockDim.x + threadIdx.x;
  if (at >= count) return;
  const unsigned row = at / words, word = at - row * words, j = row / a, i = row - j * a;
  __stcs(out + at, __ldcs(in + size_t(i * b + j) * words + word));
}

}  // namespace

void copy_kernel(void* out, const void* in, int64_t bytes, cudaStream_t stream) {
  copy_words<<<grid_for(bytes / 16), kThreads, 0, stream>>>(static_cast<uint4*>(out), static_cast<const uint4*>(in),
                                                            bytes / 16);
  ORRERY_LAUNCHED();
}

void rms_norm(void* out, const void* in, const void* weight, int64_t tokens, int64_t hidden, cudaStream_t stream) {
  constexpr int kWord = 8 * kThreads;  // numbers that the threads of a block hold in one word each
  if (hidden % 8 || hidden > 20 * kWord) throw BenchError("rms_norm: hidden must be a multiple of 8 up to 40960");
  const auto kernel = hidden <= 4 * kWord   ? rms_norm_kernel<4>
                      : hidden <= 8 * kWord ? rms_norm_kernel<8>
                                            : rms_norm_kernel<20>;
  kernel<<<static_cast<int>(tokens), kThreads, 0, stream>>>(static_cast<uint4*>(out), static_cast<const uint4*>(in),
                                                            static_cast<const uint4*>(weight),
                                                            static_cast<int>(hidden / 8));
  ORRERY_LAUNCHED();
}

void add(void* out, const void* a, const void* b, int64_t count, cudaStream_t stream) {
  binary_kernel<false><<<grid_for(count / 8), kThreads, 0, stream>>>(
      static_cast<uint4*>(out), static_cast<const uint4*>(a), static_cast<const uint4*>(b), count / 8);
  ORRERY_LAUNCHED();
}

void swiglu(void* out, const void* gate, const void* up, int64_t count, cudaStream_t stream) {
  binary_kernel<true><<<grid_for(count / 8), kThreads, 0, stream>>>(
      static_cast<uint4*>(out), static_cast<const uint4*>(gate), static_cast<const uint4*>(up), count / 8);
  ORRERY_LAUNCHED();
}

void rotary_table(void* table, int64_t tokens, int64_t d, double base, cudaStream_t stream) {
  rotary_table_kernel<<<grid_for(tokens * d / 2), kThreads, 0, stream>>>(static_cast<float2*>(table), tokens,
                                                                         static_cast<int>(d / 2), base);
  ORRERY_LAUNCHED();
}

void rotary(void* x, const void* table, int64_t tokens, int64_t heads, int64_t d, cudaStream_t stream) {
  const int64_t count = tokens * heads * (d / 16);
  rotary_kernel<<<grid_for(count), kThreads, 0, stream>>>(static_cast<uint4*>(x), static_cast<const float2*>(table),
                                                          count, static_cast<int>(heads), static_cast<int>(d / 16));
  ORRERY_LAUNCHED();
}

void embed(void* out, const void* table, const void* index, int64_t tokens, int64_t hidden, cudaStream_t stream) {
  const int64_t count = tokens * hidden / 8;
  embed_kernel<<<grid_for(count), kThreads, 0, stream>>>(static_cast<uint4*>(out), static_cast<const uint4*>(table),
                                                         static_cast<const uint32_t*>(index), count,
                                                         static_cast<int>(hidden / 8));
  ORRERY_LAUNCHED();
}

void swap_rows(void* out, const void* in, int64_t a, int64_t b, int64_t row, cudaStream_t stream) {
  const int64_t words = row / 8, count = a * b * words;
  if (row % 8 || count > 0x7fffffff) throw BenchError("swap_rows: rows of 8 numbers and more, 32 GiB at most");
  swap_rows_kernel<<<grid_for(count), kThreads, 0, stream>>>(static_cast<uint4*>(out), static_cast<const uint4*>(in),
                                                             static_cast<unsigned>(count), static_cast<unsigned>(a),
                                                             static_cast<unsigned>(b), static_cast<unsigned>(words));
  ORRERY_LAUNCHED();
}

}  // namespace orrery
