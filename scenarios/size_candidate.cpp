#include "scenarios/size_candidate.hpp"

#include <algorithm>
#include <stdexcept>
#include <string>

#include "scenarios/layout.hpp"
#include "scenarios/step_scenario.hpp"

namespace orrery {

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

namespace {

/// Nodes that a head exchange spans at most: every member sends to every other, most of it through the NICs.
constexpr int exchange_nodes = 2;
constexpr Index least_tokens = 1024;  // of a sequence on a rank; with fewer, kernels are all start-up

/// How a sequence is spread over `context` ranks.
struct Spread {
  const ScheduleKind* schedule;
  int groups, members;
  std::string_view layout;
};

bool lists(const std::vector<std::string>& names, std::string_view name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

class Candidates {
 public:
  explicit Candidates(const SizeProblem& problem)
      : problem_(problem),
        training_(problem.pass == StepPass::training),
        full_(std::all_of(problem.primitives.begin(), problem.primitives.end(),
                          [](const Primitive& p) { return p.kind == Primitive::Kind::full; })) {}

  std::vector<Candidate> list() {
    for (std::size_t gpu = 0; gpu < problem_.gpus.size(); ++gpu) {
      for (const Degrees& degrees : all_degrees()) {
        for (const int node_size : node_sizes_for(degrees)) {
          Candidate c;
          c.gpu = static_cast<int>(gpu);
          c.node_size = node_size;
          c.degrees = degrees;
          for (const Spread& spread : spreads(degrees, node_size)) {
            c.schedule = spread.schedule;
            c.groups = spread.groups;
            c.members = spread.members;
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
    d.sequence_parallel = problem_.pass != StepPass::decode;
    for (d.tensor = 1; d.tensor <= problem_.node_sizes.back() && m.heads % d.tensor == 0; d.tensor *= 2) {
      if (m.kv_heads % d.tensor != 0 && d.tensor % m.kv_heads != 0) continue;
      for (d.pipeline = 1; d.pipeline <= problem_.max_gpus && m.layers % d.pipeline == 0; d.pipeline *= 2) {
        for (d.data = 1; d.data <= problem_.batch && problem_.batch % d.data == 0; d.data *= 2) {
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

  /// Who holds which tokens decides how much each computes, if a ring of several groups masks the future.
  std::vector<std::string_view> layouts_of(int groups) const {
    std::vector<std::string_view> all;
    const bool matters = groups > 1 && full_ && problem_.causal && problem_.pass != StepPass::decode;
    for (const Layout& layout : layouts()) {
      const bool wanted = matters ? lists(problem_.layouts, layout.name) : layout.name == "contiguous";
      if (wanted && lists(problem_.implementation.layouts, layout.name)) all.push_back(layout.name);
    }
    if (all.empty() && !matters && (full_ || groups == 1)) all.emplace_back(problem_.implementation.layouts.front());
    return all;
  }

  std::vector<Spread> spreads(const Degrees& d, int node_size) const {
    using HeadExchange = ScheduleKind::HeadExchange;
    const int heads = static_cast<int>(problem_.model.heads) / d.tensor;
    const int kv_heads = std::max(1, static_cast<int>(problem_.model.kv_heads) / d.tensor);
    std::vector<Spread> all;
    for (const ScheduleKind& schedule : schedules()) {
      if (schedule.needs_inner_ring || !lists(problem_.implementation.schedules, schedule.name)) continue;
      const bool fetches = schedule.slots.hold == ScheduleKind::Slots::Hold::fetched;
      if (d.context == 1) {
        if (all.empty()) all.push_back({&schedule, 1, 1, layouts_of(1).front()});
        continue;
      }
      if (fetches == full_) continue;  // a fetch of everything is a gather; a sparse pattern needs but a fetch
      for (int members = 1; members <= std::min(d.context, heads); members *= 2) {
        const bool none = schedule.head_exchange == HeadExchange::none;
        const bool whole = schedule.head_exchange == HeadExchange::all_ranks;
        if (none != (members == 1) || whole != (members == d.context)) continue;
        if (kv_heads % members != 0 && members % kv_heads != 0) continue;
        if (members > 1 && members * d.tensor > exchange_nodes * node_size) continue;
        const int at_a_time = problem_.implementation.gather_kv_heads;
        if (at_a_time > 0 && std::max(1, kv_heads / members) % at_a_time != 0) continue;
        for (const std::string_view layout : layouts_of(d.context / members))
          all.push_back({&schedule, d.context / members, members, layout});
      }
    }
    return all;
  }

  void cut_into_microbatches(Candidate c) {
    const auto sequences = problem_.pass == StepPass::decode ? 1 : static_cast<int>(problem_.batch / c.degrees.data);
    const auto layers = static_cast<int>(problem_.model.layers);
    for (int of_each = 1; of_each <= sequences && sequences % of_each == 0; of_each *= 2) {
      c.microbatches = sequences / of_each;
      c.degrees.virtual_stages = 1;
      choose_memory(c);
      if (c.degrees.pipeline == 1 || c.microbatches % c.degrees.pipeline != 0) continue;
      for (int chunks = 2; layers % (c.degrees.pipeline * chunks) == 0; chunks *= 2) {
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
  bool training_, full_;
  std::vector<Candidate> all_;
};

}  // namespace

std::vector<Candidate> candidates_of(const SizeProblem& problem) {
  const Implementation& i = problem.implementation;
  const bool sparse = std::any_of(problem.primitives.begin(), problem.primitives.end(),
                                  [](const Primitive& p) { return p.kind != Primitive::Kind::full; });
  if (sparse && !i.sparse) {
    throw std::invalid_argument(i.name + " runs full attention only, choose another implementation");
  }
  return Candidates(problem).list();
}

}  // namespace orrery
