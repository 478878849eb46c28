// The errors of predicted rows, group by group.
#include <algorithm>
#include <cmath>
#include <map>

#include "cost_models/intervals.hpp"
#include "validate/runs.hpp"

namespace orrery {

constexpr const char* all_runs = "all runs of several GPUs";

std::vector<ErrorSummary> summarize(const std::vector<Prediction>& predictions) {
  std::vector<ErrorSummary> groups;
  std::map<std::string, std::vector<const Prediction*>> rows;
  for (const Prediction& p : predictions) {
    if (p.fitted || !p.reason.empty() || !p.is_measured()) continue;
    if (!rows.contains(p.group)) groups.push_back({.group = p.group});
    rows[p.group].push_back(&p);
    if (p.many_gpus) rows[all_runs].push_back(&p);
    rows["all"].push_back(&p);
  }
  if (!rows[all_runs].empty() && rows[all_runs].size() < rows["all"].size()) groups.push_back({.group = all_runs});
  groups.push_back({.group = "all"});
  for (const Prediction& p : predictions) {
    for (ErrorSummary& group : groups) {
      const bool member = group.group == p.group || group.group == "all" || (p.many_gpus && group.group == all_runs);
      if (!p.reason.empty() && member) ++group.not_predicted;
    }
  }
  for (ErrorSummary& group : groups) {
    const auto& of_group = rows[group.group];
    if (of_group.empty()) continue;
    std::vector<double> errors;
    int covered = 0, tested = 0;
    for (const Prediction* p : of_group) {
      errors.push_back(std::abs(p->deviation()));
      group.mean_abs_rel += errors.back();
      if (p->calibrated || p->extrapolated || !p->has_interval()) continue;
      ++tested;
      covered += p->within_band() ? 1 : 0;
    }
    group.rows = static_cast<int>(errors.size());
    group.mean_abs_rel /= group.rows;
    group.median_abs_rel = quantile(errors, 0.5);
    group.p90_abs_rel = quantile(errors, 0.9);
    group.max_abs_rel = quantile(errors, 1);
    if (tested > 0) group.interval_coverage = static_cast<double>(covered) / tested;
  }
  return groups;
}

}  // namespace orrery
