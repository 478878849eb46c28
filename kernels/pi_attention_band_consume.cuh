// The order in which a warpgroup of the band kernel takes its steps and tiles.
#pragma once
#include "kernels/pi_attention_band_softmax.cuh"

namespace orrery::band {

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

}  // namespace orrery::band
