#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "cli/size_report.hpp"

namespace orrery {
namespace {

/// null: not known.
nlohmann::ordered_json or_null(const std::optional<double>& value) {
  return value ? nlohmann::ordered_json(*value) : nlohmann::ordered_json();
}

nlohmann::ordered_json to_json(const SizeProblem& problem, const Sized& s) {
  const Degrees& d = s.candidate.degrees;
  return {{"gpu", problem.gpus[static_cast<std::size_t>(s.candidate.gpu)].gpu.name},
          {"profile", basis_of(problem.gpus[static_cast<std::size_t>(s.candidate.gpu)])},
          {"link", problem.gpus[static_cast<std::size_t>(s.candidate.gpu)].link.name},
          {"gpus", s.gpus},
          {"node_size", s.candidate.node_size},
          {"step_time_s", s.step.time.si()},
          {"bound_s", s.bound.time.si()},
          {"cost", or_null(s.cost)},
          {"energy_j", or_null(s.energy)},
          {"mfu", s.mfu},
          {"memory_bytes", s.bound.memory.si()},
          {"data", d.data},
          {"tensor", d.tensor},
          {"pipeline", d.pipeline},
          {"context", d.context},
          {"virtual_stages", d.virtual_stages},
          {"schedule", s.candidate.schedule->name},
          {"groups", s.candidate.groups},
          {"members", s.candidate.members},
          {"inner_ring", s.candidate.inner_ring},
          {"layout", s.candidate.layout},
          {"zero", d.zero},
          {"recompute", recompute_names()[static_cast<std::size_t>(s.candidate.recompute)]},
          {"microbatches", s.candidate.microbatches},
          {"bottleneck", s.step.bottleneck},
          {"bottleneck_share", s.step.bottleneck_share}};
}

}  // namespace

void print_size_json(const SizeReport& report) {
  const SizeProblem& problem = report.problem;
  const SizeResult& r = report.result;
  nlohmann::ordered_json json;
  json["warnings"] = report.warnings;
  json["assumed"] = nlohmann::ordered_json::array();
  for (const ModelShape::Assumed& field : report.assumed)
    json["assumed"].push_back({{"name", field.name}, {"value", field.value}, {"source", field.source}});
  json["candidates"] = r.candidates;
  json["too_large"] = r.too_large;
  json["bounded_away"] = r.bounded_away;
  json["simulated"] = r.simulated;
  for (const Sized& s : r.best) json["best"].push_back(to_json(problem, s));
  for (const Sized& s : r.front) json["front"].push_back(to_json(problem, s));
  json["fewest"] = to_json(problem, *r.fewest);
  for (const WhatIf& w : report.what_ifs)
    json["what_if"].push_back({{"change", w.change}, {"step_time_s", w.time.si()}, {"note", w.note}});
  fmt::print("{}\n", json.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace));
}

}  // namespace orrery
