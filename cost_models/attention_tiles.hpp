// How long the tiles of one attention kernel keep the SMs busy.
//
// A thread block takes one list of score tiles: forward all key tiles of one query tile, backward all query tiles of
// one key tile. An SM runs one thread block at a time and takes the next list when it is done, in the order of the
// grid.
#pragma once

#include <cstdint>

namespace orrery {

/// Per head. Lists are of equal length (full blocks) or grow from one to the next up to a longest one (causal blocks,
/// windows), which `tiles` decides: lists * longest means equal.
struct TileLists {
  std::int64_t lists = 0;   // thread blocks
  double longest = 0;       // tiles a list can have at most
  double tiles = 0;         // of all lists
  double slope = 1;         // tiles that a list has more than the one before it, as far as they grow
  double lead = 0;          // tiles that all lists have before they begin to grow: keys in front of the queries
  double masked_tiles = 0;  // of these, tiles that hold masked pairs
  std::int64_t heads = 0;   // heads times batch
  bool longest_first = false;

  bool equal() const { return tiles >= longest * static_cast<double>(lists) * (1 - 1e-9); }
};

/// Cycles of one thread block: list_start + full_tile for each tile + masked_tile - full_tile for each masked one.
struct TileCycles {
  double list_start = 0;  // loading Q, filling the pipeline, writing the result
  double full_tile = 0;
  double masked_tile = 0;
};

/// Cycles from the start of the first thread block to the end of the last one on `sms` SMs, and how many of these at
/// the end leave `idle_sms` or more of them without work. Up to 2^14 lists exactly, by list scheduling; beyond, the
/// work of all SMs plus the ragged end that the same lists have for fewer heads.
struct Makespan {
  double cycles = 0;
  double tail = 0;
  double busy = 0;  // that an SM has work, in the mean over all
};
Makespan makespan(const TileLists& lists, const TileCycles& cycles, int sms, int idle_sms = 1);

/// How many times all SMs together wait for the first loads and last stores of their lists. Lists that start together
/// share the memory's rate; those of equal length drift apart, e-fold in `drift` waves, others after the first. Fewer
/// lists than SMs share it among fewer.
double starts_in_step(const TileLists& lists, int sms, double drift);

}  // namespace orrery
