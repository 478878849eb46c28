// The kernel behind pi_attention.hpp: attention over a band of lags, one block of three warpgroups an SM, persistent.
//
//   warpgroup 0   warp 0 copies Q and K in, warp 1 V; warps 2 and 3 copy the tile X of one consumer in and out.
//   warpgroups 1, 2   64 queries each. For every step of 128 keys: S = Q K^T of the next step is issued before
//                 O += P V of this one, so the softmax runs while the tensor cores work, and the two warpgroups take
//                 turns at issuing. The first S of the next tile is issued with the last P V of this one, so the
//                 tensor cores have work during the epilogue.
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

template <int D>
__device__ void copy_q_k(const BandParams& p, BandShared<D> sh) {
  using Sh = BandShared<D>;
  Ring<2> q;
  Ring<Sh::kStages> k;
  for (int32_t t = blockIdx.x; t < p.tiles; t += gridDim.x) {
    const Tile tile(p, t);
    const BandMaps& maps = p.maps[tile.kind];
    const Plan plan(tile.band(p), tile.at.first_row);
    const int kv = tile.at.head / p.group * (D / 64);
    barrier_wait(sh.barrier(Sh::q_empty + q.at()), q.phase() ^ 1);
    barrier_expect(sh.barrier(Sh::q_full + q.at()), Sh::kTileBytes);
    load_tile(sh.base + Sh::kQ + q.at() * Sh::kTileBytes, &maps.q, sh.barrier(Sh::q_full + q.at()), tile.at.first_row,
              tile.at.head * (D / 64), tile.at.residue);
    q.advance();
    for (int s = 0; s < plan.steps; ++s) {
      barrier_wait(sh.barrier(Sh::k_empty + k.at()), k.phase() ^ 1);
      barrier_expect(sh.barrier(Sh::k_full + k.at()), Sh::kTileBytes);
      load_tile(sh.base + Sh::kK + k.at() * Sh::kTileBytes, &maps.k, sh.barrier(Sh::k_full + k.at()), plan.first_key(s),
                kv, tile.at.residue);
      k.advance();
    }
  }
}

template <int D>
__device__ void copy_v(const BandParams& p, BandShared<D> sh) {
  using Sh = BandShared<D>;
  Ring<Sh::kStages> v;
  for (int32_t t = blockIdx.x; t < p.tiles; t += gridDim.x) {
    const Tile tile(p, t);
    const Plan plan(tile.band(p), tile.at.first_row);
    for (int s = 0; s < plan.steps; ++s) {
      barrier_wait(sh.barrier(Sh::v_empty + v.at()), v.phase() ^ 1);
      barrier_expect(sh.barrier(Sh::v_full + v.at()), Sh::kTileBytes);
      load_tile(sh.base + Sh::kV + v.at() * Sh::kTileBytes, &p.maps[tile.kind].v, sh.barrier(Sh::v_full + v.at()),
                plan.first_key(s), tile.at.head / p.group * (D / 64), tile.at.residue);
      v.advance();
    }
  }
}

// For each tile: X in (or only leave to write it), then X out.
template <int D, Epilogue kEpilogue>
__device__ void copy_x(const BandParams& p, BandShared<D> sh, int consumer) {
  using Sh = BandShared<D>;
  const uint32_t full = sh.barrier(Sh::x_full + consumer), ready = sh.barrier(Sh::x_ready + consumer);
  const uint32_t x = sh.base + Sh::kX + consumer * Sh::kHalfBytes;
  uint32_t phase = 0;
  for (int32_t t = blockIdx.x; t < p.tiles; t += gridDim.x) {
    const Tile tile(p, t);
    const BandMaps& maps = p.maps[tile.kind];
    const int row = tile.at.first_row + consumer * kHalfRows, head = tile.at.head * (D / 64);
    if constexpr (kEpilogue == Epilogue::store) {
      barrier_arrive(full);
    } else {
      barrier_expect(full, Sh::kHalfBytes);
      if constexpr (kEpilogue == Epilogue::gated_value) {
        load_tile(x, &maps.x, full, row - p.value_lag, tile.at.head / p.group * (D / 64), 0);
      } else {
        load_tile(x, &maps.x, full, row, head, tile.at.residue);
      }
    }
    barrier_wait(ready, phase);
    phase ^= 1;
    store_tile(&maps.o, x, row, head, tile.at.residue);
    store_commit();
    store_wait_read();
  }
  store_wait();
}

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

