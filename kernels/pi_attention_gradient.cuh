// The two kernels of the backward pass. With P = exp2(S - L) and dS = P (dP - delta), where L and delta are per query:
//   of queries: S = Q K^T, dP = dO V^T;    dQ = scale dS K             per tile of 128 queries, over its keys;
//   of keys:    S = K Q^T, dP = V dO^T;    dV = P dO, dK = scale dS Q   per tile of 128 keys, over their queries.
// S and P are computed twice, 7 products instead of 5; in exchange nothing is summed across blocks, so the gradients
// are the same bits on every run and no tensor in fp32 goes through memory.
//
// Both are one template: A1, A2 are the tile's own rows, B1, B2 the 64 rows of a step, and the band is seen from the
// rows. A persistent block of three warpgroups as in pi_attention_band.cuh: warpgroup 0 copies, 1 and 2 multiply.
#pragma once
#include "kernels/pi_attention_hopper.cuh"
#include "kernels/pi_attention_tiles.hpp"

namespace orrery {

enum class Of { queries, keys };

struct GradientMaps {
  CUtensorMap a1, a2, b1, b2;
};

// Classes of residues as in BandParams.
struct GradientParams {
  GradientMaps maps[2];
  Band band[2];  // seen from the tile's rows
  int32_t long_residues = 0;
  TileOrder order;  // its heads are those of the tile's rows
  int32_t tiles = 0;
  int32_t heads = 1, group = 1;  // query heads, and how many share a key head
  int32_t out_heads = 1, period = 1;
  int32_t padded_rows = 0;  // of l, delta and value_weight: [residue][head][padded_rows]
  const float *l = nullptr, *delta = nullptr;
  const float* value_weight = nullptr;  // of keys: the extra lag is a gated value, dV = value_weight dO, without score
  float scale = 0, scale_log2 = 0;
  __nv_bfloat16 *d1 = nullptr, *d2 = nullptr;  // dQ;  dK, dV
  bool accumulate = false;                     // add to what they hold
};

constexpr int kGradientStep = 64;

template <int D>
struct GradientShared {
  static constexpr int kStages = 3, kRows = 2;
  static constexpr int kTileBytes = kTileRows * D * 2, kStepBytes = kGradientStep * D * 2;
  static constexpr int kStatBytes = kGradientStep * 4;
  static constexpr int kA = 0, kB = kRows * 2 * kTileBytes, kStats = kB + kStages * 2 * kStepBytes;
  static constexpr int kBarriers = kStats + kStages * 2 * kStatBytes;
  enum Barrier {
    a_full = 0,
    a_empty = kRows,
    b_full = 2 * kRows,
    b_empty = b_full + kStages,
    count = b_empty + kStages
  };
  static constexpr int kBytes = kBarriers + 8 * count + 1024;
  static_assert(kBytes <= 232448, "shared memory of a Hopper SM");
  uint32_t base;
  __device__ uint32_t barrier(int which) const { return base + kBarriers + 8 * which; }
  __device__ uint32_t a(int buffer, int which) const { return base + kA + (2 * buffer + which) * kTileBytes; }
  __device__ uint32_t b(int stage, int which) const { return base + kB + (2 * stage + which) * kStepBytes; }
  __device__ uint32_t stats(int stage, int which) const { return base + kStats + (2 * stage + which) * kStatBytes; }
};

namespace gradient {

using namespace hopper;

// Of keys, all queries of a tile start at multiples of 64: their L and delta are copied in bulk, 16-byte aligned.
template <Of kOf>
using Plan = TilePlan<kGradientStep, kOf == Of::keys ? kGradientStep : 1>;

struct Tile {
  TileOrder::At at;
  int32_t kind;
  __device__ Tile(const GradientParams& p, int32_t index)
      : at(p.order.at(index)), kind(at.residue < p.long_residues ? 0 : 1) {}
};

template <int D, Of kOf>
__device__ void copy(const GradientParams& p, GradientShared<D> sh) {
  using Sh = GradientShared<D>;
  Ring<Sh::kRows> a;
  Ring<Sh::kStages> b;
  for (int32_t t = blockIdx.x; t < p.tiles; t += gridDim.x) {
    const Tile tile(p, t);
    const GradientMaps& maps = p.maps[tile.kind];
    const Plan<kOf> plan(p.band[tile.kind], tile.at.first_row);
    const uint32_t a_full = sh.barrier(Sh::a_full + a.at());
    barrier_wait(sh.barrier(Sh::a_empty + a.at()), a.phase() ^ 1);
    barrier_expect(a_full, 2 * Sh::kTileBytes);
    load_tile(sh.a(a.at(), 0), &maps.a1, a_full, tile.at.first_row, tile.at.head * (D / 64), tile.at.residue);
    load_tile(sh.a(a.at(), 1), &maps.a2, a_full, tile.at.first_row, tile.at.head * (D / 64), tile.at.residue);
    a.advance();
    for (int g = 0; g < (kOf == Of::keys ? p.group : 1); ++g) {
      const int head = kOf == Of::keys ? tile.at.head * p.group + g : tile.at.head / p.group;
      for (int s = 0; s < plan.steps; ++s) {
        const uint32_t full = sh.barrier(Sh::b_full + b.at());
        const int row = plan.first_key(s);
        barrier_wait(sh.barrier(Sh::b_empty + b.at()), b.phase() ^ 1);
        barrier_expect(full, 2 * Sh::kStepBytes + (kOf == Of::keys ? 2 * Sh::kStatBytes : 0));
        load_tile(sh.b(b.at(), 0), &maps.b1, full, row, head * (D / 64), tile.at.residue);
        load_tile(sh.b(b.at(), 1), &maps.b2, full, row, head * (D / 64), tile.at.residue);
        if constexpr (kOf == Of::keys) {
          const int64_t at = (int64_t(tile.at.residue) * p.heads + head) * p.padded_rows + row;
          load_bytes(sh.stats(b.at(), 0), (p.value_weight && plan.is_extra(s) ? p.value_weight : p.l) + at,
                     Sh::kStatBytes, full);
          load_bytes(sh.stats(b.at(), 1), p.delta + at, Sh::kStatBytes, full);
        }
        b.advance();
      }
    }
  }
}

template <int D, Of kOf>
struct Consumer {
  static constexpr int kColumnsA = kTileRows * 128, kColumnsB = kGradientStep * 128;  // bytes of 64 columns
  static constexpr int kAcc = D / 2, kSecond = kOf == Of::keys ? D / 2 : 1;
  float s[32], dp[32];
  float d1[kAcc], d2[kSecond];  // dQ;  dK, dV
  uint32_t ds[16], prob[kOf == Of::keys ? 16 : 1];

