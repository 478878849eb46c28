// A measured run with time stamps of its ops beside the simulated one: which term is wrong.
#pragma once

#include <iosfwd>
#include <optional>
#include <string>
#include <vector>

#include "cost_models/measured_table.hpp"

namespace orrery {

/// Seconds from the start of the rank; `takes_s` leaves out pauses between the ops of a stretch.
struct Stretch {
  double start_s = 0, end_s = 0, takes_s = 0;
};

/// What a rank does in a step of a pass, in both timelines, or in one alone.
struct OpResidual {
  int rank = 0;
  int step = 0;
  std::string op;    // as measured, "2 x accumulate" if one simulated op is several; of the simulation alone: its kind
  std::string kind;  // what it was matched by
  std::optional<Stretch> measured, simulated;

  bool is_compared() const { return measured && simulated; }
  double difference_s() const { return simulated->takes_s - measured->takes_s; }
};

/// Rows that agree in every column before `rank`.
struct StampedRun {
  std::string name;
  double measured_s = 0;
  std::vector<std::size_t> rows;
};

struct RunResidual {
  std::string name;
  double measured_s = 0, simulated_s = 0;
  std::vector<OpResidual> ops;  // by start
};

/// The runs of a file with columns rank, step, op, start_us, end_us and run_us behind those of a run, but for those
/// that no scenario is. Throws MeasuredFileError if there is none.
std::vector<StampedRun> stamped_runs(const MeasuredTable& table);

/// Simulates the run. Ops of a rank that do the same (the same kernel, or the same transfer) in the same pass are
/// matched step by step if the simulation has these steps, and in order of start; where their numbers differ, as many
/// of the one are matched with each of the other. What is in one timeline alone stands alone.
RunResidual residual(const MeasuredTable& table, const StampedRun& run, const std::string& profile);

/// A Chrome trace: for each rank a process with the measured ops and one with the simulated ones; an op that is in both
/// carries the difference.
void write_trace(std::ostream& out, const RunResidual& run);

}  // namespace orrery
