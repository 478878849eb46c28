// Work of one kernel (FLOPs, HBM bytes) and how long it takes alone on its GPU: by the measured model of its kind if
// the profile has one, else by the roofline.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <mutex>
#include <string_view>
#include <utility>
#include <vector>

#include "cost_models/product_tiles.hpp"
#include "cost_models/profile.hpp"
#include "sim/units.hpp"

namespace orrery {

/// One attention kernel: `pairs` scored (query, key) pairs per head and sequence of the batch, in whole tiles.
struct AttentionShape {
  double pairs = 0;
  double query_rows = 0;  // rows of Q read and of O (dQ) written
  double key_rows = 0;
  double heads = 0;
  double kv_heads = 0;
  double head_dim = 0;
  double batch = 1;
  double element_bytes = 2;
  double masked_pairs = 0;  // of `pairs`, those the mask forbids
  double pairs_beyond = 0;  // of `pairs`, those beyond the last query or key: where tiles end is no mask
  bool window = false;      // the mask is one window
  bool cold = false;        // nothing is in L2, as benchmarks see to; in a step, what fits in is
  /// Whether the kernel has to look where the block ends: forward, where the keys end inside a tile and no causal mask
  /// hides that; backward, where they end inside one of the kernel's steps.
  bool guarded(Phase phase, double tile_key) const;
  /// A mask over more keys than queries, which end together: keys gathered before, or a halo in front of a window.
  bool masked_rectangle() const { return masked_pairs > 0 && key_rows > query_rows; }
  bool operator==(const AttentionShape&) const = default;
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
  int sms = 0;

  bool operator==(const GpuPeaks&) const = default;
};

/// What a transfer that runs beside a kernel asks of its SMs.
struct SmsBeside {
  int held = 0;
  int to_start = 1;  // that have to be idle, for the transfer's thread blocks to find room
};

struct KernelCost {
  Seconds duration;
  Bytes hbm_traffic;
  Flops flops;
  Joules energy;          // above what an idle GPU takes; 0 if the profile does not know
  Seconds tail;           // at the end, when SmsBeside::to_start are out of work
  double slowed = 1;      // times as long, if others hold SmsBeside::held
  double slows_nccl = 1;  // times as long NCCL's transfers take beside it
};

/// The measured tile model, or max(executed FLOPs / (peak * efficiency), bytes / (HBM * efficiency)) + overhead.
KernelCost attention_cost(const AttentionShape& shape, Phase phase, const GpuPeaks& peaks, const Profile& profile,
                          ClockCap cap = Regime::sustained, SmsBeside beside = {});

/// A kernel that only streams bytes through HBM; `kernel` names it in the profile.
KernelCost streaming_cost(Bytes bytes, const GpuPeaks& peaks, const Profile& profile, std::string_view kernel = "");

/// Matrix products, e.g. of the projections and the MLP.
struct DenseShape {
  std::vector<MatrixProduct> products;
  double element_bytes = 2;  // of what is multiplied
  double result_bytes = 2;
  int row_alignment = 16;        // bytes, see row_alignment()
  Phase phase = Phase::forward;  // of which the layouts are; matters where rows are not aligned

  Flops flops() const;
  Bytes bytes() const;  // each matrix once
};
/// The products of the pass that follows: for each one the gradient of what comes in and that of the weights.
DenseShape gradients_of(const DenseShape& forward);
/// The largest power of two of bytes, at most 16, that rows of all these widths are a multiple of. Of a matrix that
/// ranks cannot share evenly the largest share counts.
int row_alignment(std::initializer_list<double> widths, double element_bytes);
KernelCost dense_cost(const DenseShape& shape, const GpuPeaks& peaks, const Profile& profile,
                      ClockCap cap = Regime::sustained);

/// What the measured model of an attention kernel asks of the clock; for fits, which need it at a clock they know.
KernelLoad attention_load(const AttentionShape& shape, const AttentionModel& model, const MeasuredKernels& kernels,
                          const GpuPeaks& peaks, double tile_query, double tile_key, SmsBeside beside = {});
KernelLoad gemm_load(const DenseShape& shape, const GemmModel& model, const MeasuredKernels& kernels,
                     const GpuPeaks& peaks);

/// At which kernels read and write HBM beside their products: that of copies, if it was measured.
BytesPerSecond memory_rate(const MeasuredKernels& kernels, const GpuPeaks& peaks);

/// Costs of shapes seen before. A program asks for the same few shapes in every layer, and a list schedule takes a
/// millisecond; at another cap only the clock is looked for again. Several threads may use one.
class AttentionCosts {
 public:
  /// `beside` is the same in all calls.
  KernelCost of(const AttentionShape& shape, Phase phase, const GpuPeaks& peaks, const Profile& profile, ClockCap cap,
                SmsBeside beside);

 private:
  struct Known {
    AttentionShape shape;
    Phase phase;
    KernelLoad load;
    ClockCap cap;
    KernelCost cost;
  };
  std::mutex mutex_;
  std::vector<Known> known_;
};

}  // namespace orrery