  __device__ void issue(float (&out)[32], uint32_t a, uint32_t b) {
#pragma unroll
    for (int i = 0; i < D / 16; ++i) {
      product<64, 0, 0>(out, row_operand(a + i / 4 * kColumnsA + i % 4 * 32),
                        row_operand(b + i / 4 * kColumnsB + i % 4 * 32), i > 0);
    }
    product_commit();
  }
  template <int kCount, int kOperand>
  __device__ void accumulate(float (&out)[kCount], const uint32_t (&a)[kOperand], uint32_t b, bool add) {
#pragma unroll
    for (int i = 0; i < 4; ++i) product<D, 1>(out, a + 4 * i, column_operand(b + i * 2048, kColumnsB), add || i > 0);
  }
  // Bits of the 16 columns 8 f + e that a thread holds of a row, as in pi_attention_band.cuh.
  __device__ static int bits_below(int column) {
    column = min(max(column, 0), kGradientStep);
    return column / 8 * 2 + min(column % 8, 2);
  }
  __device__ void mask(const Step& step, int32_t row, int32_t n_k) {
    const int offset = step.first_key + threadIdx.x % 4 * 2;
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const int32_t i = row + 8 * r;
      const int first = bits_below(max(0, i - step.lag_max) - offset);
      const int end = bits_below(min(n_k - 1, i - step.lag_min) + 1 - offset);
      const uint32_t visible = (~0u << first) & ~(~0u << end);
#pragma unroll
      for (int b = 0; b < 16; ++b) {
        if (!(visible & (1u << b))) s[b / 2 * 4 + 2 * r + b % 2] = -INFINITY;
      }
    }
  }
};

__device__ inline float2 load_pair(uint32_t at) {
  float2 x;
  asm volatile("ld.shared.v2.f32 {%0, %1}, [%2];" : "=f"(x.x), "=f"(x.y) : "r"(at));
  return x;
}

// Two neighbouring numbers of a gradient, perhaps on top of what is there.
__device__ inline void put(__nv_bfloat16* at, float x, float y, bool add) {
  auto* word = reinterpret_cast<uint32_t*>(at);
  if (add) {
    const float2 before = unpack_bf16(*word);
    x += before.x;
    y += before.y;
  }
  *word = pack_bf16(x, y);
}

template <int D, Of kOf>
__device__ void consume(const GradientParams& p, const GradientShared<D>& sh, int consumer) {
  using Sh = GradientShared<D>;
  const int lane = threadIdx.x % 32, quad = lane % 4;
  const int own_row = consumer * kHalfRows + threadIdx.x / 32 % 4 * 16 + lane / 4;
  Consumer<D, kOf> c;
  Ring<Sh::kRows> a;
  Ring<Sh::kStages> b;
  // The warp has read what it will not read again. Of keys every thread read L and delta of a step for itself and says
  // so for itself: as fast, and racecheck can follow it.
  auto release = [&](int barrier) {
    const bool each = kOf == Of::keys && barrier >= Sh::b_empty;
    if (!each) __syncwarp();
    if (each || lane == 0) barrier_arrive(sh.barrier(barrier));
  };
  for (int32_t index = blockIdx.x; index < p.tiles; index += gridDim.x) {
    const Tile tile(p, index);
    const Band& band = p.band[tile.kind];
    const int32_t row = tile.at.first_row + own_row;
    const Plan<kOf> plan(band, tile.at.first_row);
    float l[2], delta[2];
    if constexpr (kOf == Of::queries) {
      const int64_t at = (int64_t(tile.at.residue) * p.heads + tile.at.head) * p.padded_rows + row;
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        l[r] = __ldg(p.l + at + 8 * r);
        delta[r] = __ldg(p.delta + at + 8 * r);
      }
    }
    barrier_wait(sh.barrier(Sh::a_full + a.at()), a.phase());
    const uint32_t a1 = sh.a(a.at(), 0) + consumer * (kHalfRows * 128);
    const uint32_t a2 = sh.a(a.at(), 1) + consumer * (kHalfRows * 128);
    bool add = false;  // the accumulators hold something
    // Of queries the sum of a step runs under the scores of the next, and its stage is released after them. Of keys
    // there are no registers for that: the other warpgroup fills the time.
    uint32_t in_flight = 0;
#pragma unroll 1
    for (int g = 0; g < (kOf == Of::keys ? p.group : 1); ++g) {
#pragma unroll 1
      for (int32_t s = 0; s < plan.steps; ++s) {
        barrier_wait(sh.barrier(Sh::b_full + b.at()), b.phase());
        // A tile's first step sets the accumulators even if nothing is visible.
        if (!plan.needs(band, consumer, s) && !(s == plan.steps - 1 && !add)) {
          release(Sh::b_empty + b.at());
          b.advance();
          continue;
        }
        const Step step = plan.step(band, consumer, s);
        product_fence();
        c.issue(c.s, a1, sh.b(b.at(), 0));
        c.issue(c.dp, a2, sh.b(b.at(), 1));
        product_wait<1>();
        pin(c.s);
        if (kOf == Of::queries && add) release(Sh::b_empty + in_flight);
        if (step.masked) c.mask(step, row, band.n_k);
        if constexpr (kOf == Of::queries) {
#pragma unroll
          for (int i = 0; i < 32; ++i) c.s[i] = exp2_fast(fmaf(c.s[i], p.scale_log2, -l[i / 2 % 2]));
        } else if (p.value_weight && plan.is_extra(s)) {
#pragma unroll
          for (int f = 0; f < 8; ++f) {
            const float2 w = load_pair(sh.stats(b.at(), 0) + (8 * f + 2 * quad) * 4);
#pragma unroll
            for (int i = 0; i < 4; ++i) c.s[4 * f + i] = c.s[4 * f + i] == -INFINITY ? 0 : i % 2 ? w.y : w.x;
          }
        } else {
#pragma unroll
          for (int f = 0; f < 8; ++f) {
            const float2 at = load_pair(sh.stats(b.at(), 0) + (8 * f + 2 * quad) * 4);
#pragma unroll
            for (int i = 0; i < 4; ++i) {
              c.s[4 * f + i] = exp2_fast(fmaf(c.s[4 * f + i], p.scale_log2, i % 2 ? -at.y : -at.x));
            }
          }
        }
        product_wait<0>();
        pin(c.dp);
        if constexpr (kOf == Of::queries) {
          pin(c.ds);
#pragma unroll
          for (int i = 0; i < 32; ++i) c.dp[i] = c.s[i] * (c.dp[i] - delta[i / 2 % 2]);
        } else {
          const float score = p.value_weight && plan.is_extra(s) ? 0 : 1;  // of a gated value nothing depends on S
#pragma unroll
          for (int f = 0; f < 8; ++f) {
            const float2 at = load_pair(sh.stats(b.at(), 1) + (8 * f + 2 * quad) * 4);
#pragma unroll
            for (int i = 0; i < 4; ++i) {
              c.dp[4 * f + i] = score * c.s[4 * f + i] * (c.dp[4 * f + i] - (i % 2 ? at.y : at.x));
            }
          }
#pragma unroll
          for (int i = 0; i < 16; ++i) c.prob[i] = pack_bf16(c.s[2 * i], c.s[2 * i + 1]);
        }
#pragma unroll
        for (int i = 0; i < 16; ++i) c.ds[i] = pack_bf16(c.dp[2 * i], c.dp[2 * i + 1]);
        product_fence();
        c.accumulate(c.d1, c.ds, sh.b(b.at(), 0), add);
        if constexpr (kOf == Of::keys) c.accumulate(c.d2, c.prob, sh.b(b.at(), 1), add);
        product_commit();
        if constexpr (kOf == Of::queries) {
          in_flight = b.at();
        } else {
          product_wait<0>();
          pin(c.d1);
          pin(c.d2);
          pin(c.ds);
          pin(c.prob);
          release(Sh::b_empty + b.at());
        }
        add = true;
        b.advance();
      }
    }
    if constexpr (kOf == Of::queries) {
      product_wait<0>();
      pin(c.d1);
      pin(c.ds);
      release(Sh::b_empty + in_flight);
    }
    release(Sh::a_empty + a.at());
    a.advance();
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const int32_t i = row + 8 * r;
      if (i >= band.n_q) continue;
      const int64_t at = ((int64_t(i) * p.period + tile.at.residue) * p.out_heads + tile.at.head) * D + 2 * quad;
#pragma unroll
      for (int f = 0; f < D / 8; ++f) {
        put(p.d1 + at + 8 * f, p.scale * c.d1[4 * f + 2 * r], p.scale * c.d1[4 * f + 2 * r + 1], p.accumulate);
        if constexpr (kOf == Of::keys) {
          put(p.d2 + at + 8 * f, c.d2[4 * f + 2 * r], c.d2[4 * f + 2 * r + 1], p.accumulate);
        }
      }
    }
  }
}

}  // namespace gradient

