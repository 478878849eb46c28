#include "scenarios/size_simulation.hpp"

#include <algorithm>
#include <memory>
#include <optional>
#include <utility>
#include <variant>
#include <vector>

#include "scenarios/step_power.hpp"
#include "scenarios/step_scenario.hpp"
#include "sim/simulate.hpp"
#include "sim/topologies.hpp"

namespace orrery {

SampleSize whole(const SizeProblem& problem, const Candidate& c) {
  const auto layers = static_cast<int>(problem.model.layers);
  return {layers / (c.degrees.pipeline * c.degrees.virtual_stages), c.microbatches, c.groups, c.degrees.data};
}

CandidateScenario scenario_of(const SizeProblem& problem, const Candidate& c, const SampleSize& size) {
  const GpuOption& option = problem.gpus[static_cast<std::size_t>(c.gpu)];
  CandidateScenario result;
  Scenario& s = result.scenario;
  s.name = "candidate";
  s.model = problem.model;
  result.folds.context = c.groups / size.groups;
  // What a rank fetches does not grow with the ring.
  const bool fetched = c.schedule->slots.hold == ScheduleKind::Slots::Hold::fetched;
  result.folds.steps = fetched ? 1 : result.folds.context;
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
  s.inner_ring = c.inner_ring;
  s.implementation = problem.implementation;
  s.degrees = c.degrees;
  s.degrees.context = size.groups * c.members;
  s.recompute = c.recompute;
  s.microbatches = size.microbatches;
  s.fused_loss = true;
  s.fp8_matrices = problem.fp8_matrices;
  s.gpu = option.gpu;
  s.profile = option.profile;
  result.folds.data = c.degrees.data / size.replicas;
  const Rank ranks = s.degrees.ranks() / result.folds.data;
  const double efficiency = option.profile.link_efficiency.value;
  const GpuResources gpu{static_cast<double>(option.gpu.sms), option.gpu.hbm_bandwidth};
  const LinkSpec link{option.link.bandwidth * efficiency, option.link.latency};
  s.node_size = std::min(ranks, c.node_size);
  const bool tree = option.node && option.node->is_tree();
  s.links.push_back({"link", option.link, tree ? option.node->gpus_per_switch : s.node_size});
  if (ranks <= c.node_size) {
    s.topology = tree ? "pcie_tree" : "nvswitch";
    s.cluster = tree ? pcie_tree(gpu, tree_of(*option.node, ranks, link)) : nvswitch(gpu, {ranks, link});
  } else {
    const Rank nodes = ranks / c.node_size;
    s.topology = "fat_tree";
    s.links.push_back({"network", problem.network});
    std::variant<NvSwitch, PcieTree> node = NvSwitch{c.node_size, link};
    if (tree) node = tree_of(*option.node, c.node_size, link);
    s.cluster = fat_tree(
        gpu, {nodes, node, {problem.network.bandwidth, problem.network.latency}, nodes, 1, problem.network.latency});
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
    } else if (p.kind == Primitive::Kind::gated_skip) {
      lag = std::max(lag, p.period);
    } else {
      return std::nullopt;
    }
  }
  return lag;
}

bool fetches(const Candidate& c) {
  return c.schedule->slots.hold == ScheduleKind::Slots::Hold::fetched;
}

/// All, unless they are alike and their ranks meet all others step by step, as in a ring: where each waits for others
/// of its own, or all for a gather, what holds one up in a layer reaches the next ones layer by layer.
Repeats layers_of(const SizeProblem& problem, const Candidate& c, int all) {
  const bool ring = c.groups == 1 || c.schedule->slots.hold == ScheduleKind::Slots::Hold::block;
  return problem.layer_kinds.size() == 1 && ring ? Repeats::of(2, 3, all) : Repeats::of(all, all, all);
}

/// Groups of a ring: so many that it leaves the nodes as the whole one does.
Repeats groups_of(const SizeProblem& problem, const Candidate& c, bool fine) {
  // Ranks of a decode step read as many keys as a window has among theirs, and layers that skip steps of a ring and
  // others that do not are not merged alike.
  if (problem.pass == StepPass::decode || problem.layer_kinds.size() > 1)
    return Repeats::of(c.groups, c.groups, c.groups);
  const int group = c.degrees.tensor * c.members;
  int few = c.schedule->slots.hold == ScheduleKind::Slots::Hold::sequence ? 16 : 4;
  const int rings = fine ? 4 : 2;  // of a double ring
  while (few * group < 2 * c.node_size || few < rings * c.inner_ring) few *= 2;
  if (fetches(c)) {
    const std::optional<Index> lag = farthest(problem.primitives);
    const Index own = problem.tokens / c.groups;
    while (few < c.groups && (!lag || few * own < 2 * *lag + 2 * own)) few *= 2;
  }
  return Repeats::of(few, 2 * few, c.groups, true);
}

