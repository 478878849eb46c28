// What `orrery reach` prints and draws.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "scenarios/reach.hpp"
#include "scenarios/reach_cost.hpp"
#include "scenarios/reach_find.hpp"
#include "scenarios/reach_reader.hpp"

namespace orrery {

/// One mechanism, computed.
struct ReachResult {
  ReachInput input;
  ReachReport report;
  std::optional<ReachCost> cost;  // if the model and the number of GPUs are known
  std::string no_cost;            // why it could not be counted
};

// Three formats of each; wall_s comes last in JSON and is all that differs between runs.
std::string reach_text(const ReachResult& result);
std::string reach_json(const ReachResult& result);
std::string reach_csv(const ReachResult& result);

std::string comparison_text(const std::vector<ReachResult>& results);
std::string comparison_json(const std::vector<ReachResult>& results);
std::string comparison_csv(const std::vector<ReachResult>& results);

/// What `--find` was asked, and its answer.
struct FindResult {
  std::string rule;
  Index tokens = 1;
  int layers = 1;
  CheapestPair found;

  double keys_per_token() const;  // mean over tokens and layers
};
std::string cheapest_text(const FindResult& result);
std::string cheapest_json(const FindResult& result);
std::string cheapest_csv(const FindResult& result);

/// Writes FILE.dat and draws FILE (.svg, .png or .pdf) from it with gnuplot: lag against layer. One mechanism: its
/// density, with the window alone beside it. Several: their fronts. Throws std::runtime_error if gnuplot is missing or
/// fails; FILE.dat is then there all the same.
void plot_reach(const std::vector<ReachResult>& results, const std::string& file);

/// "1", "16 tokens per key", "state"
std::string resolution_text(Index resolution);

}  // namespace orrery
