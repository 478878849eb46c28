// What the pieces of a step cost on one rank outside attention: kernels of a layer's two halves, of embedding, head and
// optimizer, and the bytes that collectives carry. The program that is simulated and the bounds of a search are made of
// the same numbers.
#pragma once

#include "cost_models/kernel_cost.hpp"
#include "scenarios/degrees.hpp"
#include "scenarios/memory.hpp"
#include "scenarios/model.hpp"

namespace orrery {

/// A dense step: matrices, and what streams through HBM beside them.
struct DenseCost {
  Seconds duration;
  Bytes hbm_traffic;
  Flops flops;
  Joules energy;  // above what an idle GPU takes
};

struct StepCosts {
  // Forward, of one microbatch and layer.
  DenseCost qkv;        // norm, Q, K and V, rotary
  DenseCost output;     // projection after attention, residual
  DenseCost mlp;        // norm, MLP, residual
  DenseCost embedding;  // of one microbatch
  DenseCost head;       // norm, logits, loss
  DenseCost optimizer;  // once a step
  // Backward of matrices is twice forward (gradients of inputs, then of weights), of what streams too.
  DenseCost head_gradient;  // half of the head's

  Bytes sequence;          // activations between layers of a rank's tokens, before tensor parallelism splits them
  Bytes layer_parameters;  // of a layer on a tensor rank
  Bytes table_parameters;  // of one table, embedding or head, on a tensor rank
  Bytes layer_gradients, table_gradients;
  Bytes partial_output;  // decode over context ranks: O and log-sum-exp
};

struct StepCostInput {
  MemoryInput shape;  // degrees, tokens, microbatch and types
  GpuPeaks peaks;
  ClockCap clock_cap = Regime::sustained;
  /// Of the matrices of the layers, if they multiply in fp8 as Transformer Engine has it: inputs and weights of one
  /// byte, results of two; attention and the head stay in 16 bits. 0: all in one type.
  FlopsPerSecond fp8_rate{};
};

StepCosts step_costs(const StepCostInput& input, const Profile& profile);

/// Decode, of one layer: the new tokens of all sequences read so many cached keys and values each on this rank, once.
DenseCost decode_attention_cost(const StepCostInput& input, const Profile& profile, double keys_read);

/// FLOPs per step of all ranks outside attention that are useful: 2 (prefill, decode) or 6 per weight and token.
Flops dense_flops(const MemoryInput& input);
/// Of those, in the matrices of the layers, which may be in fp8.
Flops layer_flops(const MemoryInput& input);

/// The peak that useful FLOPs are measured by, if `in_fp8` of them are in that type: at both peaks in turn.
FlopsPerSecond mean_peak(Flops useful, FlopsPerSecond peak, Flops in_fp8, FlopsPerSecond fp8_peak);

}  // namespace orrery
