#include "scenarios/size_simulation.hpp"

#include <algorithm>
#include <optional>
#include <variant>
#include <vector>

#include "scenarios/step_scenario.hpp"
#include "sim/simulate.hpp"
#include "sim/topologies.hpp"

namespace orrery {

SampleSize whole(const SizeProblem& problem, const Candidate& c) {
  const auto layers = static_cast<int>(problem.model.layers);
  return {layers / (c.degrees.pipeline * c.degrees.virtual_stages), c.microbatches, c.groups};
}

CandidateScenario scenario_of(const SizeProblem& problem, const Candidate& c, const SampleSize& size) {
  const GpuOption& option = problem.gpus[static_cast<std::size_t>(c.gpu)];
  CandidateScenario result;
  Scenario& s = result.scenario;
  s.name = "candidate";
  s.model = problem.model;
  result.folds.context = c.groups / size.groups;
  // What a rank fetches does not grow with the ring.
  const bool fetches = c.schedule->slots.hold == ScheduleKind::Slots::Hold::fetched;
  result.folds.steps = fetches ? 1 : result.folds.context;
  s.tokens = problem.tokens / result.folds.context;
  s.batch = problem.pass == StepPass::decode ? problem.batch : problem.batch / c.microbatches * size.microbatches;
  s.dtype = problem.dtype;
  s.backward = problem.pass == StepPass::training;
  s.decode = problem.pass == StepPass::decode;
  s.whole_step = true;
  s.layers = size.layers * c.degrees.pipeline * c.degrees.virtual_stages;
  s.causal = problem.causal;
  s.primitives = problem.primitives;
  s.schedule = c.schedule;
  s.layout = c.layout;
  s.groups = size.groups;
  s.members = c.members;
  s.implementation = problem.implementation;
  s.degrees = c.degrees;
  s.degrees.context = size.groups * c.members;
  s.recompute = c.recompute;
  s.microbatches = size.microbatches;
  s.fused_loss = true;
  s.fp8_matrices = problem.fp8_matrices;
  s.gpu = option.gpu;
  s.profile = option.profile;
  // Two nodes of replicas show what any number of them does.
  const int replica = c.degrees.tensor * s.degrees.context;
  int& folds = result.folds.data;
  while (c.degrees.data / folds > 1 && replica * (c.degrees.data / folds) > 2 * c.node_size) folds *= 2;
  const Rank ranks = s.degrees.ranks() / folds;
  const double efficiency = option.profile.link_efficiency.value;
  const GpuResources gpu{static_cast<double>(option.gpu.sms), option.gpu.hbm_bandwidth};
  const LinkSpec link{option.link.bandwidth * efficiency, option.link.latency};
  s.node_size = std::min(ranks, c.node_size);
  s.links.push_back({"link", option.link});
  const bool tree = option.node && option.node->is_tree();
  if (ranks <= c.node_size) {
    s.topology = tree ? "pcie_tree" : "nvswitch";
    s.cluster = tree ? pcie_tree(gpu, tree_of(*option.node, ranks, link)) : nvswitch(gpu, {ranks, link});
  } else {
    const Rank nodes = ranks / c.node_size;
    s.topology = "fat_tree";
    s.links.push_back({"network", problem.network});
    std::variant<NvSwitch, PcieTree> node = NvSwitch{c.node_size, link};
    if (tree) node = tree_of(*option.node, c.node_size, link);
    s.cluster = fat_tree(gpu, {nodes,
                               node,
                               {problem.network.bandwidth * efficiency, problem.network.latency},
                               nodes,
                               1,
                               problem.network.latency});
  }
  return result;
}

namespace {

/// Of one kind of thing that repeats: few of them, more of them, and how many there are.
struct Repeats {
  int few, more, all;
  bool merged = false;  // few stand for all: what all take differs in proportion to 1 / few