/// The largest part of a critical path, in ticks by category and, last, contention.
void name_bottleneck(SimulatedStep& step, const std::vector<double>& parts) {
  const auto largest = std::max_element(parts.begin(), parts.end());
  const auto category = static_cast<std::size_t>(largest - parts.begin());
  step.bottleneck = category < step_category_names().size() ? step_category_names()[category] : "contention";
  step.bottleneck_share = step.time > Seconds() ? *largest / 1e12 / step.time.si() : 0;
}

/// Two nodes of replicas show what any number of them does, or as few as fill nodes.
int replicas_of(const Candidate& c, int groups) {
  const int replica = c.degrees.tensor * groups * c.members;
  int replicas = c.degrees.data;
  while (replicas % 2 == 0 && replica * replicas > 2 * c.node_size && replica * replicas / 2 % c.node_size == 0)
    replicas /= 2;
  return replicas;
}

/// Of its whole program, which takes about a second for half a million of them.
double blocks_of(const SizeProblem& problem, const Candidate& c) {
  const bool training = problem.pass == StepPass::training;
  const double passes = !training ? 1 : c.recompute == Recompute::full ? 3 : 2;
  const double steps = problem.pass == StepPass::decode ? 1 : 2 + (fetches(c) ? 2 : c.groups);
  const double layers = static_cast<double>(problem.model.layers) / c.degrees.pipeline;
  return layers * c.microbatches * passes * steps * c.degrees.ranks();
}

enum class Care { samples, whole_if_small };

/// A few programs from whose times that of the candidate follows, or its own if that is small. `fine`: of double rings
/// more than a guess needs.
class Samples : public PoweredStep {
 public:
  Samples(const SizeProblem& problem, const Candidate& c, Care care, bool fine = false) {
    constexpr double most_blocks = 20'000;
    const SampleSize all = whole(problem, c);
    if (care == Care::whole_if_small && blocks_of(problem, c) <= most_blocks) {
      samples_.push_back(std::make_unique<Sample>(scenario_of(problem, c, all), 1));
      return;
    }
    const int stages = c.degrees.pipeline;
    const Repeats layers = layers_of(problem, c, all.layers);
    // Interleaved stages take turns in rounds of as many microbatches as there are stages.
    const int one_more = c.degrees.virtual_stages > 1 ? stages : 1;
    const Repeats microbatches = stages == 1 ? Repeats::of(1, 2, all.microbatches)
                                             : Repeats::of(2 * stages, 2 * stages + one_more, all.microbatches);
    const Repeats groups = groups_of(problem, c, fine);
    for (int corner = 0; corner < 8; ++corner) {
      double weight = 1;
      const auto choose = [&](const Repeats& r, int bit) {
        const bool more = (corner & bit) != 0;
        weight *= more ? r.weight_of_more() : 1 - r.weight_of_more();
        return more ? r.more : r.few;
      };
      SampleSize size{choose(layers, 1), choose(microbatches, 2), choose(groups, 4), 0};
      size.replicas = replicas_of(c, size.groups);
      if (weight != 0) samples_.push_back(std::make_unique<Sample>(scenario_of(problem, c, size), weight));
    }
  }

  Seconds simulate(ClockCap cap) override {
    set(cap);
    double time = 0;
    parts_.assign(step_category_names().size() + 1, 0);
    for (const auto& sample : samples_) {
      const SimulationResult result = orrery::simulate(sample->program, sample->built.scenario.cluster);
      time += sample->weight * to_seconds(result.end).si();
      for (std::size_t i = 0; i + 1 < parts_.size(); ++i)
        parts_[i] += sample->weight * static_cast<double>(result.critical_path.by_category[i]);
      parts_.back() += sample->weight * static_cast<double>(result.critical_path.contention);
    }
    time_ = Seconds::from_si(time);
    return time_;
  }

  KernelWork hottest(ClockCap cap) override {
    set(cap);
    KernelWork work;
    for (const auto& sample : samples_) {
      if (!sample->hottest) sample->hottest = hottest_of(sample->program);
      work += sample->program.kernel_work(*sample->hottest) * sample->weight;
    }
    return work;
  }

  /// Of the first stage's rank with the last tokens, one after the other.
  Seconds kernels() const {
    Seconds sum;
    for (const auto& sample : samples_) {
      const StepProgram& program = sample->program;
      sum += program.kernel_work(program.ranks() / program.stages() - 1).time * sample->weight;
    }
    return sum;
  }

  /// Of what all ranks compute, at the present clock, a rank.
  Joules mean_energy() {
    Joules sum;
    for (const auto& sample : samples_) {
      const std::vector<KernelWork> ranks = sample->program.kernel_work_of_ranks();
      Joules all;
      for (const KernelWork& work : ranks) all += work.energy;
      sum += all * (sample->weight / static_cast<double>(ranks.size()));
    }
    return sum;
  }

  /// As simulated last.
  SimulatedStep step() const {
    SimulatedStep step;
    step.time = time_;
    step.kernels = kernels();
    name_bottleneck(step, parts_);
    return step;
  }

 private:
  struct Sample {
    Sample(CandidateScenario from, double times)
        : built(std::move(from)), weight(times), program(build_step(built.scenario, built.folds)) {}
    CandidateScenario built;
    double weight;
    StepProgram program;
    std::optional<Rank> hottest;
  };

