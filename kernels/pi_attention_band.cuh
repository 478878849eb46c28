// The kernel behind pi_attention.hpp: attention over a band of lags, one block of three warpgroups an SM, persistent.
//
//   warpgroup 0   warp 0 copies Q and K in, warp 1 V; warps 2 and 3 copy the tile X of one consumer in and out.
//   warpgroups 1, 2   64 queries each. For every step of 128 keys: S = Q K^T of the next step is issued before
//                 O += P V of this one, so the softmax runs while the tensor cores work. The first S of the next tile
//                 is issued with the last P V of this one, so the tensor cores have work during the epilogue.
//
// A tile of Q, K, V or X is D / 64 columns of [rows][64] bf16, swizzled. X is what the epilogue blends with (values one
// period back, or the output of an earlier kernel) and, in place, what it writes.
#pragma once
#include "kernels/pi_attention_hopper.cuh"
#include "kernels/pi_attention_tiles.hpp"

namespace orrery {

enum class Epilogue {
  store,          // O and LSE
  gated_value,    // O := g O + (1 - g) X for rows with a key one period back, X their V there
  gated_output,   // O := g X + (1 - g) O, X the output of another kernel; rows without a key here keep X
  merged_output,  // O and LSE merged with X and its LSE, which LSE replaces
  merged_f32,     // O in fp32 and LSE, both in memory, merged with this block in place
};

// Of rows that have the same count: with n tokens and period p, residues below n mod p have one row more.
struct BandMaps {
  CUtensorMap q, k, v, x, o;
};

struct BandParams {
  BandMaps maps[2];
  Band band[2];
  int32_t long_residues = 0;  // residues below this are of class 0, the others of class 1
  TileOrder order;
  int32_t tiles = 0;
  int32_t group = 1;              // query heads a key head
  int32_t heads = 1, period = 1;  // token = row * period + residue
  int64_t n = 0;                  // tokens: the stride of gate and LSE between heads
  int32_t value_lag = 0;          // gated_value: X is V[i - value_lag]
  float scale_log2 = 0;           // log2(e) / sqrt(d)
  float slack = 0;                // 8 / scale_log2: how far scores may exceed their reference
  const float* gate_logit = nullptr;
  float* lse = nullptr;
  float* o_f32 = nullptr;
  bool first = false;  // merged_f32: the accumulator holds nothing yet
};

constexpr int kBandThreads = 3 * hopper::kWarpgroup;

template <int D>
struct BandShared {
  static constexpr int kStages = 2;
  static constexpr int kTileBytes = kTileRows * D * 2, kHalfBytes = kHalfRows * D * 2;
  static constexpr int kQ = 0, kK = 2 * kTileBytes, kV = kK + kStages * kTileBytes, kX = kV + kStages * kTileBytes;
  static constexpr int kBarriers = kX + 2 * kHalfBytes;
  enum Barrier {
    q_full = 0,
    q_empty = 2,
    k_full = 4,
    k_empty = k_full + kStages,
    v_full = k_empty + kStages,
    v_empty = v_full + kStages,
    x_full = v_empty + kStages,
    x_ready = x_full + 2,
    count = x_ready + 2
  };
  static constexpr int kBytes = kBarriers + 8 * count + 1024;  // and room to align
  static_assert(kBytes <= 232448, "shared memory of a Hopper SM");
  uint32_t base;
  __device__ uint32_t barrier(int which) const { return base + kBarriers + 8 * which; }
};

namespace band {

using namespace hopper;

// A tile of the order: where it is, and the class of its residue (which says how many rows there are).
struct Tile {
  TileOrder::At at;
  int32_t kind;
  __device__ Tile(const BandParams& p, int32_t index)
      : at(p.order.at(index < p.tiles ? index : 0)), kind(at.residue < p.long_residues ? 0 : 1) {}
  __device__ const Band& band(const BandParams& p) const { return p.band[kind]; }
};

using Plan = TilePlan<kTileRows, 1>;

}  // namespace band
}  // namespace orrery
