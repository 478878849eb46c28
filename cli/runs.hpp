// One scenario simulated many times, each time with other draws of its jitter.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "scenarios/report.hpp"

namespace orrery {

/// A number of a report whose distribution over the runs is of interest.
struct RunQuantity {
  std::string_view key;  // as in the JSON report
  std::string_view label;
  bool is_time;  // else a plain number
  double (*of)(const Report& report);
};
std::span<const RunQuantity> run_quantities();

struct Runs {
  std::uint64_t first_seed = 0;                 // run i has the seed first_seed + i
  std::vector<std::vector<double>> values;      // by quantity, then by run
  std::map<std::string, std::int64_t> engines;  // how many runs each of them did

  std::size_t count() const { return values.front().size(); }
};

/// The same for any number of threads. Throws std::invalid_argument if the scenario has no jitter, and what the first
/// run that fails throws.
Runs simulate_runs(const Scenario& scenario, Engine engine, int runs, int threads);

/// Between two values the straight line, as NumPy and R do by default (type 7 of Hyndman and Fan, 1996).
struct Quantiles {
  double min = 0, p05 = 0, p50 = 0, p95 = 0, max = 0, mean = 0;
};
Quantiles quantiles_of(std::vector<double> values);

// For people, for programs, and one row a quantity. Nothing in them depends on the time or the threads it took.
std::string runs_text(const Scenario& scenario, const Runs& runs);
std::string runs_json(const Scenario& scenario, const Runs& runs);
std::string runs_csv(const Scenario& scenario, const Runs& runs);

}  // namespace orrery
