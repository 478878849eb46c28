#include "scenarios/size_candidate.hpp"

#include <algorithm>

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
  const char* layout;
};

std::vector<Spread> spreads(const SizeProblem& problem, int context, int tensor) {
  using HeadExchange = ScheduleKind::HeadExchange;
  const int heads = static_cast<int>(problem.model.heads) / tensor;
  const int kv_heads = std::max(1, static_cast<int>(problem.model.kv_heads) / tensor);
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
      if (members > 1 && members * tensor > exchange_nodes * problem.node_size) continue;
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
      for (const Spread& spread : spreads(problem, each.context, each.tensor)) {
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

}  // namespace orrery
