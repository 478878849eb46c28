// The errors of predicted rows, group by group.
#include <algorithm>
#include <cmath>
#include <map>
#include <set>
#include <string>
#include <tuple>
#include <vector>

#include "cost_models/intervals.hpp"
#include "sim/contains.hpp"
#include "validate/runs.hpp"

namespace orrery {

namespace {

constexpr const char *all_runs = "all runs of several GPUs", *all_rows = "all";

bool counts(const Prediction& p) {
  return !p.fitted && p.reason.empty() && p.is_measured();
}

/// The names of groups in the order of their summary: by folder, by GPU if that is more than one folder, and all.
std::vector<std::string> groups_of(const std::vector<Prediction>& predictions) {
  std::vector<std::string> names;
  const auto add = [&](const std::string& name) {
    if (!name.empty() && !contains(names, name)) names.push_back(name);
  };
  std::map<std::string, std::set<std::string>> folders;
  std::size_t runs = 0;
  for (const Prediction& p : predictions) {
    if (!counts(p)) continue;
    add(p.group);
    folders[p.of_gpu].insert(p.group);
    runs += p.many_gpus ? 1 : 0;
  }
  for (const auto& [of_gpu, groups] : folders) {
    if (groups.size() > 1) add(of_gpu);
  }
  if (runs > 0 && runs < static_cast<std::size_t>(std::count_if(predictions.begin(), predictions.end(), counts))) {
    add(all_runs);
  }
  add(all_rows);
  return names;
}

}  // namespace

std::vector<Prediction> medians_of_repeats(const std::vector<Prediction>& predictions) {
  std::vector<Prediction> rows;
  std::map<std::tuple<std::string, std::string, Seconds>, std::size_t> first;  // what is the same is predicted alike
  std::vector<std::vector<double>> measured;
  for (const Prediction& p : predictions) {
    if (p.fitted) continue;
    if (counts(p) && !p.of_gpu.empty()) {
      const auto [known, is_new] = first.try_emplace({p.of_gpu, p.name, p.predicted}, rows.size());
      if (!is_new) {
        Prediction& row = rows[known->second];
        measured[known->second].push_back(p.measured.si());
        row.calibrated |= p.calibrated;
        if (p.tolerance) row.tolerance = std::min(row.tolerance.value_or(*p.tolerance), *p.tolerance);
        std::erase_if(row.carried, [&](const auto& cell) { return !contains(p.carried, cell); });
        continue;
      }
    }
    rows.push_back(p);
    measured.push_back({p.measured.si()});
    if (!p.of_gpu.empty()) rows.back().group = p.of_gpu;
  }
  for (std::size_t i = 0; i < rows.size(); ++i) rows[i].measured = Seconds::from_si(quantile(measured[i], 0.5));
  return rows;
}

std::vector<ErrorSummary> summarize(const std::vector<Prediction>& predictions) {
  std::map<std::string, std::vector<const Prediction*>> rows;
  std::map<std::string, int> not_predicted;
  for (const Prediction& p : predictions) {
    for (const std::string& name : std::set<std::string>{p.group, p.of_gpu, p.many_gpus ? all_runs : "", all_rows}) {
      if (counts(p)) rows[name].push_back(&p);
      if (!p.reason.empty()) ++not_predicted[name];
    }
  }
  std::vector<ErrorSummary> groups;
  for (const std::string& name : groups_of(predictions)) {
    groups.push_back({.group = name, .not_predicted = not_predicted[name]});
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
