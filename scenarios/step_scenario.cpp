#include "scenarios/step_scenario.hpp"

#include <algorithm>

namespace orrery {

double fetched_share(const std::vector<Primitive>& primitives, double tokens, int groups) {
  const double own = tokens / groups;
  double rows = 0;
  for (const Primitive& p : primitives) {
    const auto period = static_cast<double>(p.period);
    switch (p.kind) {
      case Primitive::Kind::full:
        rows = tokens;
        break;
      case Primitive::Kind::window:
        rows += static_cast<double>(p.left + p.right);
        break;
      case Primitive::Kind::stride:
        // Each skip reaches another block of the rank's own size, if skips lie further apart than that.
        rows += p.count == 0 ? tokens : static_cast<double>(p.count) * std::min(own, period);
        break;
      case Primitive::Kind::gated_skip:
        rows += std::min(own, period) / 2;  // of V alone
        break;
      case Primitive::Kind::sink:
        rows += static_cast<double>(p.first);
        break;
    }
  }
  return std::min(rows / own, static_cast<double>(groups - 1));
}

VisitingBlocks visiting_blocks(const ScheduleKind& schedule, int groups, int members, double fetched, bool kept) {
  using Hold = ScheduleKind::Slots::Hold;
  const ScheduleKind::Slots& slots = schedule.slots;
  const double size = groups == 1                    ? 0
                      : slots.hold == Hold::sequence ? groups
                      : slots.hold == Hold::fetched  ? fetched
                                                     : 1;
  // A head exchange keeps K and V (dK and dV) both as they were and as they are attended.
  const double exchanged = members > 1 ? 1 : 0;
  const bool stays = kept && slots.hold == Hold::fetched;
  return {(stays ? 0 : slots.keys * size) + exchanged, slots.gradients * size + exchanged, stays ? size : 0};
}

namespace {

/// Of the rank whose cache keeps most.
double share_cached(const Scenario& s) {
  if (!s.causal || s.full_pattern()) return 1;
  const Pattern pattern = s.pattern();
  double most = 0;
  for (const TokenSet& tokens : geometry_of(s).rank_tokens) {
    double cached = 0;
    for (int c = 0; c < pattern.classes(); ++c) {
      const Pattern::Cached keeps = pattern.cached(c, s.tokens);
      const Index begin = s.tokens - keeps.last;
      Index kept = 0;
      for (const TokenRange& range : tokens.ranges())
        kept += range.clipped(begin, s.tokens).count + range.clipped(0, std::min(begin, keeps.first)).count;
      cached += static_cast<double>(kept) * pattern.layers_of(c);
    }
    most = std::max(most, cached / (static_cast<double>(tokens.size()) * s.layers));
  }
  return most;
}

}  // namespace

MemoryInput memory_input(const Scenario& s) {
  MemoryInput in;
  in.model = &s.model;
  in.layers = s.layers;
  in.tokens = static_cast<double>(s.tokens);
  in.sequences = static_cast<double>(s.batch) / (s.degrees.data * s.microbatches);
  in.microbatches = s.microbatches;
  in.pass = s.backward ? StepPass::training : s.decode ? StepPass::decode : StepPass::prefill;
  in.element_bytes = bytes_per_element(s.dtype);
  in.state = adam_state(in.element_bytes);
  in.degrees = s.degrees;
  in.recompute = s.recompute;
  // A decode step moves no keys.
  if (!s.decode)
    in.visiting = visiting_blocks(*s.schedule, s.groups, s.members, fetched_share(s.primitives, in.tokens, s.groups),
                                  s.implementation.halo_is_kept && s.backward);
  // Q, O, K and V in work, one more K and V on their way, and nothing else (Ring Attention, arXiv 2310.01889, section
  // 3).
  if (s.six_block_accounts) {
    in.gradients_of_layer = false;
    in.visiting = {1, 1};
  }
  if (!s.backward) in.cached_share = share_cached(s);
  in.fused_loss = s.fused_loss;
  in.blockwise_ffn = s.blockwise_ffn;
  return in;
}

StepProgram build_step(const Scenario& s, const Folds& folds) {
  StepProgramInput input;
  input.attention = attention_input(s);
  input.shape = memory_input(s);
  if (s.fp8_matrices) input.fp8_rate = s.gpu.peak("fp8");
  input.node_size = s.node_size;
  input.shape.tokens *= folds.context;
  input.shape.degrees.context *= folds.context;
  input.folds = folds.data;
  input.context_folds = folds.context;
  input.steps = folds.steps;
  const Rank ranks = s.ranks() / folds.data;
  if (ranks > 1 && s.node_size > 1) input.local_latency = s.cluster.route(0, 1).latency;
  if (ranks > s.node_size) input.node_latency = s.cluster.route(0, s.node_size).latency;
  return StepProgram(std::move(input));
}

}  // namespace orrery
