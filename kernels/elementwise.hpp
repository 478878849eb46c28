// The memory-bound kernels of a transformer layer, bf16 in and out, fp32 inside.
#pragma once
#include <cuda_runtime.h>

#include <cstdint>

namespace orrery {

// out = in, by a kernel (16 bytes a thread); the driver's own copy is cudaMemcpyAsync.
void copy_kernel(void* out, const void* in, int64_t bytes, cudaStream_t stream);
// out[t] = in[t] / sqrt(mean(in[t]^2) + 1e-5) * weight, rows of `hidden`.
void rms_norm(void* out, const void* in, const void* weight, int64_t tokens, int64_t hidden, cudaStream_t stream);
// out = a + b; out may be one of them.
void add(void* out, const void* a, const void* b, int64_t count, cudaStream_t stream);
// out = silu(gate) * up.
void swiglu(void* out, const void* gate, const void* up, int64_t count, cudaStream_t stream);
// Rotary embedding in place on [tokens][heads][d]: pairs (x[i], x[i + d/2]) turn by position * base^(-2i/d), whose
// cosine and sine are read from a table [tokens][d/2] of float2.
void rotary(void* x, const void* table, int64_t tokens, int64_t heads, int64_t d, cudaStream_t stream);
void rotary_table(void* table, int64_t tokens, int64_t d, double base, cudaStream_t stream);
// out[t] = table[index[t]], rows of `hidden`.
void embed(void* out, const void* table, const void* index, int64_t tokens, int64_t hidden, cudaStream_t stream);

// [a][b] rows of `row` numbers become [b][a]: tokens packed for an all-to-all and unpacked. row a multiple of 8.
void swap_rows(void* out, const void* in, int64_t a, int64_t b, int64_t row, cudaStream_t stream);

}  // namespace orrery
