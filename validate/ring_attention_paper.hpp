// What "Ring Attention with Blockwise Transformers for Near-Infinite Context" (Liu, Zaharia, Abbeel 2023, arXiv
// 2310.01889) derives and prints.
#pragma once

#include <array>
#include <string_view>

#include "cost_models/kernel_cost.hpp"
#include "sim/units.hpp"

namespace orrery::ring_attention_paper {

/// Section 3: a hop of K and V (4 c d bytes in bf16) hides under the attention of one block (4 d c^2 FLOPs) if
/// 4 d c^2 / F >= 4 c d / B, that is c >= F / B. In tokens, not rounded.
double min_block(FlopsPerSecond flop_rate, BytesPerSecond bandwidth);

/// Six blocks live on a device (query, output, two of K and V in use, two on their way): s = 6 c.
double min_sequence(FlopsPerSecond flop_rate, BytesPerSecond bandwidth);

/// A row of Table 2. `printed_*`: thousands of tokens as the paper prints them. Its InfiniBand row prints 24.5 and
/// 149.5 where F / B = 24.96 and 6 F / B = 149.76; all other numbers are F / B and 6 F / B rounded.
struct Accelerator {
  std::string_view name;
  FlopsPerSecond flop_rate;
  BytesPerSecond bandwidth;
  double printed_block;
  double printed_sequence;
};
const std::array<Accelerator, 5>& table_2();

/// The condition with what else changes the two sides (own derivation, same reasoning).
struct Overlap {
  int heads = 1, kv_heads = 1;   // grouped queries: fewer bytes for the same FLOPs
  bool causal_balanced = false;  // zigzag or striped: half the work per step
  Phase phase = Phase::forward;  // backward: 10 d c^2 FLOPs, and dK, dV travel too
  bool gradients_in_fp32 = false;
};
/// Tokens per device from which every hop but the gradient's last hop home hides: (F / B) (h_kv / h), twice that if
/// causal, times 0.8 backward with bf16 gradients and 1.2 with fp32 ones.
double min_block(FlopsPerSecond flop_rate, BytesPerSecond bandwidth, const Overlap& overlap);

/// Appendix D: FLOPs of a transformer per sequence, (24 b s h^2 + 4 b s^2 h) per layer, and the ratio of those of a
/// whole data set cut into sequences of s2 instead of s1 tokens: (6 h + s2) / (6 h + s1).
Flops training_flops(double batch, double sequence, double hidden, double layers);
double data_set_flops_ratio(double hidden, double from_sequence, double to_sequence);

/// Table 1: peak activation bytes of one layer in bf16, 6 b c h, whatever the number of devices.
Bytes peak_activation(double batch, double block, double hidden);

}  // namespace orrery::ring_attention_paper
