// What a simulation says, in physical units: the numbers behind every output format.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "scenarios/intensity.hpp"
#include "scenarios/memory.hpp"
#include "scenarios/scenario.hpp"
#include "scenarios/step_interval.hpp"
#include "scenarios/step_power.hpp"
#include "scenarios/step_program.hpp"
#include "sim/simulate.hpp"

namespace orrery {

/// compute + exposed_comm + idle = step time, for every rank.
struct RankReport {
  Seconds compute, comm, exposed_comm, idle;
  Bytes sent, received;
  Flops useful, executed;
  std::vector<Seconds> stream_busy;  // by Stream
};

struct PhaseReport {
  std::string name;
  Seconds start, end;
  Seconds compute;  // mean over ranks
  Seconds comm;     // mean over ranks, time of transfer ops
};

struct LinkReport {
  std::string name;
  Bytes bytes;
  Seconds busy;
  double utilisation = 0;  // bytes / (bandwidth * step time), inside a node less the profile's link_efficiency
};

struct Share {
  std::string name;
  Seconds time;
  double fraction = 0;  // of the step time
};

struct ConstantReport {
  std::string name;
  std::string value;
  std::string provenance;
  std::string source;
};

struct Report {
  // Means over ranks; compute + exposed_comm + idle = step_time.
  Seconds step_time, compute, comm, exposed_comm, idle;
  double overlap_fraction = 1;  // 1 - exposed_comm / comm
  Bytes sent_by_busiest_rank, sent_in_all;
  Flops useful, executed;  // all ranks
  /// useful / (step time * peak * ranks). Times are whole picoseconds, so a kernel at the very peak may be half a
  /// picosecond short: only there can this exceed 1, by half a picosecond over the duration of a kernel.
  double mfu = 0;
  double imbalance = 1;  // compute time of the busiest rank / mean
  Intensities intensity;
  std::optional<Memory> memory;          // of the stage that needs most, at its peak; whole steps
  std::string memory_peak;               // when that is
  std::optional<StepInterval> interval;  // of step_time, if the profile has error bands
  std::optional<StepPower> power;        // if the profile has a power model
  std::vector<PhaseReport> phases;
  std::vector<Share> critical_path;
  std::vector<LinkReport> links;  // those that carried anything
  std::vector<RankReport> ranks;
  std::vector<ConstantReport> constants;
  std::vector<std::string> left_out;  // what the prediction neglects
  std::string engine;                 // which found the times, and why none that is cheaper
  std::string engine_reason;
  std::uint64_t events = 0;  // or ops worked off
  double wall_s = 0;
};

Report summarize(const Scenario& scenario, const AttentionProgram& program, const PoweredResult& run, double wall_s);
Report summarize(const Scenario& scenario, const StepProgram& program, const PoweredResult& run, double wall_s);

/// Simulates the scenario's program with its faults and, unless `options` says otherwise, its slow ranks and jitter.
/// Throws InputError if the run is over before a fault begins.
SimulationResult simulate(const Program& program, const Scenario& scenario, SimulationOptions options = {});

/// From a scenario to its numbers: builds the program, simulates it, summarizes. May be called from several threads.
Report predict(const Scenario& scenario, const SimulationOptions& options = {});

}  // namespace orrery
