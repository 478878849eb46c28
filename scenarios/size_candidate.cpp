#include "scenarios/size_candidate.hpp"

#include <algorithm>
#include <array>
#include <string_view>

#include "sim/simulate.hpp"
#include "sim/topologies.hpp"

namespace orrery {
namespace {

constexpr Index least_tokens = 1024;  // of a sequence on a rank; with fewer, kernels are all start-up

int layers_per_chunk(const SizeProblem& problem, const Candidate& c) {
  return static_cast<int>(problem.model.layers) / (c.degrees.pipeline * c.degrees.virtual_stages);
}

MemoryInput memory_input(const SizeProblem& problem, const Candidate& c) {
  MemoryInput in;
  in.model = &problem.model;
  in.layers = static_cast<int>(problem.model.layers);
  in.tokens = static_cast<double>(problem.tokens);
  in.sequences = static_cast<double>(problem.batch) / (c.degrees.data * c.microbatches);
  in.microbatches = c.microbatches;
  in.pass = problem.pass;
  in.element_bytes = bytes_per_element(problem.dtype);
  in.state = adam_state(in.element_bytes);
  in.degrees = c.degrees;
  in.recompute = c.recompute;
  in.visiting =
      visiting_blocks(*c.schedule, c.groups, c.members, fetched_share(problem.primitives, in.tokens, c.groups));
  in.fused_loss = true;
  return in;
}

/// Kernels measured one by one may come closer to the peak than the mean efficiency says; they cannot exceed it.
double most_efficiency(const Profile& profile, const Constant& efficiency) {
  return profile.kernels ? 1.0 : efficiency.value;
}

/// Ranks that one rank's neighbours on an axis are apart, in nodes.
bool leaves_node(const SizeProblem& problem, int ranks) {
  return ranks > problem.node_size;
}

BytesPerSecond rate(const SizeProblem& problem, const GpuOption& gpu, bool between_nodes) {
  const LinkType& link = between_nodes ? problem.network : gpu.link;
  return link.bandwidth * gpu.profile.link_efficiency.value;
}

}  // namespace

void SizeProblem::prepare() {
  const Pattern pattern(primitives, static_cast<int>(model.layers));
  const TokenSet all({{0, tokens, 1}});
  pairs = static_cast<double>(pattern.mask(0, tokens, causal, {}).pairs(all, all));
}

// A rank computes at least its share of the matrices and, on the mean of the context ranks, of the attended pairs. Rows
// are gathered and sums scattered in turn with the matrices of a forward pass. A full pipeline idles (p - 1) / v of its
// microbatch. NICs carry all that FSDP shares.
Bound bound_of(const SizeProblem& problem, const Candidate& c) {
  const GpuOption& option = problem.gpus[static_cast<std::size_t>(c.gpu)];
  const MemoryInput in = memory_input(problem, c);
  const Memory memory = memory_of(in);
  const ModelShape& m = problem.model;
  const Degrees& d = c.degrees;
  const double peak = option.gpu.peak(problem.dtype).si(), e = in.element_bytes;
  const double hbm = option.gpu.hbm_bandwidth.si();
  const double dense_rate = peak * most_efficiency(option.profile, option.profile.dense_efficiency);
  const bool decode = in.pass == StepPass::decode, training = in.pass == StepPass::training;
  const double rows = in.sequences * (decode ? 1 : in.tokens / d.context);
  const double weights = (m.attention_parameters() + m.ffn_parameters()) / d.tensor;
  const double dense = std::max(2 * rows * weights / dense_rate, weights * e / hbm);
  const double pairs = decode ? in.tokens : problem.pairs;
  const double attention = 4 * in.sequences * pairs * static_cast<double>(m.heads * m.head_dim) / d.tensor / d.context;
  const Profile& p = option.profile;
  double forward = dense, backward = 2 * dense;
  const double hidden = rows * static_cast<double>(m.hidden) * e;
  if (d.tensor > 1) {
    const double turn =
        hidden * (d.tensor - 1.0) / d.tensor / rate(problem, option, leaves_node(problem, d.tensor)).si();
    forward += 4 * turn;
    backward += 2 * turn;
  }
  if (decode) {
    forward += in.sequences * in.tokens / d.context * 2 * static_cast<double>(m.kv_heads * m.head_dim) /
               std::min<double>(d.tensor, static_cast<double>(m.kv_heads)) * e / hbm;
  } else {
    // Where blocks go round, the rank at the end of a node sends all but one of them through its NIC.
    double round = 0;
    if (c.groups > 1 && c.schedule->slots.hold != ScheduleKind::Slots::Hold::fetched) {
      const bool between = leaves_node(problem, d.tensor * d.context);
      const double keys =
          static_cast<double>(m.kv_heads * m.head_dim) / std::min<double>(d.tensor, static_cast<double>(m.kv_heads));
      const LinkType& link = between ? problem.network : option.link;
      round = (c.groups - 1) * (2 * rows * keys * e / rate(problem, option, between).si() + link.latency.si());
    }
    forward += std::max(round, attention / (peak * most_efficiency(p, p.attention_forward_efficiency)));
    backward += std::max(round, 2.5 * attention / (peak * most_efficiency(p, p.attention_backward_efficiency)));
  }
  const double layers = static_cast<double>(m.layers) / d.pipeline;
  const bool again = training && c.recompute == Recompute::full;
  const double head = 2 * rows * static_cast<double>(m.hidden * m.vocabulary) / d.tensor / dense_rate;
  const double slot = layers * (forward + (training ? backward + (again ? forward : 0) : 0));
  double time = slot * (c.microbatches + (d.pipeline - 1.0) / d.virtual_stages);
  if (training) time += 3 * head * c.microbatches;
  if (training && d.replicas() > 1) {
    const double passes = d.zero >= 3 ? 3.0 * c.microbatches : 2.0;
    const int span = d.tensor * d.replicas();
    const bool between = leaves_node(problem, span);
    const double local = std::max(1.0, static_cast<double>(problem.node_size) / d.tensor);
    const double share = between ? 1 / std::min(local, static_cast<double>(d.replicas())) : 1.0;
    time = std::max(time, passes * layers * weights * e * (d.replicas() - 1.0) / d.replicas() * share /
                              rate(problem, option, between).si());
  }
  return {Seconds::from_si(time), memory.peak(), memory.fits(option.gpu.hbm_capacity)};
}

namespace {

/// How a sequence is spread over `context` ranks.
struct Spread {
  const ScheduleKind* schedule;
  int groups, members;
  const char* layout;
};

std::vector<Spread> spreads(const SizeProblem& problem, int context, int heads, int kv_heads) {
  using HeadExchange = ScheduleKind::HeadExchange;
  const bool full = std::all_of(problem.primitives.begin(), problem.primitives.end(),
                                [](const Primitive& p) { return p.kind == Primitive::Kind::full; });
  std::vector<Spread> all;
  for (const ScheduleKind& schedule : schedules()) {
    if (schedule.needs_inner_ring) continue;
    const bool fetches = schedule.slots.hold == ScheduleKind::Slots::Hold::fetched;
    if (context == 1) {
      if (all.empty()) all.push_back({&schedule, 1, 1, "contiguous"});
      continue;
    }
    if (fetches == full) continue;  // a fetch of everything is a gather; a sparse pattern needs but a fetch
    const char* layout = full && problem.causal ? "zigzag" : "contiguous";
    for (int members = 1; members <= std::min(context, heads); members *= 2) {
      const bool none = schedule.head_exchange == HeadExchange::none;
      const bool whole = schedule.head_exchange == HeadExchange::all_ranks;
      if (none != (members == 1) || whole != (members == context)) continue;
      if (kv_heads % members != 0 && members % kv_heads != 0) continue;
      all.push_back({&schedule, context / members, members, layout});
    }
  }
  return all;
}

}  // namespace

std::vector<Candidate> candidates_of(const SizeProblem& problem) {
  const ModelShape& m = problem.model;
  std::vector<Candidate> all;
  const bool training = problem.pass == StepPass::training;
  std::vector<Degrees> degrees;
  Degrees d;
  for (d.tensor = 1; d.tensor <= problem.node_size && m.heads % d.tensor == 0; d.tensor *= 2) {
    if (m.kv_heads % d.tensor != 0 && d.tensor % m.kv_heads != 0) continue;
    for (d.pipeline = 1; d.pipeline <= problem.max_gpus && m.layers % d.pipeline == 0; d.pipeline *= 2) {
      for (d.data = 1; d.data <= problem.batch && problem.batch % d.data == 0; d.data *= 2) {
        for (d.context = 1; d.context <= problem.tokens / least_tokens; d.context *= 2) {
          if (std::int64_t{1} * d.tensor * d.pipeline * d.data * d.context > problem.max_gpus) break;
          if (problem.tokens % (2 * d.context) == 0) degrees.push_back(d);
        }
      }
    }
  }
  for (std::size_t gpu = 0; gpu < problem.gpus.size(); ++gpu) {
    for (const Degrees& each : degrees) {
      const int heads = static_cast<int>(m.heads) / each.tensor;
      const int kv_heads = std::max(1, static_cast<int>(m.kv_heads) / each.tensor);
      for (const Spread& spread : spreads(problem, each.context, heads, kv_heads)) {
        for (const int zero : {1, 3}) {
          if ((!training || each.replicas() == 1) && zero != 1) continue;
          for (const Recompute recompute : {Recompute::none, Recompute::full}) {
            if (!training && recompute != Recompute::none) continue;
            Candidate c;
            c.gpu = static_cast<int>(gpu);
            c.degrees = each;
            c.degrees.zero = training && each.replicas() > 1 ? zero : 0;
            c.degrees.sequence_parallel = problem.pass != StepPass::decode;
            c.schedule = spread.schedule;
            c.groups = spread.groups;
            c.members = spread.members;
            c.layout = spread.layout;
            c.recompute = recompute;
            c.microbatches = problem.pass == StepPass::decode ? 1 : static_cast<int>(problem.batch / each.data);
            all.push_back(c);
          }
        }
      }
    }
  }
  return all;
}

CandidateScenario scenario_of(const SizeProblem& problem, const Candidate& c, int layers, int microbatches) {
  const GpuOption& option = problem.gpus[static_cast<std::size_t>(c.gpu)];
  CandidateScenario result;
  Scenario& s = result.scenario;
  s.name = "candidate";
  s.model = problem.model;
  s.tokens = problem.tokens;
  s.batch = problem.pass == StepPass::decode ? problem.batch : static_cast<Index>(c.degrees.data) * microbatches;
  s.dtype = problem.dtype;
  s.backward = problem.pass == StepPass::training;
  s.decode = problem.pass == StepPass::decode;
  s.whole_step = true;
  s.layers = layers * c.degrees.pipeline * c.degrees.virtual_stages;
  s.causal = problem.causal;
  s.primitives = problem.primitives;
  s.schedule = c.schedule;
  s.layout = c.layout;
  s.groups = c.groups;
  s.members = c.members;
  s.implementation = problem.implementation;
  s.degrees = c.degrees;
  s.recompute = c.recompute;
  s.microbatches = microbatches;
  s.fused_loss = true;
  s.gpu = option.gpu;
  s.profile = option.profile;
  // Two nodes of replicas show what any number of them does.
  const int replica = c.degrees.tensor * c.degrees.context;
  while (c.degrees.data / result.folds > 1 && replica * (c.degrees.data / result.folds) > 2 * problem.node_size)
    result.folds *= 2;
  const Rank ranks = c.degrees.ranks() / result.folds;
  const double efficiency = option.profile.link_efficiency.value;
  const GpuResources gpu{static_cast<double>(option.gpu.sms), option.gpu.hbm_bandwidth};
  const LinkSpec link{option.link.bandwidth * efficiency, option.link.latency};
  s.node_size = std::min(ranks, problem.node_size);
  s.links.push_back({"link", option.link});
  if (ranks <= problem.node_size) {
    s.topology = "nvswitch";
    s.cluster = nvswitch(gpu, {ranks, link});
  } else {
    const Rank nodes = ranks / problem.node_size;
    s.topology = "fat_tree";
    s.links.push_back({"network", problem.network});
    s.cluster = fat_tree(gpu, {nodes,
                               NvSwitch{problem.node_size, link},
                               {problem.network.bandwidth * efficiency, problem.network.latency},
                               nodes,
                               1,
                               problem.network.latency});
  }
  return result;
}

namespace {

SimulationResult run(const SizeProblem& problem, const Candidate& c, int layers, int microbatches) {
  const CandidateScenario built = scenario_of(problem, c, layers, microbatches);
  const StepProgram program = build_step(built.scenario, built.folds);
  return simulate(program, built.scenario.cluster);
}

}  // namespace

Flops useful_flops(const SizeProblem& problem) {
  Candidate any;
  any.schedule = &schedules().front();
  const MemoryInput in = memory_input(problem, any);
  const double pairs = in.pass == StepPass::decode ? in.tokens : problem.pairs;
  const double attention = 4 * static_cast<double>(problem.model.heads * problem.model.head_dim) * pairs;
  return dense_flops(in) + Flops::from_si((in.pass == StepPass::training ? 3.5 : 1) * attention *
                                          static_cast<double>(problem.batch * problem.model.layers));
}

SimulatedStep simulate_candidate(const SizeProblem& problem, const Candidate& c) {
  const int layers = layers_per_chunk(problem, c), microbatches = c.microbatches;
  // One layer more, one microbatch more: from where on each adds the same.
  const int few_layers = std::min(layers, 2);
  const int few = std::min(microbatches, c.degrees.pipeline == 1 ? 1 : 2 * c.degrees.pipeline);
  const auto seconds = [&](int l, int n) { return to_seconds(run(problem, c, l, n).end).si(); };
  const SimulationResult base = run(problem, c, few_layers, few);
  const double t = to_seconds(base.end).si();
  const double more_layers = layers - few_layers, more = microbatches - few;
  double time = t;
  const double with_layer = more_layers > 0 ? seconds(few_layers + 1, few) : t;
  const double with_microbatch = more > 0 ? seconds(few_layers, few + 1) : t;
  time += more_layers * (with_layer - t) + more * (with_microbatch - t);
  if (more_layers > 0 && more > 0)
    time += more_layers * more * (seconds(few_layers + 1, few + 1) - with_layer - with_microbatch + t);
  SimulatedStep step;
  step.time = Seconds::from_si(time);
  Ticks largest = base.critical_path.contention;
  step.bottleneck = "contention";
  for (std::size_t i = 0; i < base.critical_path.by_category.size(); ++i) {
    if (base.critical_path.by_category[i] <= largest) continue;
    largest = base.critical_path.by_category[i];
    step.bottleneck = step_category_names()[i];
  }
  step.bottleneck_share = base.end > 0 ? static_cast<double>(largest) / static_cast<double>(base.end) : 0;
  return step;
}

}  // namespace orrery
