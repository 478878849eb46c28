// The products of one warpgroup of the band kernel, their softmax, and its result to memory.
#pragma once
#include "kernels/pi_attention_band.cuh"

namespace orrery::band {

// One warpgroup's side of the products and the softmax. `first_row` is this thread's first row in its 64.
template <int D>
struct Consumer {
  static constexpr int kColumns = kTileRows * 128;  // bytes of 64 columns of Q, K or V
  static constexpr int kO = D / 2;
  float s[64], o[kO];  // S (then exp of it) and O of rows r and r + 8
  uint32_t prob[32];   // P in bf16, the A operand of P V
  float top[2], sum[2];

  // S = Q K^T, asynchronously.
  __device__ void issue_scores(uint32_t q, uint32_t k) {
    product_fence();
#pragma unroll
    for (int i = 0; i < D / 16; ++i) {
      const uint32_t at = i / 4 * kColumns + i % 4 * 32;
      product<128, 0, 0>(s, row_operand(q + at), row_operand(k + at), i > 0);
    }
    product_commit();
  }

  // O += P V, asynchronously; `add` false: O = P V.
  __device__ void issue_values(uint32_t v, bool add) {
    product_fence();
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      product<D, 1>(o, prob + 4 * i, column_operand(v + i * 2048, kColumns), add || i > 0);
    }
    product_commit();
  }

  // Of a row a thread holds columns 8 f + e + its offset, f = 0 .. 15, e = 0, 1, as bits 2 f + e of a word: how many of
  // them lie below `column`.
  __device__ static int bits_below(int column) {
    column = min(max(column, 0), kTileRows);
    return column / 8 * 2 + min(column % 8, 2);
  }
  __device__ void mask(const Step& step, int32_t row, int32_t n_k) {
    const int offset = step.first_key + threadIdx.x % 4 * 2;
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const int32_t i = row + 8 * r;
      const int first = bits_below(max(0, i - step.lag_max) - offset);
      const int end = bits_below(min(n_k - 1, i - step.lag_min) + 1 - offset);
      const auto visible = static_cast<uint32_t>((~uint64_t{0} << first) & ~(~uint64_t{0} << end));
#pragma unroll
      for (int b = 0; b < 32; ++b) {
        if (!(visible & (1u << b))) s[b / 2 * 4 + 2 * r + b % 2] = -INFINITY;
      }
    }
  }

  // s := exp2(scale (s - top)), and its sums. The reference `top` follows the largest score only when that has grown
  // by 2^8 (as FlashAttention-4 does): the result is the same, bf16 has the range, and O is hardly ever rescaled.
  // True if O must be multiplied by `factor`.
  __device__ bool softmax(float scale, float slack, float (&factor)[2]) {
    float most[2] = {-INFINITY, -INFINITY};
#pragma unroll
    for (int f = 0; f < 16; ++f) {
      most[0] = fmaxf(most[0], fmaxf(s[4 * f], s[4 * f + 1]));
      most[1] = fmaxf(most[1], fmaxf(s[4 * f + 2], s[4 * f + 3]));
    }
    most[0] = quad_max(most[0]);
    most[1] = quad_max(most[1]);
    const bool grown0 = most[0] > top[0] + slack, grown1 = most[1] > top[1] + slack;
    const bool rescale = __any_sync(0xffffffffu, grown0 || grown1);
    if (rescale) {
      factor[0] = grown0 ? exp2_fast(scale * (top[0] - most[0])) : 1.0f;
      factor[1] = grown1 ? exp2_fast(scale * (top[1] - most[1])) : 1.0f;
      if (grown0) top[0] = most[0];
      if (grown1) top[1] = most[1];
      sum[0] *= factor[0];
      sum[1] *= factor[1];
    }
    const float shift0 = top[0] == -INFINITY ? 0 : scale * top[0];
    const float shift1 = top[1] == -INFINITY ? 0 : scale * top[1];
    float part[4] = {};
#pragma unroll
    for (int f = 0; f < 16; ++f) {
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        s[4 * f + e] = exp2_fast(fmaf(s[4 * f + e], scale, -shift0));
        s[4 * f + 2 + e] = exp2_fast(fmaf(s[4 * f + 2 + e], scale, -shift1));
        part[e] += s[4 * f + e];
        part[2 + e] += s[4 * f + 2 + e];
      }
    }
    sum[0] += part[0] + part[1];
    sum[1] += part[2] + part[3];
    return rescale;
  }

  __device__ void pack() {
#pragma unroll
    for (int i = 0; i < 32; ++i) prob[i] = pack_bf16(s[2 * i], s[2 * i + 1]);
  }
  __device__ void scale_o(const float (&factor)[2]) {
#pragma unroll
    for (int i = 0; i < kO; ++i) o[i] *= factor[i / 2 % 2];
  }
};