  static Rank hottest_of(const StepProgram& program) {
    const std::vector<KernelWork> ranks = program.kernel_work_of_ranks();
    const auto most =
        std::max_element(ranks.begin(), ranks.end(), [](const auto& a, const auto& b) { return a.energy < b.energy; });
    return static_cast<Rank>(most - ranks.begin());
  }

  void set(ClockCap cap) {
    if (cap == cap_) return;
    cap_ = cap;
    for (const auto& sample : samples_) sample->program.cap_clock(cap);
  }

  std::vector<std::unique_ptr<Sample>> samples_;
  ClockCap cap_;  // programs begin at the cap of each kernel alone
  Seconds time_;
  std::vector<double> parts_;
};

}  // namespace

SimulatedStep simulate_candidate(const SizeProblem& problem, const Candidate& c) {
  Samples samples(problem, c, Care::samples);
  samples.simulate(Regime::sustained);
  return samples.step();
}

Seconds most_gain(Seconds idle) {
  return idle / 3;
}

SimulatedStep simulate_for_search(const SizeProblem& problem, const Candidate& c, const Bound& bound,
                                  const std::function<bool(Seconds)>& may_matter) {
  constexpr double close_enough = 0.01;  // of the power limit: a third of that in time
  const Profile& profile = problem.gpus[static_cast<std::size_t>(c.gpu)].profile;
  Samples samples(problem, c, Care::whole_if_small);
  if (!has_power_limit(profile)) {
    samples.simulate(Regime::sustained);
    return samples.step();
  }
  const ClockModel& clock = profile.kernels->clock;
  KernelWork work = samples.hottest(Regime::sustained);
  Seconds alike = samples.kernels() + bound.beside_kernels;  // of GPUs that do not lag
  for (int pass = 0; pass < 2; ++pass) {
    const ClockCap cap = cap_at_limit(samples, clock, alike, work);
    work = samples.hottest(cap);
    const Seconds kernels = samples.kernels();
    const ClockCap slowest = cap_at_limit(samples, clock, alike, work, slowest_lag(clock, c.degrees.ranks(), alike));
    const bool is_limited = slowest.hz() < 0.999 * clock.maximum_clock.value;
    const Seconds lagging = samples.simulate(slowest);
    alike = lagging - (samples.kernels() - kernels);
    if (!is_limited || mean_power(clock, work, alike).si() > (1 - close_enough) * clock.power_limit.value) break;
    const Seconds idle = lagging - samples.kernels();
    if (!may_matter(lagging - most_gain(idle - bound.beside_kernels))) break;
  }
  return samples.step();
}

Bound tightened(const SizeProblem& problem, const Candidate& c, Bound bound) {
  // Of a kernel of 50 ns or more the simulator's rounding to ticks takes less than this.
  constexpr double rounding = 1e-5;
  bound.time =
      std::max(bound.time, Samples(problem, c, Care::samples).kernels() * (1 - rounding) + bound.beside_kernels);
  return bound;
}

Seconds least_settled(const SizeProblem& problem, const Candidate& c, const Bound& bound) {
  constexpr double rounding = 1e-5;  // as above
  const ClockModel& clock = problem.gpus[static_cast<std::size_t>(c.gpu)].profile.kernels->clock;
  Samples samples(problem, c, Care::samples);
  const KernelWork alone = samples.hottest(Regime::sustained);
  const Seconds step = samples.kernels() + bound.beside_kernels;
  samples.hottest(cap_at_limit(samples, clock, step, alone, slowest_lag(clock, c.degrees.ranks(), step)));
  return samples.kernels() * (1 - rounding) + bound.beside_kernels;
}

SimulatedStep simulate_settled(const SizeProblem& problem, const Candidate& c) {
  const Profile& profile = problem.gpus[static_cast<std::size_t>(c.gpu)].profile;
  Samples samples(problem, c, Care::whole_if_small, true);
  if (!has_power_limit(profile)) {
    samples.simulate(Regime::sustained);
    return samples.step();
  }
  const ClockModel& clock = profile.kernels->clock;
  const double cap_hz = settle_clock(samples, clock, Regime::sustained);
  const Joules kernels = samples.mean_energy();  // of GPUs alike, which wait for the slowest
  const ClockCap cap = cap_hz > 0 ? ClockCap::shared(cap_hz) : ClockCap(Regime::burst);
  const Seconds length = samples.step().time;
  const double lag = slowest_lag(clock, c.degrees.ranks(), length);
  const ClockCap slowest = cap_at_limit(samples, clock, length, samples.hottest(cap), lag);
  if (slowest.hz() < std::min(cap.hz(), clock.maximum_clock.value)) samples.simulate(slowest);
  SimulatedStep step = samples.step();
  const Joules idle = Watts::from_si(clock.idle_power.value) * step.time;
  step.energy = (idle + kernels) * static_cast<double>(c.degrees.ranks());
  return step;
}

}  // namespace orrery
