// A measured run with time stamps of its ops beside the simulated one: which term is wrong.
#pragma once

#include <iosfwd>
#include <string>
#include <vector>

#include "cost_models/measured_table.hpp"
#include "sim/units.hpp"

namespace orrery {

/// One op of both timelines; seconds from the start of the rank.
struct OpResidual {
  int rank = 0;
  int step = 0;
  std::string op;  // as measured
  double measured_start_s = 0, measured_end_s = 0;
  double simulated_start_s = 0, simulated_end_s = 0;
  bool simulated = false;  // the simulation has such an op

  double difference_s() const { return (simulated_end_s - simulated_start_s) - (measured_end_s - measured_start_s); }
};

struct RunResidual {
  std::string name;
  double measured_s = 0, simulated_s = 0;
  std::vector<OpResidual> ops;
};

/// The runs of a file with columns rank, step, op, start_us, end_us and run_us behind those of a run. Ops of a kind are
/// matched in order of start, on each rank apart.
std::vector<RunResidual> residuals(const MeasuredTable& table, const std::string& profile);

/// A Chrome trace: for each rank a process with the measured ops and one with the simulated ones; every op carries the
/// difference.
void write_trace(std::ostream& out, const RunResidual& run);

}  // namespace orrery
