// Work of one kernel (FLOPs, HBM bytes) and how long it takes alone on its GPU, by the roofline.
#pragma once

#include <cstdint>

#include "cost_models/profile.hpp"
#include "sim/units.hpp"

namespace orrery {

enum class Phase : std::uint8_t { forward, backward };

/// One attention kernel: `pairs` scored (query, key) pairs per head and sequence of the batch.
struct AttentionShape {
  double pairs = 0;
  double query_rows = 0;  // rows of Q read and of O (dQ) written
  double key_rows = 0;
  double heads = 0;
  double kv_heads = 0;
  double head_dim = 0;
  double batch = 1;
  double element_bytes = 2;
};

/// Forward: QK^T and PV, two FLOPs per multiply-add: 4 * pairs * head_dim * heads. Backward: 2.5 times that (five
/// matrix products instead of two; the convention of FlashAttention-3, arXiv 2407.08608). Softmax is neglected: its
/// exponentials run on other units.
Flops attention_flops(const AttentionShape& shape, Phase phase);

/// Compulsory HBM traffic: Q, K, V read and O written once; backward Q, K, V, O, dO read, dQ, dK, dV written. Re-reads
/// of keys by later query tiles are taken to hit the L2 cache.
Bytes attention_bytes(const AttentionShape& shape, Phase phase);

/// Peaks of the GPU for the dtype in use.
struct GpuPeaks {
  FlopsPerSecond matrix;
  BytesPerSecond hbm;
};

struct KernelCost {
  Seconds duration;
  Bytes hbm_traffic;
  Flops flops;
};

/// max(executed FLOPs / (peak * efficiency), bytes / (HBM * efficiency)) + overhead. `shape.pairs` are executed pairs.
KernelCost attention_cost(const AttentionShape& shape, Phase phase, const GpuPeaks& peaks, const Profile& profile);

/// A kernel that only streams bytes through HBM.
KernelCost streaming_cost(Bytes bytes, const GpuPeaks& peaks, const Profile& profile);

/// Matrix products of the projections and the MLP.
KernelCost dense_cost(Flops flops, Bytes bytes, const GpuPeaks& peaks, const Profile& profile);

}  // namespace orrery
