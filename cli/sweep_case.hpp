// One case of a sweep, from the space to its numbers.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "scenarios/sweep_space.hpp"

namespace orrery {

struct CaseResult {
  std::int64_t number = 0;
  std::string impossible;          // why it cannot be built; empty if it was simulated
  nlohmann::ordered_json scalars;  // those of the report, if it was

  /// For the way from one process to another.
  std::vector<std::uint8_t> packed() const;
  static CaseResult unpacked(const std::vector<std::uint8_t>& bytes);
};

/// Does what `orrery simulate` does. May be called from several threads. Throws only if memory runs out.
CaseResult run_case(const SweepSpace& space, std::int64_t number);

}  // namespace orrery
