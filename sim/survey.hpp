// One look at every shape of a program before it runs: what it uses, and whether anything in it depends on what else
// is active at the time.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "sim/block_store.hpp"
#include "sim/cluster.hpp"
#include "sim/trunks.hpp"

namespace orrery {

struct Survey {
  /// Why finish times do not follow from the order of the ops alone; empty if they do.
  std::string contention;
  /// All distances between a rank and others it waits for, signals, or moves data between, ascending.
  std::vector<std::int32_t> distances;
  std::vector<bool> takes_time;  // by category: any op that does not end when it begins
  std::vector<bool> one_raiser;  // by signal: raised by ops of one stream, the same number of ranks away, one by one
  bool has_launches = false;
  std::array<bool, streams_per_rank> uses_stream{};
  std::uint64_t ops = 0;              // of the whole program
  bool holds_sms = false;             // any transfer
  bool slows_transfers = false;       // there are transfers that hold SMs, and compute that they are slower beside
  bool hbm_matters = false;           // there are transfers, and compute that they slow down
  std::vector<bool> is_private_link;  // all flows over it come one after the other, from one stream of one rank
  Trunks trunks;
};

/// Throws what BlockStore::acquire throws.
Survey survey(BlockStore& blocks, const Cluster& cluster);

}  // namespace orrery
