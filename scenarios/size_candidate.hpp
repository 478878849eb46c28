// What a search for a cluster chooses between, and what is certain of a choice before it is simulated.
#pragma once

#include <string>
#include <vector>

#include "scenarios/step_scenario.hpp"

namespace orrery {

/// A GPU with what it is wired by: nodes of `node_size` GPUs on a switch of their fastest link, nodes on a
/// rail-optimised network of full bisection.
struct GpuOption {
  Gpu gpu;
  Profile profile;
  LinkType link;
  double price_per_hour = 0;  // of one GPU; 0: not stated
};

struct SizeProblem {
  ModelShape model;
  Index tokens = 0;
  Index batch = 1;  // sequences of a step
  StepPass pass = StepPass::training;
  std::string dtype = "bf16";
  bool causal = true;
  std::vector<Primitive> primitives;  // in all layers
  std::vector<GpuOption> gpus;
  LinkType network;
  int node_size = 8;
  int max_gpus = 4096;
  Implementation implementation;

  /// Unmasked pairs of a sequence, from the primitives; set by prepare.
  double pairs = 0;
  void prepare();
};

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

/// In closed form, in about a microsecond. `time`: no simulation of the candidate can be faster.
struct Bound {
  Seconds time;
  Bytes memory;
  bool fits = false;
};
Bound bound_of(const SizeProblem& problem, const Candidate& candidate);

/// Every candidate: counts of GPUs and degrees that are powers of two and fit the model and the batch, every schedule,
/// ZeRO-1 and 3, recomputation none and full. No bound is applied here.
std::vector<Candidate> candidates_of(const SizeProblem& problem);

/// A scenario of the candidate with `layers_per_chunk` layers of each chunk and that many microbatches. `folds`: see
/// StepProgramInput.
struct CandidateScenario {
  Scenario scenario;
  int folds = 1;
};
CandidateScenario scenario_of(const SizeProblem& problem, const Candidate& candidate, int layers_per_chunk,
                              int microbatches);

/// Step time by simulation. All layers of a chunk do the same, and so do microbatches once a pipeline is full: few of
/// each are simulated and the rest follows, layer by layer and microbatch by microbatch.
struct SimulatedStep {
  Seconds time;
  std::string bottleneck;  // largest part of the critical path
  double bottleneck_share = 0;
};
/// Of a step, whatever the candidate.
Flops useful_flops(const SizeProblem& problem);

SimulatedStep simulate_candidate(const SizeProblem& problem, const Candidate& candidate);

}  // namespace orrery
