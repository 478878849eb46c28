// What a cluster that was found would gain from a change, simulated anew.
#pragma once

#include <string>
#include <vector>

#include "scenarios/size_search.hpp"

namespace orrery {

struct WhatIf {
  std::string change;
  Seconds time;      // of a step; the plan stays what it is but for the change
  std::string note;  // empty, or what else changes
};

/// Faster parts of the hardware, more memory, other layouts of the tokens, and attention to fewer keys. Changes that
/// the plan has no use for (a network, on one node) are left out.
std::vector<WhatIf> what_ifs(const SizeProblem& problem, const Sized& sized, int threads = 1);

}  // namespace orrery
