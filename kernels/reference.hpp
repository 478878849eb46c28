// Attention in double precision on the CPU: what every GPU result is compared with. Plain loops, always built.
#pragma once
#include <cstdint>
#include <vector>

#include "kernels/attention_shape.hpp"

namespace orrery {

using Doubles = std::vector<double>;

// All tensors are token-major, [tokens][heads][head_dim]; LSE is [heads][n_q] in natural logarithm. Query head h reads
// key head h / (heads / kv_heads). A row that sees no key has O = 0 and LSE = -inf.
struct ReferenceForward {
  Doubles o, lse;
};
ReferenceForward reference_forward(const AttentionShape& shape, const Doubles& q, const Doubles& k, const Doubles& v);

// Gradients of one block, given O, dO and LSE of the whole row (which for a single block are its own).
struct ReferenceBackward {
  Doubles dq, dk, dv;
};
ReferenceBackward reference_backward(const AttentionShape& shape, const Doubles& q, const Doubles& k, const Doubles& v,
                                     const Doubles& o, const Doubles& d_o, const Doubles& lse);

// Two partial results over disjoint keys become one: weights exp(lse - max). In place of the first.
void reference_merge(Doubles& o, Doubles& lse, const Doubles& o2, const Doubles& lse2, int64_t head_dim, int64_t n_q,
                     int64_t heads);

struct Difference {
  double norm = 0;     // ||got - expected|| / ||expected||
  double row_max = 0;  // the largest such value over rows of `row` numbers
};
// NaN anywhere gives infinity. Rows whose expected norm is below 1e-3 of the average row count against that floor.
Difference difference(const Doubles& got, const Doubles& expected, int64_t row);

}  // namespace orrery
