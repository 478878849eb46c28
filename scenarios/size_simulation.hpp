// How long the step of a candidate takes, by simulation.
#pragma once

#include <functional>
#include <optional>
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
  Seconds kernels;               // of that: of the first stage's rank with the last tokens
  std::optional<Joules> energy;  // of all GPUs, if the profile has a power model and the clock is settled
  std::string bottleneck;        // largest part of the critical path
  double bottleneck_share = 0;
};
/// All layers of a chunk do the same, and so do microbatches once a pipeline is full: few of each are simulated, and
/// one more of each, and the rest follows in proportion. Of a long ring several steps are simulated as one, in two
/// coarse ways, and what that costs at its ends (in proportion to the step) is taken off again.
/// Each kernel runs alone at the power limit, as bounds have it.
SimulatedStep simulate_candidate(const SizeProblem& problem, const Candidate& candidate);

/// How much faster kernels are if a step also idles, which leaves them power for a higher clock. If power grows with
/// the third power of the clock (that of tensor cores, fitted: with the fourth), K of kernels and B of idling take K (1
/// + e)^2 <= K / (1 + e) + B at a clock of 1 + e: K e <= B / 3 is gained.
Seconds most_gain(Seconds idle);

/// The same for a search: whole if it is small, and with the mean power near the limit, in one simulation or, if it
/// `may_matter` that it takes at least so long, two. Otherwise its time is too long rather than too short.
SimulatedStep simulate_for_search(const SizeProblem& problem, const Candidate& candidate, const Bound& bound,
                                  const std::function<bool(Seconds)>& may_matter);

/// The same, with the mean power of the step at the limit, as `orrery simulate` has it (step_power.hpp); within 1.1 %
/// of that if not whole.
SimulatedStep simulate_settled(const SizeProblem& problem, const Candidate& candidate);

/// A higher bound than `bound`: with all kernels of the first stage's rank that has the last tokens, as the same
/// programs have them. Takes a small part of what their simulation does.
Bound tightened(const SizeProblem& problem, const Candidate& candidate, Bound bound);

/// The same of `simulate_settled`: kernels run at the clock that the power limit leaves if the step takes no longer
/// than they and `bound.beside_kernels` do. (Longer steps leave a higher clock, but not so much that they end sooner.)
Seconds least_settled(const SizeProblem& problem, const Candidate& candidate, const Bound& bound);

}  // namespace orrery
