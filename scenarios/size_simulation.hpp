// How long the step of a candidate takes, by simulation.
#pragma once

#include <string>

#include "scenarios/size_bound.hpp"
#include "scenarios/step_scenario.hpp"

namespace orrery {

/// How much of a candidate is simulated.
struct SampleSize {
  int layers = 0;  // of each chunk
  int microbatches = 0;
  int groups = 0;    // of the attention's ring, each with as many tokens as in the whole
  int replicas = 1;  // data-parallel, each of which stands for as many as there are
};
SampleSize whole(const SizeProblem& problem, const Candidate& candidate);

struct CandidateScenario {
  Scenario scenario;
  Folds folds;
};
CandidateScenario scenario_of(const SizeProblem& problem, const Candidate& candidate, const SampleSize& size);

struct SimulatedStep {
  Seconds time;
  std::string bottleneck;  // largest part of the critical path
  double bottleneck_share = 0;
};
/// All layers of a chunk do the same, and so do microbatches once a pipeline is full: few of each are simulated, and
/// one more of each, and the rest follows in proportion. Of a long ring several steps are simulated as one, in two
/// coarse ways, and what that costs at its ends (in proportion to the step) is taken off again.
/// Each kernel runs alone at the power limit, as bounds have it.
SimulatedStep simulate_candidate(const SizeProblem& problem, const Candidate& candidate);

/// The same, with the mean power of the step at the limit, as `orrery simulate` has it (step_power.hpp).
SimulatedStep simulate_settled(const SizeProblem& problem, const Candidate& candidate);

/// A higher bound than `bound`: with all kernels of the first stage's rank that has the last tokens, as the same
/// programs have them. Takes a small part of what their simulation does.
Bound tightened(const SizeProblem& problem, const Candidate& candidate, Bound bound);

}  // namespace orrery
