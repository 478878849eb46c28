// The two headline numbers of pi-Attention (Liu, Yu, arXiv 2511.10696), "24.1 % fewer FLOPs" and "50 % fewer GPUs for
// the same context". The public text names neither baselines nor sizes, so a claim is a file that states what has to be
// assumed (scenarios/claims/), and the answer is the line or the curve on which it is true.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "scenarios/reader.hpp"
#include "scenarios/size_problem.hpp"

namespace orrery::pi_attention_claims {

/// Fewer FLOPs. A forward pass of one layer of width H costs 24 H^2 + 4 n H per token with n keys (projections 8 H^2,
/// MLP of four times the width 16 H^2, scores and values 4 n H; as appendix D of Ring Attention, arXiv 2310.01889), so
/// w keys save the share (n - w) / (6 H + n).
double flops_saved(double tokens, double hidden, double keys);
/// The n at which that is `fewer`; causal: a query of the baseline sees n / 2 keys on the mean.
double tokens_that_save(double fewer, double hidden, double keys, bool causal);

struct FlopsClaim {
  double fewer = 0;
  std::vector<double> hidden, keys, tokens;
  std::vector<ModelShape> models;
};
FlopsClaim read_flops_claim(const Table& table);

/// The same of a prefill of a whole causal model, counted pair by pair. A query of pi-attention sees `keys` keys,
/// itself among them; the first ones see fewer.
double flops_saved(const ModelShape& model, Index tokens, Index keys);
/// The least context at which that is `fewer`; nothing if it is beyond 2^31.
std::optional<Index> tokens_that_save(double fewer, const ModelShape& model, Index keys);

/// Fewer GPUs.
struct GpusClaim {
  double fewer = 0;
  SizeProblem problem;  // but for tokens and pattern
  std::vector<Index> tokens;
  Index k = 0, period = 0;
  std::vector<double> tokens_per_s;
};
GpusClaim read_gpus_claim(const Table& table);

/// Of one context. nothing: not with max_gpus.
struct Needed {
  std::optional<int> exact, pi;
  /// If both are known.
  std::optional<double> fewer() const;
};
struct GpusRow {
  Index tokens = 0;
  /// Whole numbers of GPUs of one context-parallel group with ZeRO-3 and recomputation, by the closed form of memory.
  Needed holds_ring;
  /// Powers of two, any degrees of parallelism: `orrery size`.
  Needed holds;
  std::vector<Needed> keeps_up;  // by tokens_per_s
};
GpusRow needed_gpus(const GpusClaim& claim, Index tokens);

}  // namespace orrery::pi_attention_claims
