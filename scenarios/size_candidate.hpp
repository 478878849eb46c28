// What a search for a cluster chooses between.
#pragma once

#include <string_view>
#include <vector>

#include "scenarios/degrees.hpp"
#include "scenarios/schedule.hpp"
#include "scenarios/size_problem.hpp"

namespace orrery {

struct Candidate {
  int gpu = 0;  // of SizeProblem::gpus
  int node_size = 8;
  Degrees degrees;
  const ScheduleKind* schedule = nullptr;
  int groups = 1, members = 1, inner_ring = 1;
  std::string_view layout = "contiguous";
  Recompute recompute = Recompute::none;
  int microbatches = 1;
  bool operator==(const Candidate&) const = default;
};

MemoryInput memory_input(const SizeProblem& problem, const Candidate& candidate);

/// Every candidate: pipeline stages, their chunks, data-parallel replicas and sequences of a microbatch that divide the
/// layers or the batch, tensor and context degrees that are powers of two, every node size, schedule and layout that
/// makes a difference, ZeRO-1 and 3, recomputation none and full. No bound is applied here.
std::vector<Candidate> candidates_of(const SizeProblem& problem);

}  // namespace orrery
