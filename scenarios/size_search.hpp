// The search for clusters: bounds first, simulation of what they leave.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

#include "scenarios/size_bound.hpp"
#include "scenarios/size_simulation.hpp"

namespace orrery {

enum class Objective : std::uint8_t { time, cost, energy, gpus };

struct SizeOptions {
  Objective objective = Objective::time;
  std::optional<Seconds> slowest;   // target: a step takes no longer
  std::optional<double> least_mfu;  // or uses this share of the peaks
  int keep = 5;                     // best candidates shown
  bool prune = true;                // false: take what simulations say of all that fit, for tests
  bool settle = true;               // the clocks of what is found, so that it takes what `orrery simulate` says
  int threads = 2;                  // the result does not depend on it
  std::function<void(std::int64_t decided, std::int64_t candidates)> progress{};
};

/// A candidate that fits and was simulated.
struct Sized {
  Candidate candidate;
  Bound bound;
  SimulatedStep step;
  int gpus = 0;
  std::optional<double> cost;    // of a step, in units of the price, if there is one
  std::optional<double> energy;  // joules of a step: by the profile's power model, or at the board's published power
  double mfu = 0;
};

struct SizeResult {
  std::vector<Sized> best;           // by the objective, that meet the target
  std::vector<Sized> front;          // no other is at least as good in time, cost and GPUs, and better in one
  std::optional<Sized> fewest;       // GPUs, of those that meet the target
  std::optional<Sized> fastest;      // also if it misses the target
  std::optional<Sized> highest_mfu;  // if no candidate meets the target
  std::int64_t candidates = 0, too_large = 0, bounded_away = 0, simulated = 0;
  Bytes least_memory;             // of all candidates, if none fits
  std::vector<int> never_filled;  // node sizes of which no candidate has two, though so many GPUs are allowed
};

/// Throws std::invalid_argument if there is no candidate at all.
SizeResult search(const SizeProblem& problem, const SizeOptions& options);

}  // namespace orrery