  /// Of the two in what all take, on a straight line through both.
  double weight_of_more() const {
    if (more == few) return 0;
    if (!merged) return static_cast<double>(all - few) / (more - few);
    return (1.0 / few - 1.0 / all) / (1.0 / few - 1.0 / more);
  }
  static Repeats of(int few, int more, int all, bool merged = false) {
    return all <= more ? Repeats{all, all, all} : Repeats{few, more, all, merged};
  }
};

/// How far back a token sees; nothing if that grows with the sequence.
std::optional<Index> farthest(const std::vector<Primitive>& primitives) {
  Index lag = 0;
  for (const Primitive& p : primitives) {
    if (p.kind == Primitive::Kind::window) {
      lag = std::max(lag, p.left);
    } else if (p.kind == Primitive::Kind::stride && p.count > 0) {
      lag = std::max(lag, p.period * p.count);
    } else {
      return std::nullopt;
    }
  }
  return lag;
}

/// Groups of a ring: so many that it leaves the nodes as the whole one does.
Repeats groups_of(const SizeProblem& problem, const Candidate& c) {
  const int group = c.degrees.tensor * c.members;
  int few = 4;
  while (few * group < 2 * c.node_size) few *= 2;
  if (c.schedule->slots.hold == ScheduleKind::Slots::Hold::fetched) {
    const std::optional<Index> lag = farthest(problem.primitives);
    const Index own = problem.tokens / c.groups;
    while (few < c.groups && (!lag || few * own < 2 * *lag + 2 * own)) few *= 2;
  }
  return Repeats::of(few, 2 * few, c.groups, true);
}

SimulationResult run(const SizeProblem& problem, const Candidate& c, const SampleSize& size) {
  const CandidateScenario built = scenario_of(problem, c, size);
  const StepProgram program = build_step(built.scenario, built.folds);
  return simulate(program, built.scenario.cluster);
}

/// The largest part of a critical path, in ticks by category and, last, contention.
void name_bottleneck(SimulatedStep& step, const std::vector<double>& parts) {
  const auto largest = std::max_element(parts.begin(), parts.end());
  const auto category = static_cast<std::size_t>(largest - parts.begin());
  step.bottleneck = category < step_category_names().size() ? step_category_names()[category] : "contention";
  step.bottleneck_share = step.time > Seconds() ? *largest / 1e12 / step.time.si() : 0;
}

}  // namespace

SimulatedStep simulate_candidate(const SizeProblem& problem, const Candidate& c) {
  const SampleSize all = whole(problem, c);
  const int stages = c.degrees.pipeline;
  const Repeats layers = Repeats::of(2, 3, all.layers);
  // Interleaved stages take turns in rounds of as many microbatches as there are stages.
  const int one_more = c.degrees.virtual_stages > 1 ? stages : 1;
  const Repeats microbatches = stages == 1 ? Repeats::of(1, 2, all.microbatches)
                                           : Repeats::of(2 * stages, 2 * stages + one_more, all.microbatches);
  const Repeats groups = groups_of(problem, c);
  SimulatedStep step;
  double time = 0;
  std::vector<double> parts(step_category_names().size() + 1);
  for (int corner = 0; corner < 8; ++corner) {
    double weight = 1;
    const auto choose = [&](const Repeats& r, int bit) {
      const bool more = (corner & bit) != 0;
      weight *= more ? r.weight_of_more() : 1 - r.weight_of_more();
      return more ? r.more : r.few;
    };
    const SampleSize size{choose(layers, 1), choose(microbatches, 2), choose(groups, 4)};
    if (weight == 0) continue;
    const SimulationResult result = run(problem, c, size);
    time += weight * to_seconds(result.end).si();
    for (std::size_t i = 0; i + 1 < parts.size(); ++i)
      parts[i] += weight * static_cast<double>(result.critical_path.by_category[i]);
    parts.back() += weight * static_cast<double>(result.critical_path.contention);
  }
  step.time = Seconds::from_si(time);
  name_bottleneck(step, parts);
  return step;
}

}  // namespace orrery
