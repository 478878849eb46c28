#include "scenarios/size_candidate.hpp"

#include <algorithm>
#include <cmath>
#include <optional>
#include <stdexcept>
#include <string>

#include "scenarios/layout.hpp"
#include "scenarios/step_scenario.hpp"
#include "sim/contains.hpp"

namespace orrery {

namespace {

/// Of the last tokens of a sequence, those on the rank that has most of them.
double most_of_last(double last, double tokens, const Candidate& c) {
  const double own = tokens / c.degrees.context;
  if (c.layout == "striped") return std::min(own, std::ceil(last / c.groups));
  if (c.layout == "contiguous" || c.groups == 1) return std::min(own, last);
  // Zigzag: ring member r has the blocks r and 2 P - 1 - r of 2 P.
  const double block = tokens / (2.0 * c.groups);
  const double of_group = std::min(block, last) + std::clamp(last - block * static_cast<double>(c.groups), 0.0, block);
  return std::min(own, of_group);
}

double cached_share(const SizeProblem& problem, const Candidate& c) {
  const auto tokens = static_cast<double>(problem.tokens);
  double cached = 0;
  for (const SizeProblem::LayerKind& kind : problem.layer_kinds) {
    for (const Index rows : {kind.cached.last, kind.cached.values})
      cached += kind.share * most_of_last(static_cast<double>(rows), tokens, c) / 2;
  }
  return cached / (tokens / c.degrees.context);
}

}  // namespace

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
  // A decode step moves no keys.
  if (in.pass != StepPass::decode)
    in.visiting = visiting_blocks(
        *c.schedule, c.groups, c.members,
        fetched_share(problem.primitives, in.tokens, c.groups, problem.implementation.halo_of_whole_windows),
        problem.implementation.halo_is_kept && in.pass == StepPass::training);
  if (in.pass != StepPass::training && problem.causal) in.cached_share = cached_share(problem, c);
  in.fused_loss = true;
  return in;
}

namespace {

std::vector<int> divisors(Index number, Index most) {
  std::vector<int> all;
  for (Index d = 1; d <= std::min(number, most); ++d) {
    if (number % d == 0) all.push_back(static_cast<int>(d));
  }
  return all;
}

/// Nodes that a head exchange spans at most: every member sends to every other, most of it through the NICs.
constexpr int exchange_nodes = 2;
constexpr Index least_tokens = 1024;  // of a sequence on a rank; with fewer, kernels are all start-up

/// How a sequence is spread over `context` ranks.
struct Spread {
  const ScheduleKind* schedule;
  int groups, members, inner_ring;
  std::string_view layout;
};

class Candidates {
 public:
  explicit Candidates(const SizeProblem& problem)
      : problem_(problem),
        training_(problem.pass == StepPass::training),
        decode_(problem.pass == StepPass::decode),
        all_full_(problem.all_full()),
        none_full_(problem.none_full()) {}

  std::vector<Candidate> list() {
    for (std::size_t gpu = 0; gpu < problem_.gpus.size(); ++gpu) {
      const std::optional<NodeShape>& node = problem_.gpus[gpu].node;
      for (const Degrees& degrees : all_degrees()) {
        if (node && degrees.ranks() < node->gpus && !is_even(*node, degrees.ranks())) continue;
        for (const int node_size : node_sizes_for(degrees)) {
          Candidate c;
          c.gpu = static_cast<int>(gpu);
          c.node_size = node_size;
          c.degrees = degrees;
          for (const Spread& spread : spreads(degrees, node_size)) {
            c.schedule = spread.schedule;
            c.groups = spread.groups;
            c.members = spread.members;
            c.inner_ring = spread.inner_ring;
            c.layout = spread.layout;
            cut_into_microbatches(c);
          }
        }
      }
    }
    return std::move(all_);
  }

 private:
  std::vector<Degrees> all_degrees() const {
    const ModelShape& m = problem_.model;
    std::vector<Degrees> all;
    Degrees d;
    d.sequence_parallel = !decode_;
    for (d.tensor = 1; d.tensor <= problem_.node_sizes.back() && m.heads % d.tensor == 0; d.tensor *= 2) {
      if (m.kv_heads % d.tensor != 0 && d.tensor % m.kv_heads != 0) continue;
      for (const int stages : divisors(m.layers, problem_.max_gpus)) {
        d.pipeline = stages;
        for (const int replicas : divisors(problem_.batch, problem_.max_gpus)) {
          d.data = replicas;
          for (d.context = 1; d.context == 1 || d.context <= problem_.tokens / least_tokens; d.context *= 2) {
            if (std::int64_t{1} * d.tensor * d.pipeline * d.data * d.context > problem_.max_gpus) break;
            if (d.context == 1 || problem_.tokens % (2 * d.context) == 0) all.push_back(d);
          }
        }
      }
    }
    return all;
  }

  /// Those that the ranks fill, and the smallest that holds all of them: larger ones are the same switch.
  std::vector<int> node_sizes_for(const Degrees& d) const {
    std::vector<int> sizes;
    for (const int size : problem_.node_sizes) {
      const bool holds_all = size >= d.ranks();
      if (d.tensor <= size && (holds_all || d.ranks() % size == 0)) sizes.push_back(size);
      if (holds_all) break;
    }
    return sizes;
  }

