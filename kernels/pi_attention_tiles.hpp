// Which keys a tile of queries reads, in which order, and where it must mask: integers only, the same code on the CPU
// (where the tests compare it with the definition, pair by pair) and in the kernels.
#pragma once
#include <cstdint>

#ifdef __CUDACC__
#define ORRERY_HOST_DEVICE __host__ __device__
#else
#define ORRERY_HOST_DEVICE
#endif

namespace orrery {

constexpr int kTileRows = 128;           // queries of a block's tile, and keys of a step
constexpr int kHalfRows = 64;            // queries of one warpgroup
constexpr int32_t kUnbounded = 1 << 29;  // a lag no sequence reaches

// Query i sees key j if lag_min <= i - j <= lag_max and 0 <= j < n_k. Optionally also the single key i - extra_lag.
//   window k: 0..k-1;  causal: 0..unbounded;  all keys: -unbounded..unbounded;  i - m p on a strided view: m.
struct Band {
  int32_t n_q = 0, n_k = 0;
  int32_t lag_min = 0, lag_max = 0;
  int32_t extra_lag = 0;  // 0: none. Must lie outside lag_min..lag_max, so that no key counts twice.

  // The same pairs seen from the keys.
  ORRERY_HOST_DEVICE Band transposed() const { return {n_k, n_q, -lag_max, -lag_min, -extra_lag}; }

  ORRERY_HOST_DEVICE bool sees(int32_t i, int32_t j) const {
    if (i < 0 || i >= n_q || j < 0 || j >= n_k) return false;
    return (i - j >= lag_min && i - j <= lag_max) || (extra_lag != 0 && i - j == extra_lag);
  }
};

// One step of one warpgroup: column c of row i is visible if
// max(0, i - lag_max) <= first_key + c <= min(n_k - 1, i - lag_min).
struct Step {
  int32_t first_key;
  int32_t lag_min, lag_max;
  bool masked;  // some column of some row is invisible
};

// The steps of the tile at query `first_row`: from its last keys to its first, then those of the extra key. Both
// warpgroups of a block take the same steps in the same order, but a warpgroup may not need the first or the last.
// kStep: keys of a step. kAlign: its first key is a multiple of that (1: wherever fewest steps are needed).
template <int kStep, int kAlign>
struct TilePlan {
  int32_t first_row = 0, top = 0, extra_top = 0;  // one past the last key of the first step of either kind
  int32_t band_steps = 0, steps = 0;

  ORRERY_HOST_DEVICE static int32_t least(int32_t a, int32_t b) { return a < b ? a : b; }
  ORRERY_HOST_DEVICE static int32_t most(int32_t a, int32_t b) { return a > b ? a : b; }
  ORRERY_HOST_DEVICE static int32_t round_up(int32_t a, int32_t to) { return (a + to - 1) / to * to; }

