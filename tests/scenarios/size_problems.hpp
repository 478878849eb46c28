// Small searches for a cluster.
#pragma once

#include <fmt/format.h>

#include <string>
#include <vector>

#include "scenarios/preset_files.hpp"
#include "scenarios/size_search.hpp"
#include "sim/simulate.hpp"

namespace orrery {

inline SizeProblem size_problem(const std::vector<std::string>& gpus) {
  SizeProblem p;
  p.model = load_model("llama3_8b");
  p.model.layers = 8;
  p.tokens = 32768;
  p.batch = 4;
  p.primitives = {{}};
  for (const std::string& name : gpus) {
    GpuOption option;
    option.gpu = load_gpu(name);
    option.profile = load_profile("peak", name);
    option.link = load_link(option.gpu.links.front());
    option.price_per_hour = name == "h100_sxm" ? 2 : 1;
    p.gpus.push_back(option);
  }
  p.network = load_link("infiniband_ndr");
  p.implementation = load_implementation("ideal");
  p.node_sizes = {2, 4};
  p.layouts = {"contiguous", "zigzag", "striped"};
  p.max_gpus = 8;
  p.prepare();
  return p;
}

inline std::string text_of(const Candidate& c) {
  const Degrees& d = c.degrees;
  return fmt::format("gpu {} nodes of {} dp {} tp {} pp {} x {} cp {} {} x {} {} {} zero {} recompute {} of {}", c.gpu,
                     c.node_size, d.data, d.tensor, d.pipeline, d.virtual_stages, d.context, c.groups, c.members,
                     c.schedule->name, c.layout, d.zero, static_cast<int>(c.recompute), c.microbatches);
}

/// The step of a candidate, with all its layers and microbatches.
inline double whole_seconds(const SizeProblem& p, const Candidate& c) {
  const CandidateScenario all = scenario_of(p, c, whole(p, c));
  return to_seconds(simulate(build_step(all.scenario, all.folds), all.scenario.cluster).end).si();
}

}  // namespace orrery
