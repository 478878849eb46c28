// What a simulation says, in physical units: the numbers behind every output format.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "scenarios/scenario.hpp"
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
  double utilisation = 0;  // bytes / (bandwidth * step time)
};

struct Share {
  std::string name;
  Seconds time;
  double fraction = 0;  // of the step time
};

/// Ring Attention's condition c >= F/B (arXiv 2310.01889, section 3), generalised to what this program really computes
/// and sends per forward step: a group's block of c tokens hides the transfer of the next one if c is at least c *
/// (transfer time of a hop) / (compute time of a step). For full attention without GQA in bf16 this is F/B.
struct Intensity {
  double tokens = 0;            // c, tokens of a group
  double needed_tokens = 0;     // the threshold
  FlopsPerSecond compute_rate;  // F: peak times efficiency
  BytesPerSecond link_rate;     // B: the narrowest link to the next rank, times efficiency
  bool holds() const { return tokens >= needed_tokens; }
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
  Flops useful, executed;              // all ranks
  double mfu = 0;                      // useful / (step time * peak * ranks)
  double imbalance = 1;                // compute time of the busiest rank / mean
  std::optional<Intensity> intensity;  // if ranks send each other KV during attention
  std::vector<PhaseReport> phases;
  std::vector<Share> critical_path;
  std::vector<LinkReport> links;  // those that carried anything
  std::vector<RankReport> ranks;
  std::vector<ConstantReport> constants;
  std::vector<std::string> left_out;  // what the prediction neglects
  std::uint64_t events = 0;
  double wall_s = 0;
};

Report summarize(const Scenario& scenario, const AttentionProgram& program, const SimulationResult& result,
                 double wall_s);

}  // namespace orrery
