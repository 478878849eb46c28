// Merging two partial attention results over disjoint keys, and the sums of the ring's backward pass.
#pragma once
#include <cuda_runtime.h>

#include <cstdint>

namespace orrery {

struct MergeShape {
  int64_t n_q = 0, heads = 0, head_dim = 128;
  int64_t lse_stride = 0;  // tokens between the heads of the accumulated LSE; 0 means n_q. Set when merging into half.
  int64_t elements() const { return n_q * heads * head_dim; }
};

// (O, LSE) of a block in bf16 is merged into the accumulated (O, LSE) in fp32, in place. 10 bytes an element.
// `first`: the accumulator holds nothing yet and is overwritten (6 bytes an element).
void merge_block(const MergeShape& shape, float* o, float* lse, const void* block_o, const float* block_lse, bool first,
                 cudaStream_t stream);
// Both partial results in fp32: 12 bytes an element.
void merge_f32(const MergeShape& shape, float* o, float* lse, const float* o2, const float* lse2, cudaStream_t stream);
// The accumulated O as bf16.
void to_bf16(void* out, const float* in, int64_t count, cudaStream_t stream);
// sum (fp32) += part (bf16); `first` overwrites. head counts do not matter: any token-major tensors of equal shape.
void accumulate(float* sum, const void* part, int64_t count, bool first, cudaStream_t stream);

// The same merge as eager frameworks run it: one kernel for every elementwise operation, temporaries in fp32
//   out = out - sigmoid(block_lse - lse) * (out - block_out);  lse = lse - logsigmoid(lse - block_lse)
// `scratch` holds 2 * elements + 3 * n_q * heads floats. 38 bytes an element and seven launches.
void merge_eager(const MergeShape& shape, float* o, float* lse, const void* block_o, const float* block_lse,
                 float* scratch, cudaStream_t stream);

}  // namespace orrery
