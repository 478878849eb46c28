// Who reads and writes which rows while an action runs: finds reads of unfinished or overwritten rows and double
// writes.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "validate/tensors.hpp"

namespace orrery {

/// Rows and heads of one buffer on one rank.
struct Region {
  CheckedTensor* tensor = nullptr;
  std::vector<Index> tokens;
  HeadRange heads;
  std::int64_t use = 0;  // Buffer::use
  std::string name;

  template <class Visit>
  void for_each(Visit visit) const {
    for (const Index token : tokens) {
      for (int head = heads.first; head < heads.first + heads.count; ++head) visit(token, head);
    }
  }
};

/// What a running action reads, with the versions it saw, and what it overwrites. Both throw FunctionalError, which
/// names the op (`who`) and the buffer.
struct Access {
  std::vector<Region> reads, writes;
  std::vector<std::uint32_t> versions;

  void begin(const std::string& who);
  void end(const std::string& who);
};

}  // namespace orrery
