// pi-Attention in double precision on the CPU, row by row: the judge of the kernels.
#pragma once
#include "kernels/pi_attention.hpp"
#include "kernels/reference.hpp"

namespace orrery {

struct PiRow {
  Doubles o;  // [head_dim]
  double lse, lse_skips;
};
// Tensors as in pi_attention.hpp, in double; gate_logit may be empty if no row has skips.
PiRow reference_pi_row(const PiAttentionShape& shape, const Doubles& q, const Doubles& k, const Doubles& v,
                       const Doubles& gate_logit, int64_t head, int64_t token);

struct PiGradients {
  Doubles dq, dk, dv, d_gate_logit;
};
PiGradients reference_pi_backward(const PiAttentionShape& shape, const Doubles& q, const Doubles& k, const Doubles& v,
                                  const Doubles& gate_logit, const Doubles& d_o);

}  // namespace orrery