  ORRERY_HOST_DEVICE TilePlan(const Band& band, int32_t tile_first_row) : first_row(tile_first_row) {
    const int32_t end = round_up(band.n_k, kStep);
    top = least(round_up(most(0, first_row + kTileRows - band.lag_min), kAlign), end);
    // At least one step, if need be wholly masked: a tile without keys needs no code of its own.
    band_steps = most(1, round_up(top - most(0, first_row - band.lag_max), kStep) / kStep);
    steps = band_steps;
    const int32_t extra = first_row - band.extra_lag;  // the first row's key
    if (band.extra_lag == 0 || extra + kTileRows <= 0 || extra >= band.n_k) return;
    extra_top = least(round_up(extra + kTileRows, kAlign), end);
    steps += (extra_top - extra + kStep - 1) / kStep;
  }
  ORRERY_HOST_DEVICE bool is_extra(int32_t s) const { return s >= band_steps; }
  ORRERY_HOST_DEVICE int32_t first_key(int32_t s) const {
    return is_extra(s) ? extra_top - (s - band_steps + 1) * kStep : top - (s + 1) * kStep;
  }
  // Keys that some row of the warpgroup sees, if first <= last.
  struct Range {
    int32_t first, last;
  };
  ORRERY_HOST_DEVICE Range range(const Band& band, int warpgroup, int32_t s) const {
    const int32_t row = first_row + warpgroup * kHalfRows, last_row = row + kHalfRows - 1;
    return {most(0, row - (is_extra(s) ? band.extra_lag : band.lag_max)),
            least(band.n_k - 1, last_row - (is_extra(s) ? band.extra_lag : band.lag_min))};
  }
  ORRERY_HOST_DEVICE bool needs(const Band& band, int warpgroup, int32_t s) const {
    const Range r = range(band, warpgroup, s);
    const int32_t first = first_key(s);
    return most(first, r.first) <= least(first + kStep - 1, r.last);
  }
  // The first step >= s that the warpgroup must take; `steps` if none. It takes one at least.
  ORRERY_HOST_DEVICE int32_t next(const Band& band, int warpgroup, int32_t s, bool none_yet) const {
    while (s < steps && !needs(band, warpgroup, s) && !(none_yet && s == steps - 1)) ++s;
    return s;
  }
  // Steps 1 .. plain_end - 1 are needed, whole and not masked (kStep = kTileRows, kAlign = 1 only).
  ORRERY_HOST_DEVICE int32_t plain_end(const Band& band, int warpgroup) const {
    static_assert(kStep == kTileRows && kAlign == 1, "else the first two steps may be masked at their end");
    return (top - most(0, first_row + (warpgroup + 1) * kHalfRows - 1 - band.lag_max)) / kStep;
  }
  ORRERY_HOST_DEVICE Step step(const Band& band, int warpgroup, int32_t s) const {
    Step out;
    out.first_key = first_key(s);
    out.lag_min = is_extra(s) ? band.extra_lag : band.lag_min;
    out.lag_max = is_extra(s) ? band.extra_lag : band.lag_max;
    const int32_t row = first_row + warpgroup * kHalfRows, last_row = row + kHalfRows - 1;
    const int32_t all_first = most(0, last_row - out.lag_max), all_last = least(band.n_k - 1, row - out.lag_min);
    out.masked = out.first_key < all_first || out.first_key + kStep - 1 > all_last;
    return out;
  }
};

// Division of 0 .. 2^31 - 1 by a constant that is known only at run time, as a multiplication (Granlund, Montgomery,
// PLDI 1994): a warp that divides waits ten times longer.
struct Divisor {
  int32_t by = 1;
  uint32_t factor = 0, shift = 0;

  Divisor() = default;
  explicit Divisor(int32_t divisor) : by(divisor) {
    uint32_t bits = 0;  // ceil(log2(by))
    while ((int64_t{1} << bits) < by) ++bits;
    factor = static_cast<uint32_t>(((uint64_t{1} << (31 + bits)) + static_cast<uint64_t>(by) - 1) /
                                   static_cast<uint64_t>(by));
    shift = bits - 1;  // unused with by = 1
  }
  ORRERY_HOST_DEVICE int32_t quotient(int32_t x) const {
    const auto high = static_cast<uint32_t>(uint64_t{static_cast<uint32_t>(x)} * factor >> 32);
    return by == 1 ? x : static_cast<int32_t>(high >> shift);
  }
};

// The order of tiles: residues of the strided view, then sections of heads whose keys and values share L2, then tiles
// of queries from the last (which under a causal mask is the longest) to the first, then the heads of the section.
struct TileOrder {
  Divisor q_tiles, section_heads, sections;
  int32_t residues = 1;

  struct At {
    int32_t residue, head, first_row;
  };
  ORRERY_HOST_DEVICE int64_t tiles() const { return int64_t(residues) * sections.by * q_tiles.by * section_heads.by; }
  ORRERY_HOST_DEVICE At at(int32_t index) const {  // below tiles(), which must be below 2^31
    const int32_t row = section_heads.quotient(index), section = q_tiles.quotient(row);
    const int32_t residue = sections.quotient(section);
    return {residue, (section - residue * sections.by) * section_heads.by + index - row * section_heads.by,
            (q_tiles.by - 1 - (row - section * q_tiles.by)) * kTileRows};
  }
};

}  // namespace orrery
