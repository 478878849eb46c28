// What a pattern costs: query-key pairs, FLOPs, and the bytes that travel if the sequence is cut into one contiguous
// piece for every GPU and each fetches just the rows it needs (schedule halo).
#pragma once

#include <optional>
#include <vector>

#include "scenarios/reach_problem.hpp"

namespace orrery {

struct ReachHardware {
  int heads = 1, kv_heads = 1, head_dim = 1;
  double element_bytes = 2;
  Index ranks = 1;
};

/// Means over the layers, forward pass. The primitives of one stage are united: a pair that two of them name counts
/// once. Where data decides, pairs are those of a uniform random choice (the exact mean) and bytes those of the rows
/// some input could ask for. A summary costs a key for each earlier chunk; a state costs no pairs and no bytes.
struct ReachCost {
  double pairs_per_token = 0;                          // and head
  double flops_per_token = 0;                          // 4 * head_dim * heads for each pair: QK^T and PV
  double bytes_busiest_rank = 0, bytes_all_ranks = 0;  // received
};

/// Throws std::invalid_argument if the ranks do not divide the tokens, and for more tokens than can be counted: 2^31,
/// or about a minute's worth where blocks or choices are united query by query.
ReachCost reach_cost(const ReachPattern& pattern, const ReachSequence& sequence, const ReachHardware& hardware);

}  // namespace orrery
