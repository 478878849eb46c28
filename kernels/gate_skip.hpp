// The gate that mixes attention with the skip of pi-Attention, and its gradients. bf16, gate in fp32 [heads][n].
#pragma once
#include <cuda_runtime.h>

#include <cstdint>

namespace orrery {

// The fusion gate of pi-Attention with a skip of one key: the softmax over one key is 1, so the branch is V[i -
// period]. Rows i < first_row have no such key and are passed through.
struct GateSkip {
  int64_t n = 0, heads = 1, kv_heads = 1, head_dim = 128;
  int64_t period = 1, first_row = 0;
};
//   out[i][h] = g[h][i] * o[i][h] + (1 - g[h][i]) * v[i - period][h / group]
// `v` points at the row of token 0, so rows before it (a halo) are at negative offsets.
void gate_skip(const GateSkip& shape, void* out, const void* o, const void* v, const float* gate, cudaStream_t stream);
//   d_o = g * d_out;  d_gate = sum over d of d_out * (o - v[i - period])
void gate_skip_backward(const GateSkip& shape, void* d_o, float* d_gate, const void* d_out, const void* o,
                        const void* v, const float* gate, cudaStream_t stream);
//   dv[j] += sum over the heads of a group of (1 - g[j + period]) * d_out[j + period]
// for the rows j = first_row - period .. n - period - 1; rows j < written_from hold nothing yet and are set.
void gate_skip_values(const GateSkip& shape, void* dv, const void* d_out, const float* gate, int64_t written_from,
                      cudaStream_t stream);

}  // namespace orrery
