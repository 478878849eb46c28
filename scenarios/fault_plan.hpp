// [faults]: links that slow down or die, and ranks that pause, at stated times.
#pragma once

#include <memory>
#include <vector>

#include "scenarios/reader.hpp"
#include "sim/faults.hpp"

namespace orrery {

struct FaultPlan {
  std::shared_ptr<const Faults> faults;  // null: none
  std::vector<Table> links, pauses;      // where each of them stands
  std::vector<BytesPerSecond> stated;    // bandwidth of each link, before the profile's link_efficiency

  /// Throws InputError if a fault begins when all is over.
  void check_end(Ticks end) const;
};

/// Bandwidths are multiplied by `link_efficiency`, as those of the cluster are. Throws InputError.
FaultPlan read_fault_plan(const Table& table, const Cluster& cluster, double link_efficiency);

}  // namespace orrery
