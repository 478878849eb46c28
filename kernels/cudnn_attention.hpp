// Attention of one (query block, key block) pair as a cuDNN plan: what the frameworks' users run.
#pragma once
#include "kernels/attention_shape.hpp"
#include "kernels/cudnn_graph.hpp"

namespace orrery {

// Tensors are token-major, [tokens][heads][head_dim] bf16 (a range of tokens is contiguous, so a half block of the
// zigzag layout is a pointer into the whole). LSE is fp32 [heads][n_q], natural logarithm, packed.
//
// Forward: O = softmax(scale * Q K^T + mask) V and LSE. Pointers: Q, K, V, LSE, O.
CudnnPlan attention_forward_plan(const AttentionShape& shape, cudnnHandle_t handle);

// Backward of the block, given the O, dO and LSE of the *whole* row of blocks, so that the partial dQ add up and dK, dV
// are those of this block. Pointers: Q, K, V, O, dO, LSE, dQ, dK, dV, then two scratch tensors of fp32:
// heads * n_q (row sums) and heads * n_q * head_dim (dQ).
CudnnPlan attention_backward_plan(const AttentionShape& shape, cudnnHandle_t handle);

}  // namespace orrery