// What a warpgroup that multiplies knows between two stages.
template <int D>
struct Stream {
  using Sh = BandShared<D>;
  const BandParams& p;
  const Sh sh;
  const int consumer, lane, own_row;
  Consumer<D> c;
  Ring<2> q;
  Ring<Sh::kStages> k, v;
  float factor[2];

  __device__ Stream(const BandParams& params, const Sh& shared, int which)
      : p(params),
        sh(shared),
        consumer(which),
        lane(threadIdx.x % 32),
        own_row(which * kHalfRows + threadIdx.x / 32 % 4 * 16 + threadIdx.x % 32 / 4) {}

  __device__ void wait(int barrier, uint32_t phase) const { barrier_wait(sh.barrier(barrier), phase); }
  __device__ void release(int barrier) const {
    if (lane == 0) barrier_arrive(sh.barrier(barrier));
  }
  __device__ uint32_t q_tile() const {
    return sh.base + Sh::kQ + q.at() * Sh::kTileBytes + consumer * (kHalfRows * 128);
  }
  __device__ uint32_t k_tile() const { return sh.base + Sh::kK + k.at() * Sh::kTileBytes; }
  __device__ uint32_t v_tile() const { return sh.base + Sh::kV + v.at() * Sh::kTileBytes; }

  // Steps that only the other warpgroup needs.
  __device__ void skip_k(int count) {
#pragma unroll 1
    for (; count > 0; --count) {
      wait(Sh::k_full + k.at(), k.phase());
      release(Sh::k_empty + k.at());
      k.advance();
    }
  }
  __device__ void skip_v(int count) {
#pragma unroll 1
    for (; count > 0; --count) {
      wait(Sh::v_full + v.at(), v.phase());
      release(Sh::v_empty + v.at());
      v.advance();
    }
  }

  // The scores of a step and their softmax, and under them the product of the P at hand with V.
  template <bool kMayMask>
  __device__ bool stage(const Step& step, int32_t first_row, int32_t n_k, bool add) {
    c.issue_scores(q_tile(), k_tile());
    wait(Sh::v_full + v.at(), v.phase());
    c.issue_values(v_tile(), add);
    product_wait<1>();
    pin(c.s);
    release(Sh::k_empty + k.at());
    if (kMayMask && step.masked) c.mask(step, first_row + own_row, n_k);
    const bool rescale = c.softmax(p.scale_log2, p.slack, factor);
    execute_before(c.sum[0] + c.sum[1]);  // the softmax under the product
    product_wait<0>();
    pin(c.o);
    pin(c.prob);
    release(Sh::v_empty + v.at());
    k.advance();
    v.advance();
    return rescale;
  }
};

