#include "scenarios/report.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>

#include "scenarios/memory_over_time.hpp"
#include "scenarios/step_scenario.hpp"
#include "scenarios/used_constants.hpp"

namespace orrery {
namespace {

std::vector<Share> critical_path_of(const SimulationResult& result, const Program& program) {
  std::vector<Share> shares;
  const auto add = [&](std::string name, Ticks ticks) {
    if (ticks == 0) return;
    shares.push_back(
        {std::move(name), to_seconds(ticks), static_cast<double>(ticks) / static_cast<double>(result.end)});
  };
  for (std::size_t c = 0; c < program.categories().size(); ++c)
    add(program.categories()[c], result.critical_path.by_category[c]);
  add("contention", result.critical_path.contention);
  add("launch", result.critical_path.launch);
  return shares;
}

std::vector<LinkReport> links_of(const SimulationResult& result, const Cluster& cluster) {
  std::vector<LinkReport> links;
  for (std::size_t i = 0; i < result.links.size(); ++i) {
    const LinkTotals& totals = result.links[i];
    if (!(totals.bytes > Bytes())) continue;
    const Link& link = cluster.links()[i];
    links.push_back(
        {link.name, totals.bytes, to_seconds(totals.busy), totals.bytes / (link.bandwidth * to_seconds(result.end))});
  }
  return links;
}

/// Without switches every link joins two GPUs, and all GPUs have as many.
std::int64_t links_of_a_gpu(const Scenario& s) {
  const bool direct = s.ranks() > 1 && s.cluster.route(0, 1).links.size() == 1;
  return direct ? static_cast<std::int64_t>(s.cluster.links().size()) / s.ranks() : 1;
}

class ConstantList {
 public:
  explicit ConstantList(const Scenario& s) {
    add("gpu." + s.dtype + "_peak", format(s.gpu.peak(s.dtype)), "datasheet", s.gpu.source);
    add("gpu.hbm_bandwidth", format(s.gpu.hbm_bandwidth), "datasheet", s.gpu.source);
    for (const ModelShape::Assumed& field : s.model.assumptions(s.pattern_of_model)) {
      add(s.model.name + "." + field.name, field.value, std::string(name_of(Provenance::assumed)), field.source);
    }
    for (const ClusterLink& link : s.links) {
      add(link.role + ".bandwidth", format(link.type.bandwidth), "datasheet", link.type.source);
      add(link.role + ".latency", format(link.type.latency), link.type.latency_provenance,
          "scenarios/hardware/" + link.type.name + ".toml");
      const std::int64_t taken = links_of_a_gpu(s);
      if (taken <= link.type.links_per_gpu) continue;
      add(link.role + ".links_per_gpu", fmt::format("{}", taken), std::string(name_of(Provenance::assumed)),
          fmt::format("{} {}s from each GPU to its neighbours in the {}; its file gives a GPU {}", taken,
                      link.type.name, s.topology, link.type.links_per_gpu));
    }
    for (const Constant* constant : used_constants(s)) add_constant(s.profile.name, *constant);
    for (const Extrapolation& e : extrapolations(s)) add(e.name, e.value, "extrapolated", e.source);
    for (const Constant* constant : s.implementation.constants()) add_constant(s.implementation.name, *constant);
  }

  std::vector<ConstantReport> take() { return std::move(list_); }

