// Plain attention on the whole sequence, in double precision: the judge of the functional check.
#pragma once

#include <cmath>
#include <random>
#include <vector>

#include "scenarios/geometry.hpp"
#include "scenarios/mask.hpp"
#include "validate/tensors.hpp"

namespace orrery {

/// Inputs and results of one layer: (tokens, heads, head_dim), K and V (tokens, kv_heads, head_dim).
struct ReferenceLayer {
  CheckedTensor query, key_value, d_output, output, d_query, d_key_value;

  ReferenceLayer(Index tokens, int heads, int kv_heads, int head_dim);
};

/// Random Q, K, V and dO, and the output and gradients that masked softmax attention gives for them. Values that
/// `values` allows beyond `mask` come on top, behind gates that stand open.
ReferenceLayer make_reference(const Geometry& geometry, const Mask& mask, const Mask& values, std::mt19937_64& random);

inline double attention_scale(int head_dim) {
  return 1.0 / std::sqrt(static_cast<double>(head_dim));
}

inline double dot(const double* a, const double* b, int length) {
  double sum = 0;
  for (int i = 0; i < length; ++i) sum += a[i] * b[i];
  return sum;
}

}  // namespace orrery