template <int D, Epilogue kEpilogue>
__device__ void consume(const BandParams& p, const BandShared<D>& sh, int consumer) {
  using Sh = BandShared<D>;
  Stream<D> m(p, sh, consumer);
  Consumer<D>& c = m.c;
  uint32_t x_phase = 0;

  int32_t index = blockIdx.x, kind, first_row;  // of the tile
  {
    const Tile tile(p, index);
    kind = tile.kind;
    first_row = tile.at.first_row;
  }
  int32_t s = Plan(p.band[kind], first_row).next(p.band[kind], consumer, 0, true);
  m.skip_k(s);
  m.skip_v(s);
  const Step first_step = Plan(p.band[kind], first_row).step(p.band[kind], consumer, s);
  m.wait(Sh::q_full, 0);
  m.wait(Sh::k_full + m.k.at(), m.k.phase());
  c.issue_scores(m.q_tile(), m.k_tile());
  product_wait<0>();
  pin(c.s);
  m.release(Sh::k_empty + m.k.at());
  m.k.advance();
  c.mask(first_step, first_row + m.own_row, p.band[kind].n_k);
  c.top[0] = c.top[1] = -INFINITY;
  c.sum[0] = c.sum[1] = 0;
  c.softmax(p.scale_log2, p.slack, m.factor);
  c.pack();

  bool add = false;  // O holds something of this tile
  while (true) {
    // P is of step s of the tile. S is of the next step that this warpgroup needs, be it of the next tile.
    const Plan plan(p.band[kind], first_row);
    const int32_t plain_end = plan.plain_end(p.band[kind], consumer);
#pragma unroll 1
    for (; s + 1 < plain_end; ++s) {
      m.wait(Sh::k_full + m.k.at(), m.k.phase());
      if (m.template stage<false>(Step{}, first_row, 0, add)) c.scale_o(m.factor);
      c.pack();
      add = true;
    }
    Step step;
    int32_t next_s = plan.next(p.band[kind], consumer, s + 1, false);
    int skip = next_s - s - 1;
    m.skip_k(skip);
    const bool last = next_s == plan.steps;
    const int32_t done = index;
    float done_top[2], done_sum[2], logit[2] = {};
    if (last) {
      m.release(Sh::q_empty + m.q.at());
      m.q.advance();
      if constexpr (kEpilogue == Epilogue::gated_value || kEpilogue == Epilogue::gated_output) {
        const Tile tile(p, done);
#pragma unroll
        for (int r = 0; r < 2; ++r) {
          const int32_t i = first_row + m.own_row + 8 * r;
          if (i < p.band[kind].n_q) {
            logit[r] = __ldg(p.gate_logit + tile.at.head * p.n + int64_t(i) * p.period + tile.at.residue);
          }
        }
      }
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        done_top[r] = c.top[r];
        done_sum[r] = c.sum[r];
        c.top[r] = -INFINITY;
        c.sum[r] = 0;
      }
      index += gridDim.x;
      const Tile next(p, index);
      kind = next.kind;
      first_row = next.at.first_row;
      const Plan next_plan(p.band[kind], first_row);
      next_s = next_plan.next(p.band[kind], consumer, 0, true);
      step = next_plan.step(p.band[kind], consumer, next_s);
      if (index < p.tiles) {
        m.skip_k(next_s);
        skip += next_s;
        m.wait(Sh::q_full + m.q.at(), m.q.phase());
      }
    } else {
      step = plan.step(p.band[kind], consumer, next_s);
    }
    const int32_t n_k = p.band[kind].n_k;
    // After the last tile these scores are of no use, but a branch around them would serialise the products.
    if (index < p.tiles) m.wait(Sh::k_full + m.k.at(), m.k.phase());
    // The compiler must not see that the branch after the stage is the one before it: it would make two copies of
    // the stage, and with both the registers do not suffice to keep products in flight.
    int finished = last;
    asm volatile("" : "+r"(finished));
    const bool rescale = m.template stage<true>(step, first_row, n_k, add);
    m.skip_v(skip);
    s = next_s;
    add = !finished;
    if (finished) {
      finish<D, kEpilogue>(p, sh, Tile(p, done), c, consumer, done_top, done_sum, logit, x_phase);
      if (index >= p.tiles) break;
    } else if (rescale) {
      c.scale_o(m.factor);
    }
    c.pack();
  }
}

}  // namespace band

template <int D, Epilogue kEpilogue>
__global__ void __launch_bounds__(kBandThreads, 1) band_attention_kernel(const __grid_constant__ BandParams p) {
  using namespace hopper;
  using Sh = BandShared<D>;
  extern __shared__ char raw[];
  const Sh sh{(shared_address(raw) + 1023) / 1024 * 1024};
  if (threadIdx.x == 0) {
    constexpr int kWarps = 2 * hopper::kWarpgroup / 32;  // consumers
    for (int i = 0; i < 2; ++i) {
      barrier_init(sh.barrier(Sh::q_full + i), 1);
      barrier_init(sh.barrier(Sh::q_empty + i), kWarps);
      barrier_init(sh.barrier(Sh::x_full + i), 1);
      barrier_init(sh.barrier(Sh::x_ready + i), kWarps / 2);
    }
    for (int i = 0; i < Sh::kStages; ++i) {
      barrier_init(sh.barrier(Sh::k_full + i), 1);
      barrier_init(sh.barrier(Sh::k_empty + i), kWarps);
      barrier_init(sh.barrier(Sh::v_full + i), 1);
      barrier_init(sh.barrier(Sh::v_empty + i), kWarps);
    }
    barrier_init_fence();
  }
  __syncthreads();
  const int warp = __shfl_sync(0xffffffffu, threadIdx.x / 32, 0);
  if (warp < 4) {
    registers_down<24>();
    if (threadIdx.x % 32 != 0) return;
    if (warp == 0) {
      band::copy_q_k<D>(p, sh);
    } else if (warp == 1) {
      band::copy_v<D>(p, sh);
    } else if (kEpilogue != Epilogue::merged_f32) {
      band::copy_x<D, kEpilogue>(p, sh, warp - 2);
    }
  } else {
    registers_up<240>();
    band::consume<D, kEpilogue>(p, sh, warp / 4 - 1);
  }
}

}  // namespace orrery