// Grid: at most one block a multiprocessor.
template <int D, Of kOf>
__global__ void __launch_bounds__(3 * hopper::kWarpgroup, 1) gradient_kernel(const __grid_constant__ GradientParams p) {
  using namespace hopper;
  using Sh = GradientShared<D>;
  extern __shared__ char raw[];
  const Sh sh{(shared_address(raw) + 1023) / 1024 * 1024};
  if (threadIdx.x == 0) {
    constexpr int kWarps = 2 * hopper::kWarpgroup / 32;  // consumers
    for (int i = 0; i < Sh::kRows; ++i) {
      barrier_init(sh.barrier(Sh::a_full + i), 1);
      barrier_init(sh.barrier(Sh::a_empty + i), kWarps);
    }
    for (int i = 0; i < Sh::kStages; ++i) {
      barrier_init(sh.barrier(Sh::b_full + i), 1);
      barrier_init(sh.barrier(Sh::b_empty + i), kOf == Of::keys ? 32 * kWarps : kWarps);
    }
    barrier_init_fence();
  }
  __syncthreads();
  const int warp = __shfl_sync(0xffffffffu, threadIdx.x / 32, 0);
  if (warp < 4) {
    registers_down<24>();
    if (threadIdx.x == 0) gradient::copy<D, kOf>(p, sh);
  } else {
    registers_up<240>();
    gradient::consume<D, kOf>(p, sh, warp / 4 - 1);
  }
}

}  // namespace orrery
