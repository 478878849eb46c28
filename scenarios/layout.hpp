// Which group of ranks holds which tokens.
#pragma once

#include <span>
#include <string_view>
#include <vector>

#include "scenarios/token_set.hpp"

namespace orrery {

struct LayoutRequest {
  Index tokens = 0;
  Index groups = 1;  // members of the ring; each gets the same number of tokens
  Index period = 1;  // residue only
};

/// A row of the table of layouts. `place` returns one token set per group; every token is in exactly one of them, all
/// sets have the same size, and a group keeps its tokens in ascending order, as kernels with a causal flag need them.
/// It throws std::invalid_argument if the tokens do not divide.
struct Layout {
  std::string_view name;
  std::string_view description;
  std::vector<TokenSet> (*place)(const LayoutRequest&);
};

std::span<const Layout> layouts();

}  // namespace orrery
