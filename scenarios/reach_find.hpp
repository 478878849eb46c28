// The cheapest (k, pi) of rule A that lets the last of N tokens see all of them within L layers.
#pragma once

#include "scenarios/reach_pattern.hpp"

namespace orrery {

struct CheapestPair {
  PiParameters parameters;
  Index pairs = 0;            // query-key pairs of one layer and head: the FLOPs are 4 * head_dim times as many
  Index pairs_no_skip = 0;    // of the window alone that covers as much
  int layers_needed = 1;      // until it covers
  double flops_per_pair = 0;  // of all heads, if the caller knows a model: 4 * head_dim * heads
};

/// Pairs of one layer of rule A on `tokens` tokens: queries see min(i, k) earlier keys, themselves, and the key pi back
/// if there is one outside the window.
Index rule_a_pairs(PiParameters parameters, Index tokens);

/// Exact: no pair costs less; of equal cost, the one with the smaller k, then the smaller pi. Throws
/// std::invalid_argument for tokens not in 1 to 2^31 or layers < 1.
CheapestPair cheapest_pair(Index tokens, int layers);

}  // namespace orrery
