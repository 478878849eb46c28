// What the first warpgroup of the band kernel does: tiles in and out of shared memory.
#pragma once
#include "kernels/pi_attention_band.cuh"

namespace orrery::band {

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

}  // namespace orrery::band