// Row sums and O of a finished tile to memory.
template <int D, Epilogue kEpilogue>
__device__ void finish(const BandParams& p, const BandShared<D>& sh, const Tile& tile, Consumer<D>& c, int consumer,
                       const float (&top)[2], const float (&sum)[2], const float (&logit)[2], uint32_t& x_phase) {
  using Sh = BandShared<D>;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4;
  const int local = warp * 16 + lane / 4;
  const int32_t row = tile.at.first_row + consumer * kHalfRows + local;
  const int32_t n_q = p.band[tile.kind].n_q;
  float own[2], other[2];  // O := own * O + other * X
  bool inside[2];
  int64_t token[2];
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const int32_t i = row + 8 * r;
    inside[r] = i < n_q;
    token[r] = int64_t(i) * p.period + tile.at.residue;
    const float total = quad_sum(sum[r]);
    const bool empty = !(total > 0);
    float lse = empty ? -INFINITY : 0.6931471805599453f * (top[r] * p.scale_log2 + __log2f(total));
    float* lse_at = p.lse + int64_t(tile.at.head) * p.n + token[r];
    float weight = 1, weight_other = 0;
    if constexpr (kEpilogue == Epilogue::gated_value || kEpilogue == Epilogue::gated_output) {
      const float gate = __fdividef(1.0f, 1.0f + __expf(-logit[r]));
      const bool both = kEpilogue == Epilogue::gated_value ? i >= p.value_lag : !empty;
      weight = kEpilogue == Epilogue::gated_value ? (both ? gate : 1.0f) : (both ? 1.0f - gate : 0.0f);
      weight_other = 1.0f - weight;
    }
    if constexpr (kEpilogue == Epilogue::merged_output || kEpilogue == Epilogue::merged_f32) {
      const float before = inside[r] && !p.first ? *lse_at : -INFINITY;
      __syncwarp();  // all four threads of the row have read it
      const float most = fmaxf(lse, before);
      if (most > -INFINITY) {
        const float mine = __expf(lse - most), its = __expf(before - most);
        weight = __fdividef(mine, mine + its);
        weight_other = __fdividef(its, mine + its);
        lse = most + __logf(mine + its);
      }
    }
    own[r] = empty ? 0.0f : weight * __fdividef(1.0f, total);
    other[r] = weight_other;
    if (inside[r] && lane % 4 == 0) *lse_at = lse;
  }
  if constexpr (kEpilogue == Epilogue::merged_f32) {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      if (!inside[r]) continue;
      float* out = p.o_f32 + (token[r] * p.heads + tile.at.head) * D + lane % 4 * 2;
      float2 before[D / 8];
      if (!p.first) {
#pragma unroll
        for (int f = 0; f < D / 8; ++f) before[f] = *reinterpret_cast<const float2*>(out + 8 * f);
      }
#pragma unroll
      for (int f = 0; f < D / 8; ++f) {
        float2 y = make_float2(own[r] * c.o[4 * f + 2 * r], own[r] * c.o[4 * f + 2 * r + 1]);
        if (!p.first) {
          y.x += other[r] * before[f].x;
          y.y += other[r] * before[f].y;
        }
        *reinterpret_cast<float2*>(out + 8 * f) = y;
      }
    }
  } else {
    barrier_wait(sh.barrier(Sh::x_full + consumer), x_phase);
    x_phase ^= 1;
    const uint32_t x = sh.base + Sh::kX + consumer * Sh::kHalfBytes + local * 128 + lane % 4 * 4;
#pragma unroll
    for (int f = 0; f < D / 8; ++f) {
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        const uint32_t at = x + f / 8 * (kHalfRows * 128) + r * 1024 + ((f % 8) ^ (local % 8)) * 16;
        float low = own[r] * c.o[4 * f + 2 * r], high = own[r] * c.o[4 * f + 2 * r + 1];
        if constexpr (kEpilogue != Epilogue::store) {
          uint32_t before;
          asm volatile("ld.shared.b32 %0, [%1];" : "=r"(before) : "r"(at));
          const float2 b = unpack_bf16(before);
          low = fmaf(other[r], b.x, low);
          high = fmaf(other[r], b.y, high);
        }
        asm volatile("st.shared.b32 [%0], %1;" ::"r"(at), "r"(pack_bf16(low, high)) : "memory");
      }
    }
    fence_async_proxy();
    __syncwarp();
    if (lane == 0) barrier_arrive(sh.barrier(Sh::x_ready + consumer));
  }
}

}  // namespace orrery::band
