// The memory-bound kernels of a transformer layer, bf16 in and out, fp32 inside.
#pragma once
#include <cuda_runtime.h>

#include <cstdint>

namespace orrery {

// out = in, by a kernel (16 bytes a thread); the driver's own copy is cudaMemcpyAsync.
void copy_kernel(void* out, const void* in, int64_t bytes, cudaStream_t stream);
// out[t] = in[t] / sqrt(mean(in[t]^2) + 1e-5) * weight, rows of `hidden`.
void rms_norm(void* out, const void* in, const void* weight, int64_t tokens, int64_t hidden, cudaStream_t stream);
// out = a + b.
void add(void* out, const void* a, const void* b, int64_t count, cudaStream_t stream);
// out = silu(gate) * up.
void swiglu(void* out, const void* gate, const void* up, int64_t count, cudaStream_t stream);
// Rotary embedding in place on [tokens][heads][d]: pairs (x[i], x[i + d/2]) turn by position * base^(-2i/d), whose
// cosine and sine are read from a table [tokens][d/2] of float2.
void rotary(void* x, const void* table, int64_t tokens, int64_t heads, int64_t d, cudaStream_t stream);
void rotary_table(void* table, int64_t tokens, int64_t d, double base, cudaStream_t stream);
// out[t] = table[index[t]], rows of `hidden`.
void embed(void* out, const void* table, const void* index, int64_t tokens, int64_t hidden, cudaStream_t stream);
// The fusion gate of pi-Attention with a skip of one key: the softmax over one key is 1, so the branch is V[i -
// period].
//   o[i][h] = g[h][i] * o[i][h] + (1 - g[h][i]) * v[i - period][h / group], in place; rows i < first_row are left
//   alone.
// `v` points at the row of token 0, so rows before it (a halo) are at negative offsets.
void gate_skip(void* o, const void* v, const float* gate, int64_t n, int64_t heads, int64_t kv_heads, int64_t d,
               int64_t period, int64_t first_row, cudaStream_t stream);

}  // namespace orrery
