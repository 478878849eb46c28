// What many runs of a scenario have to say: quantiles, and for programs every value.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <iterator>
#include <nlohmann/json.hpp>
#include <numeric>

#include "cli/csv_cell.hpp"
#include "cli/report_writers.hpp"
#include "cli/runs.hpp"

namespace orrery {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::array quantities = {
    RunQuantity{"step_time_s", "step time", true, [](const Report& r) { return r.step_time.si(); }},
    RunQuantity{"compute_s", "compute", true, [](const Report& r) { return r.compute.si(); }},
    RunQuantity{"comm_s", "comm", true, [](const Report& r) { return r.comm.si(); }},
    RunQuantity{"exposed_comm_s", "exposed comm", true, [](const Report& r) { return r.exposed_comm.si(); }},
    RunQuantity{"idle_s", "idle", true, [](const Report& r) { return r.idle.si(); }},
    RunQuantity{"overlap_fraction", "overlap", false, [](const Report& r) { return r.overlap_fraction; }},
    RunQuantity{"mfu", "MFU", false, [](const Report& r) { return r.mfu; }},
    RunQuantity{"imbalance", "imbalance", false, [](const Report& r) { return r.imbalance; }},
};

struct Column {
  const char* key;
  const char* label;
  double Quantiles::*value;
};
constexpr Column columns[] = {{"min", "min", &Quantiles::min},  {"p05", "5 %", &Quantiles::p05},
                              {"p50", "50 %", &Quantiles::p50}, {"p95", "95 %", &Quantiles::p95},
                              {"max", "max", &Quantiles::max},  {"mean", "mean", &Quantiles::mean}};

}  // namespace

std::span<const RunQuantity> run_quantities() {
  return quantities;
}

Quantiles quantiles_of(std::vector<double> values) {
  const double mean = std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
  std::sort(values.begin(), values.end());
  const auto at = [&](double share) {
    const double place = share * static_cast<double>(values.size() - 1);
    const auto below = static_cast<std::size_t>(place);
    const std::size_t above = std::min(below + 1, values.size() - 1);
    return values[below] + (place - static_cast<double>(below)) * (values[above] - values[below]);
  };
  // The mean of equal values is that value, however their sum rounds.
  return {values.front(), at(0.05), at(0.5), at(0.95), values.back(), std::clamp(mean, values.front(), values.back())};
}

std::string runs_text(const Scenario& s, const Runs& runs) {
  std::string text = scenario_text(s);
  const auto line = std::back_inserter(text);
  fmt::format_to(line, "{} runs, seeds {} to {}:", runs.count(), runs.first_seed, runs.first_seed + runs.count() - 1);
  for (const auto& [engine, count] : runs.engines) fmt::format_to(line, " {} by the {} engine", count, engine);
  text += "\n\n                 ";
  for (const Column& column : columns) fmt::format_to(line, " {:>10}", column.label);
  text += '\n';
  for (std::size_t q = 0; q < run_quantities().size(); ++q) {
    const RunQuantity& quantity = run_quantities()[q];
    const Quantiles quantiles = quantiles_of(runs.values[q]);
    fmt::format_to(line, "{:<17}", quantity.label);
    for (const Column& column : columns) {
      const double value = quantiles.*column.value;
      fmt::format_to(line, " {:>10}",
                     quantity.is_time ? format(Seconds::from_si(value)) : fmt::format("{:.4f}", value));
    }
    text += '\n';
  }
  return text;
}

std::string runs_json(const Scenario& s, const Runs& runs) {
  Json json = scenario_scalars(s);
  json["variation"] = variation_json(s.variation);
  if (s.fault_plan.faults) json["faults"] = faults_json(s.fault_plan, s.cluster);
  json["runs"] = runs.count();
  json["first_seed"] = runs.first_seed;
  json["engines"] = runs.engines;
  json["quantiles"] = Json::object();
  json["values"] = Json::object();
  for (std::size_t q = 0; q < run_quantities().size(); ++q) {
    const std::string key(run_quantities()[q].key);
    const Quantiles quantiles = quantiles_of(runs.values[q]);
    for (const Column& column : columns) json["quantiles"][key][column.key] = quantiles.*column.value;
    json["values"][key] = runs.values[q];
  }
  // File names may hold bytes that are not UTF-8; JSON may not.
  return json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

std::string runs_csv(const Scenario& s, const Runs& runs) {
  std::string text = "scenario,quantity,runs,first_seed";
  for (const Column& column : columns) text += fmt::format(",{}", column.key);
  text += '\n';
  for (std::size_t q = 0; q < run_quantities().size(); ++q) {
    const Quantiles quantiles = quantiles_of(runs.values[q]);
    text += fmt::format("{},{},{},{}", csv_cell(s.name), run_quantities()[q].key, runs.count(), runs.first_seed);
    for (const Column& column : columns) text += "," + Json(quantiles.*column.value).dump();
    text += '\n';
  }
  return text;
}

}  // namespace orrery
