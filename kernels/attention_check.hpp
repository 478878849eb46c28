// Compares one attention block on the GPU with double precision on the CPU: all of it where that is quick, otherwise
// whole rows of two heads (a row is exact: every key it sees is summed).
#pragma once
#include "kernels/attention_shape.hpp"
#include "kernels/reference.hpp"

namespace orrery {

// Device pointers, token-major bf16; LSE fp32. O and LSE were poisoned before the launch.
Difference check_forward(const AttentionShape& shape, const void* q, const void* k, const void* v, const void* o,
                         const void* lse);
// O and LSE are the GPU's own (already checked); dQ, dK, dV were poisoned.
Difference check_backward(const AttentionShape& shape, const void* q, const void* k, const void* v, const void* o,
                          const void* d_o, const void* lse, const void* dq, const void* dk, const void* dv);

// The worse of both in each measure.
Difference worst(const Difference& a, const Difference& b);

}  // namespace orrery