 private:
  void add(std::string name, std::string value, std::string provenance, std::string source) {
    list_.push_back({std::move(name), std::move(value), std::move(provenance), std::move(source)});
  }
  void add_constant(const std::string& owner, const Constant& c) {
    std::string value = c.unit == "s" ? format(Seconds::from_si(c.value)) : fmt::format("{:.4g}", c.value);
    if (c.unit != "s" && c.unit != "1") value += " " + c.unit;
    add(owner + "." + c.name, std::move(value), std::string(name_of(c.provenance)), c.source);
  }
  std::vector<ConstantReport> list_;
};

/// A decode step runs none of the kernels around attention.
bool leaves_gates_out(const Scenario& s) {
  const std::vector<StepKernel>& kernels = s.implementation.step_kernels;
  return s.has_gates() &&
         (s.decode || std::none_of(kernels.begin(), kernels.end(), [](const auto& k) { return k.of_gated_skip; }));
}

std::vector<std::string> left_out_of(const Scenario& s) {
  std::vector<std::string> list;
  if (s.whole_step) {
    list.emplace_back("biases, dropout, gradient clipping, checkpoints, data loading");
    if (s.backward && s.model.tied_embeddings && s.degrees.pipeline > 1)
      list.emplace_back("the sum of the shared table's gradients over the first and the last stage");
  } else if (s.whole_layers) {
    list.emplace_back(
        "embeddings, output head, norms, optimizer, and the collectives of data, tensor and pipeline parallelism");
    if (s.backward) list.emplace_back("recomputation of activations");
  } else {
    list.emplace_back("everything but attention: projections, MLP, embeddings, optimizer");
  }
  if (s.six_block_accounts)
    list.emplace_back("in memory: gradients of the layer in work, and buffers beyond the six blocks of Ring Attention");
  // Measured kernels have their softmax in the cycles of a tile, and their clock.
  if (!s.profile.kernels) list.emplace_back("the softmax's own arithmetic, clock changes under load");
  if (leaves_gates_out(s)) list.emplace_back("gates of pi-attention");
  return list;
}

FlopsPerSecond peak_of_types(const Scenario& s, Flops useful) {
  const FlopsPerSecond peak = peaks_of(s).matrix;
  return s.fp8_matrices ? mean_peak(useful, peak, layer_flops(memory_input(s)), s.gpu.peak("fp8")) : peak;
}

/// What every program has to say; `flops_of` gives the work of a rank.
template <class AnyProgram>
Report summarize_any(const Scenario& s, const AnyProgram& program, const PoweredResult& run, double wall_s) {
  const SimulationResult& result = run.result;
  Report report;
  const auto ranks = static_cast<double>(result.ranks.size());
  Ticks busiest = 0;
  for (const RankTotals& totals : result.ranks) busiest = std::max(busiest, totals.compute);
  // Of differences, so that equal ranks are balanced exactly however their times round.
  double behind_busiest = 0, computed = 0;
  for (std::size_t r = 0; r < result.ranks.size(); ++r) {
    const RankTotals& totals = result.ranks[r];
    const AttentionProgram::FlopTotals work = program.flops_of(static_cast<Rank>(r));
    RankReport rank{to_seconds(totals.compute),
                    to_seconds(totals.comm),
                    to_seconds(totals.exposed_comm),
                    to_seconds(totals.idle),
                    totals.sent,
                    totals.received,
                    work.useful,
                    work.executed,
                    {}};
    for (const Ticks busy : totals.stream_busy) rank.stream_busy.push_back(to_seconds(busy));
    report.compute += rank.compute / ranks;
    report.comm += rank.comm / ranks;
    report.exposed_comm += rank.exposed_comm / ranks;
    report.idle += rank.idle / ranks;
    report.sent_by_busiest_rank = std::max(report.sent_by_busiest_rank, rank.sent);
    report.sent_in_all += rank.sent;
    report.useful += rank.useful;
    report.executed += rank.executed;
    behind_busiest += static_cast<double>(busiest - totals.compute);
    computed += static_cast<double>(totals.compute);
    report.ranks.push_back(std::move(rank));
  }
  report.step_time = to_seconds(result.end);
  if (report.comm > Seconds()) report.overlap_fraction = 1.0 - report.exposed_comm / report.comm;
  if (busiest > 0) report.imbalance = 1 + behind_busiest / computed;
  if (result.end > 0) report.mfu = report.useful / (peak_of_types(s, report.useful) * report.step_time * ranks);
  for (std::size_t p = 0; p < result.phases.size(); ++p) {
    const PhaseTotals& totals = result.phases[p];
    if (totals.end == 0) continue;
    report.phases.push_back({program.phases()[p], to_seconds(totals.start), to_seconds(totals.end),
                             totals.compute_busy / ranks, totals.comm_busy / ranks});
  }
  report.critical_path = critical_path_of(result, program);
  report.links = links_of(result, s.cluster);
  report.power = run.power;
  report.interval = step_interval(s, program, result);
  report.constants = ConstantList(s).take();
  report.left_out = left_out_of(s);
  report.engine = name_of(result.engine);
  report.engine_reason = result.engine_reason;
  report.events = result.events;
  report.wall_s = wall_s;
  return report;
}

}  // namespace

Report summarize(const Scenario& s, const AttentionProgram& program, const PoweredResult& run, double wall_s) {
  Report report = summarize_any(s, program, run, wall_s);
  const auto most_flops = std::max_element(report.ranks.begin(), report.ranks.end(),
                                           [](const auto& a, const auto& b) { return a.executed < b.executed; });
  report.intensity =
      intensities_of(program, s.cluster, static_cast<Rank>(std::distance(report.ranks.begin(), most_flops)));
  return report;
}

Report summarize(const Scenario& s, const StepProgram& program, const PoweredResult& run, double wall_s) {
  Report report = summarize_any(s, program, run, wall_s);
  const MemoryPoint fullest = fullest_point(program);
  report.memory = fullest.memory;
  report.memory_peak = fullest.what();
  return report;
}

SimulationResult simulate(const Program& program, const Scenario& s, SimulationOptions options) {
  if (options.perturbation == nullptr) options.perturbation = s.variation.perturbation.get();
  options.faults = s.fault_plan.faults.get();
  SimulationResult result = simulate(program, s.cluster, options);
  s.fault_plan.check_end(result.end);
  return result;
}

namespace {

template <class AnyProgram>
Report predict_with(const Scenario& scenario, AnyProgram program, const SimulationOptions& options,
                    std::chrono::steady_clock::time_point start) {
  const PoweredResult run = simulate_step(program, scenario, options);
  const std::chrono::duration<double> wall = std::chrono::steady_clock::now() - start;
  return summarize(scenario, program, run, wall.count());
}

}  // namespace

Report predict(const Scenario& scenario, const SimulationOptions& options) {
  const auto start = std::chrono::steady_clock::now();
  if (scenario.whole_step) return predict_with(scenario, build_step(scenario), options, start);
  return predict_with(scenario, build_program(scenario), options, start);
}

}  // namespace orrery