  /// Who holds which tokens decides how much each computes, if a ring of several groups masks the future; and how many
  /// of the keys of a window each has that a decode step reads.
  std::vector<std::string_view> layouts_of(int groups, bool fetches) const {
    std::vector<std::string_view> all;
    const bool balances = groups > 1 && !none_full_ && !fetches && problem_.causal && !decode_;
    for (const Layout& layout : layouts()) {
      const bool reads_evenly = decode_ && groups > 1 && !all_full_ && layout.name == "striped";
      const bool wanted =
          balances ? contains(problem_.layouts, layout.name) : layout.name == "contiguous" || reads_evenly;
      if (wanted && contains(problem_.implementation.layouts, layout.name)) all.push_back(layout.name);
    }
    if (all.empty() && !balances && (all_full_ || groups == 1))
      all.emplace_back(problem_.implementation.layouts.front());
    return all;
  }

  /// Ranks that a ring inside a node takes in: with one node, or one rank in each, a double ring is a ring.
  static int inner_ring_of(const Degrees& d, int node_size) {
    const int in_node = node_size / d.tensor;
    return in_node > 1 && d.context > in_node && d.context % in_node == 0 ? in_node : 1;
  }

  /// A fetch of everything is a gather, and where no token sees everything a fetch moves least, or an exchange of heads
  /// alone. A decode step moves no keys: every schedule is the same.
  bool suits(const ScheduleKind& schedule) const {
    const bool fetches = schedule.slots.hold == ScheduleKind::Slots::Hold::fetched;
    if (fetches) return !all_full_;
    return !none_full_ || schedule.head_exchange == ScheduleKind::HeadExchange::all_ranks;
  }

  std::vector<Spread> spreads(const Degrees& d, int node_size) const {
    using HeadExchange = ScheduleKind::HeadExchange;
    const int heads = static_cast<int>(problem_.model.heads) / d.tensor;
    const int kv_heads = std::max(1, static_cast<int>(problem_.model.kv_heads) / d.tensor);
    std::vector<Spread> all;
    for (const ScheduleKind& schedule : schedules()) {
      if (!contains(problem_.implementation.schedules, schedule.name)) continue;
      const bool fetches = schedule.slots.hold == ScheduleKind::Slots::Hold::fetched;
      if (d.context == 1) {
        if (all.empty()) all.push_back({&schedule, 1, 1, 1, layouts_of(1, fetches).front()});
        continue;
      }
      if (decode_ ? !all.empty() || schedule.needs_inner_ring : !suits(schedule)) continue;
      const int inner_ring = schedule.needs_inner_ring ? inner_ring_of(d, node_size) : 1;
      if (schedule.needs_inner_ring && inner_ring == 1) continue;
      for (int members = 1; members <= std::min(d.context, heads); members *= 2) {
        const bool none = schedule.head_exchange == HeadExchange::none;
        const bool whole = schedule.head_exchange == HeadExchange::all_ranks;
        if (none != (members == 1) || whole != (members == d.context)) continue;
        if (kv_heads % members != 0 && members % kv_heads != 0) continue;
        if (members > 1 && members * d.tensor > exchange_nodes * node_size) continue;
        const int at_a_time = problem_.implementation.gather_kv_heads;
        if (at_a_time > 0 && std::max(1, kv_heads / members) % at_a_time != 0) continue;
        for (const std::string_view layout : layouts_of(d.context / members, fetches))
          all.push_back({&schedule, d.context / members, members, inner_ring, layout});
      }
    }
    return all;
  }

  void cut_into_microbatches(Candidate c) {
    const auto sequences = decode_ ? 1 : static_cast<int>(problem_.batch / c.degrees.data);
    const auto layers = static_cast<int>(problem_.model.layers);
    for (const int of_each : divisors(sequences, sequences)) {
      c.microbatches = sequences / of_each;
      c.degrees.virtual_stages = 1;
      choose_memory(c);
      if (c.degrees.pipeline == 1 || c.microbatches % c.degrees.pipeline != 0) continue;
      for (const int chunks : divisors(layers / c.degrees.pipeline, layers)) {
        if (chunks == 1) continue;
        c.degrees.virtual_stages = chunks;
        choose_memory(c);
      }
    }
  }

  /// What saves memory last: the search leaves out a recomputation that it finds right behind the same without.
  void choose_memory(Candidate c) {
    for (const int zero : {1, 3}) {
      const bool shares = training_ && c.degrees.replicas() > 1;
      if (!shares && zero != 1) continue;
      c.degrees.zero = shares ? zero : 0;
      for (const Recompute recompute : {Recompute::none, Recompute::full}) {
        if (!training_ && recompute != Recompute::none) continue;
        c.recompute = recompute;
        all_.push_back(c);
      }
    }
  }

  const SizeProblem& problem_;
  bool training_, decode_, all_full_, none_full_;
  std::vector<Candidate> all_;
};

}  // namespace

std::vector<Candidate> candidates_of(const SizeProblem& problem) {
  const Implementation& i = problem.implementation;
  if (!problem.all_full() && !i.sparse) {
    throw std::invalid_argument(i.name + " runs full attention only, choose another implementation");
  }
  return Candidates(problem).list();
}

}  // namespace orrery
