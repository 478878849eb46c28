#include "scenarios/step_scenario.hpp"

#include <algorithm>

namespace orrery {

double fetched_share(const std::vector<Primitive>& primitives, double tokens, int groups, bool whole_windows) {
  const double own = tokens / groups;
  double rows = 0;
  const Index itself = whole_windows ? 1 : 0;
  Index window = 0;
  for (const Primitive& p : primitives) {
    if (p.kind == Primitive::Kind::window) window = std::max(window, p.left + itself);
  }
  for (const Primitive& p : primitives) {
    const auto period = static_cast<double>(p.period);
    switch (p.kind) {
      case Primitive::Kind::full:
        rows = tokens;
        break;
      case Primitive::Kind::window:
        rows += static_cast<double>(p.left + itself + p.right);
        break;
      case Primitive::Kind::stride:
        // Each skip reaches another block of the rank's own size, if skips lie further apart than that.
        if (period < tokens) rows += p.count == 0 ? tokens : static_cast<double>(p.count) * std::min(own, period);
        break;
      case Primitive::Kind::gated_skip:
        // Of V alone, and what the window has fetched is there.
        if (period < tokens) rows += std::clamp(period - static_cast<double>(window), 0.0, own) / 2;
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

/// Of these tokens, how many the cache keeps in a layer; one whose value it keeps alone is half a token. Packed
/// documents are prompts that a prefill leaves to go on with, each by itself; the token of a decode step goes on with
/// the last.
double rows_cached(const Scenario& s, const Pattern& pattern, int pattern_class, const TokenSet& tokens) {
  Index keys = 0, values = 0, end = 0;
  for (const Index length : s.documents.empty() ? std::vector{s.tokens} : s.documents) {
    const Index begin = end;
    end += length;
    if (s.decode && end < s.tokens) continue;
    const Pattern::Cached keeps = pattern.cached(pattern_class, length);
    const auto rows = [&](const TokenRange& range, Index last) {
      const Index from = end - last;
      return range.clipped(from, end).count + range.clipped(begin, std::min(begin + keeps.first, from)).count;
    };
    for (const TokenRange& range : tokens.ranges()) {
      keys += rows(range, keeps.last);
      values += rows(range, keeps.values);
    }
  }
  return static_cast<double>(keys + values) / 2;
}

/// Of the rank whose cache keeps most.
double share_cached(const Scenario& s) {
  if (!s.causal) return 1;
  const Pattern pattern = s.pattern();
  double most = 0;
  for (const TokenSet& tokens : geometry_of(s).rank_tokens) {
    double cached = 0;
    for (int c = 0; c < pattern.classes(); ++c) cached += rows_cached(s, pattern, c, tokens) * pattern.layers_of(c);
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
    in.visiting =
        visiting_blocks(*s.schedule, s.groups, s.members,
                        fetched_share(s.primitives, in.tokens, s.groups, s.implementation.halo_of_whole_windows),
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
