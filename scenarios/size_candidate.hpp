// What a search for a cluster chooses between.
#pragma once

#include <vector>

#include "scenarios/degrees.hpp"
#include "scenarios/schedule.hpp"
#include "scenarios/size_problem.hpp"

namespace orrery {

struct Candidate {
  int gpu = 0;  // of SizeProblem::gpus
  Degrees degrees;
  const ScheduleKind* schedule = nullptr;
  int groups = 1, members = 1;
  const char* layout = "contiguous";
  Recompute recompute = Recompute::none;
  int microbatches = 1;
  bool operator==(const Candidate&) const = default;
};

MemoryInput memory_input(const SizeProblem& problem, const Candidate& candidate);

/// Every candidate: counts of GPUs and degrees that are powers of two and fit the model and the batch, every schedule,
/// ZeRO-1 and 3, recomputation none and full. No bound is applied here.
std::vector<Candidate> candidates_of(const SizeProblem& problem);

}  // namespace orrery
