// The cheapest (k, pi) of a reading of pi-Attention that lets the last of N tokens see all of them within L layers.
#pragma once

#include <string_view>

#include "scenarios/reach_pattern.hpp"

namespace orrery {

struct CheapestPair {
  PiParameters parameters;
  Index pairs = 0;            // query-key pairs of all layers, of one head: the FLOPs are 4 * head_dim times as many
  Index pairs_no_skip = 0;    // of the window alone that covers as much
  Index k_no_skip = 0;        // and its k
  int layers_needed = 1;      // until it covers
  double flops_per_pair = 0;  // of all heads, if the caller knows a model: 4 * head_dim * heads
};

/// Exact: no pair costs less; of equal cost, the one with the smaller k, then the smaller pi. Throws
/// std::invalid_argument for tokens not in 1 to 2^31, layers < 1, and rules that are not a window and one skip of pi
/// (I, C, D).
CheapestPair cheapest_pair(std::string_view rule, Index tokens, int layers);

}  // namespace orrery
