#include "kernels/cudnn_attention.hpp"

#include <limits>

// The graphs follow cuDNN's documented attention pattern: the library recognises these chains of operations and runs
// one fused kernel, so the order and the types of the operations matter although other orders would be as correct.

namespace orrery {
namespace {

using Tensor = CudnnGraph::Tensor;
using Shape = CudnnGraph::Shape;
constexpr cudnnDataType_t kFloat = CUDNN_DATA_FLOAT;
constexpr cudnnDataType_t kBf16 = CUDNN_DATA_BFLOAT16;
constexpr cudnnDataType_t kInt = CUDNN_DATA_INT32;
constexpr cudnnDataType_t kBool = CUDNN_DATA_BOOLEAN;

// (1, heads, n, d) over [n][heads][d].
Tensor token_major(CudnnGraph& g, int64_t n, int64_t heads, int64_t d) {
  return g.tensor(kBf16, {1, heads, n, d}, {n * heads * d, d, heads * d, 1});
}
// The same memory as (1, heads, d, n).
Tensor token_major_transposed(CudnnGraph& g, int64_t n, int64_t heads, int64_t d) {
  return g.tensor(kBf16, {1, heads, d, n}, {n * heads * d, d, 1, heads * d});
}
Tensor row_statistic(CudnnGraph& g, int64_t n, int64_t heads) {
  return g.tensor(kFloat, {1, heads, n, 1}, {heads * n, n, 1, 1});
}

Tensor apply(CudnnGraph& g, cudnnPointwiseMode_t mode, Tensor x, Tensor b, const Shape& dims) {
  const Tensor y = g.internal(kFloat, dims);
  g.pointwise(mode, kFloat, x, b, y);
  return y;
}

// Scores outside the band become -inf.
Tensor masked(CudnnGraph& g, const AttentionShape& s, Tensor score) {
  if (s.mask == Mask::full) return score;
  const Shape dims = g.dims(score);
  const int64_t shift = s.n_k - s.n_q;
  Tensor row = g.internal(kInt, dims);
  g.index(2, score, row);
  Tensor col = g.internal(kInt, dims);
  g.index(3, score, col);
  if (shift != 0) {  // aligned at the ends: row + n_k - n_q, in the two steps that the library's pattern has
    const Tensor plus = g.internal(kInt, dims);
    g.pointwise(CUDNN_POINTWISE_ADD, kInt, row, g.scalar(static_cast<int32_t>(s.n_k)), plus);
    const Tensor minus = g.internal(kInt, dims);
    g.pointwise(CUDNN_POINTWISE_SUB, kInt, plus, g.scalar(static_cast<int32_t>(s.n_q)), minus);
    row = minus;
  }
  Tensor keep = g.internal(kBool, dims);
  g.pointwise(CUDNN_POINTWISE_CMP_GE, kBool, row, col, keep);
  Tensor out = g.internal(kFloat, dims);
  g.select(score, g.scalar(-std::numeric_limits<float>::infinity()), keep, out);
  if (s.mask == Mask::causal) return out;

  row = g.internal(kInt, dims);
  g.index(2, out, row);
  col = g.internal(kInt, dims);
  g.index(3, out, col);
  const Tensor reach = g.internal(kFloat, dims);  // col + window - (n_k - n_q) > row
  g.pointwise(CUDNN_POINTWISE_ADD, kFloat, col, g.scalar(static_cast<float>(s.window - shift)), reach);
  keep = g.internal(kBool, dims);
  g.pointwise(CUDNN_POINTWISE_CMP_GT, kBool, reach, row, keep);
  const Tensor banded = g.internal(kFloat, dims);
  g.select(out, g.scalar(-std::numeric_limits<float>::infinity()), keep, banded);
  return banded;
}

}  // namespace

CudnnPlan attention_forward_plan(const AttentionShape& s, cudnnHandle_t handle) {
  CudnnGraph g;
  const Shape scores{1, s.heads, s.n_q, s.n_k}, rows{1, s.heads, s.n_q, 1};
  const Tensor q = token_major(g, s.n_q, s.heads, s.head_dim);
  const Tensor kt = token_major_transposed(g, s.n_k, s.kv_heads, s.head_dim);
  const Tensor v = token_major(g, s.n_k, s.kv_heads, s.head_dim);
  const Tensor lse = row_statistic(g, s.n_q, s.heads);
  const Tensor o = token_major(g, s.n_q, s.heads, s.head_dim);

  const Tensor product = g.internal(kFloat, scores);
  g.matmul(q, kt, product);
  Tensor score = apply(g, CUDNN_POINTWISE_MUL, product, g.scalar(static_cast<float>(s.scale())), scores);
  score = masked(g, s, score);

  const Tensor top = g.internal(kFloat, rows);
  g.reduce(CUDNN_REDUCE_TENSOR_MAX, score, top);
  const Tensor centred = apply(g, CUDNN_POINTWISE_SUB, score, top, scores);
  const Tensor weight = g.internal(kFloat, scores);
  g.pointwise(CUDNN_POINTWISE_EXP, kFloat, centred, weight);
  const Tensor sum = g.internal(kFloat, rows);
  g.reduce(CUDNN_REDUCE_TENSOR_ADD, weight, sum);
  const Tensor log_sum = g.internal(kFloat, rows);
  g.pointwise(CUDNN_POINTWISE_LOG, kFloat, sum, log_sum);
  g.pointwise(CUDNN_POINTWISE_ADD, kFloat, top, log_sum, lse);
  const Tensor p = g.internal(kBf16, scores);
  g.pointwise(CUDNN_POINTWISE_DIV, kFloat, weight, sum, p);
  g.matmul(p, v, o);
  return std::move(g).build(handle);
}

CudnnPlan attention_backward_plan(const AttentionShape& s, cudnnHandle_t handle) {
  CudnnGraph g;
  const int64_t h = s.heads, d = s.head_dim;
  const Shape scores{1, h, s.n_q, s.n_k}, rows{1, h, s.n_q, 1};
  const Shape transposed{1, h, s.n_k, s.n_q}, transposed_strides{h * s.n_q * s.n_k, s.n_q * s.n_k, 1, s.n_k};

  const Tensor q = token_major(g, s.n_q, h, d);
  const Tensor kt = token_major_transposed(g, s.n_k, s.kv_heads, d);
  const Tensor vt = token_major_transposed(g, s.n_k, s.kv_heads, d);
  const Tensor o = token_major(g, s.n_q, h, d);
  const Tensor d_o = token_major(g, s.n_q, h, d);
  const Tensor lse = row_statistic(g, s.n_q, h);
  const Tensor dq = token_major(g, s.n_q, h, d);
  const Tensor dk = token_major(g, s.n_k, s.kv_heads, d);
  const Tensor dv = token_major(g, s.n_k, s.kv_heads, d);
  const Tensor row_sum = row_statistic(g, s.n_q, h);
  const Tensor dq_sum = g.tensor(kFloat, {1, h, s.n_q, d}, {h * s.n_q * d, s.n_q * d, d, 1});
  const Tensor scale = g.scalar(static_cast<float>(s.scale()));

  // row_sum = sum over d of dO * O
  const Tensor o_d_o = g.internal(kFloat, {1, h, s.n_q, d});
  g.pointwise(CUDNN_POINTWISE_MUL, kFloat, d_o, o, o_d_o);
  const Tensor unscaled = g.internal(kFloat, rows);
  g.reduce(CUDNN_REDUCE_TENSOR_ADD, o_d_o, unscaled);
  g.pointwise(CUDNN_POINTWISE_MUL, kFloat, unscaled, g.scalar(1.0f), row_sum);

  // P = exp(scale * Q K^T - LSE), dV = P^T dO
  const Tensor product = g.internal(kFloat, scores);
  g.matmul(q, kt, product);
  Tensor score = apply(g, CUDNN_POINTWISE_MUL, product, scale, scores);
  score = apply(g, CUDNN_POINTWISE_SUB, score, lse, scores);
  score = masked(g, s, score);
  const Tensor p = g.internal(kFloat, scores);
  g.pointwise(CUDNN_POINTWISE_EXP, kFloat, score, p);
  const Tensor pt = g.internal(kBf16, transposed, transposed_strides);
  g.reshape(p, pt);
  // With fewer key heads than query heads the gradient of each query head is summed over its group.
  auto key_gradient = [&](Tensor left, Tensor right, Tensor out) {
    if (s.heads == s.kv_heads) {
      g.matmul(left, right, out);
    } else {
      const Tensor per_head = g.internal(kBf16, {1, h, s.n_k, d});
      g.matmul(left, right, per_head);
      g.reduce(CUDNN_REDUCE_TENSOR_ADD, per_head, out);
    }
  };
  key_gradient(pt, d_o, dv);

  // dS = scale * P * (dO V^T - row_sum), dK = dS^T Q, dQ = dS K
  const Tensor dp = g.internal(kFloat, scores);
  g.matmul(d_o, vt, dp);
  Tensor ds = apply(g, CUDNN_POINTWISE_SUB, dp, row_sum, scores);
  ds = apply(g, CUDNN_POINTWISE_MUL, ds, p, scores);
  ds = apply(g, CUDNN_POINTWISE_MUL, ds, scale, scores);
  const Tensor dst = g.internal(kBf16, transposed, transposed_strides);
  g.reshape(ds, dst);
  key_gradient(dst, q, dk);

  const Tensor k = g.internal(kBf16, {1, s.kv_heads, s.n_k, d}, {s.n_k * s.kv_heads * d, d, s.kv_heads * d, 1});
  g.reshape(kt, k);
  g.matmul(ds, k, dq_sum);
  g.pointwise(CUDNN_POINTWISE_IDENTITY, kFloat, dq_sum, dq);
  return std::move(g).build(handle);
}

}  // namespace orrery
