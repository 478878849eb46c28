#include "scenarios/reach_cost.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <stdexcept>

#include "scenarios/mask.hpp"
#include "scenarios/reach_draw.hpp"

namespace orrery {
namespace {

/// One stage as a mask. On a ring a lag is also the lag one turn more or less.
Mask mask_of(const ReachStep& step, const ReachPattern& pattern, const ReachSequence& sequence) {
  std::vector<LagProgression> lags = step.lags;
  if (pattern.ring) {
    for (const LagProgression& p : step.lags) {
      lags.push_back({p.first - sequence.tokens, p.last - sequence.tokens, p.step});
      lags.push_back({p.first + sequence.tokens, p.last + sequence.tokens, p.step});
    }
  }
  return Mask(sequence.tokens, pattern.causal, std::move(lags), step.sink, sequence.documents);
}

TokenSet tokens_between(Index begin, Index end) {
  return TokenSet({{begin, end - begin, 1}});
}

/// Aligned blocks are no lags. Their pairs are counted block by block of queries.
double near_pairs(const NearBlocks& near, const ReachPattern& pattern, Index n) {
  double pairs = 0;
  for (Index begin = 0; begin < n; begin += near.size) {
    const auto queries = static_cast<double>(std::min(near.size, n - begin));
    const Index reach = near.before > n / near.size ? n : near.before * near.size;
    const auto before = static_cast<double>(std::min(begin, reach));
    const auto after = static_cast<double>(std::clamp<Index>(n - begin - near.size, 0, reach));
    const double own = pattern.causal ? (queries + 1) / 2 : queries;
    pairs += queries * (before + own + (pattern.causal ? 0 : after));
  }
  return pairs;
}

double drawn_pairs(const ReachPrimitive& p, const ReachProblem& problem) {
  const Index n = problem.tokens();
  if (p.kind == ReachPrimitive::Kind::bucket) {
    const double all = static_cast<double>(n) * static_cast<double>(problem.causal ? n + 1 : 2 * n) / 2;
    return all / static_cast<double>(p.buckets);
  }
  const FreeBlocks free{p.query_block, p.size, p.first, p.before};
  double pairs = 0;
  for (Index b = 0; b * p.query_block < n; ++b) {
    Index available = 0;
    for (const Interval& range : choices(free, problem, b)) available += range.last - range.first + 1;
    const Index queries = std::min(p.query_block, n - b * p.query_block);
    pairs += static_cast<double>(queries) * static_cast<double>(picked(p, available) * p.size);
  }
  return pairs;
}

/// One key for each earlier chunk (each other one, if not causal).
double summary_pairs(Index size, bool causal, Index n) {
  const Index chunks = n / size;
  if (!causal) return static_cast<double>(n) * static_cast<double>(ceil_div(n, size) - 1);
  const double whole = static_cast<double>(size) * static_cast<double>(chunks) * static_cast<double>(chunks - 1) / 2;
  return whole + static_cast<double>(n - chunks * size) * static_cast<double>(chunks);
}

struct LayerCost {
  double pairs = 0, busiest = 0, all = 0;  // rows
};

/// The lags at which the tokens [begin, end) see into neighbouring blocks: those of the first and the last of them.
LagProgression lags_of_blocks(const NearBlocks& near, bool causal, Index begin, Index end, Index n) {
  const Index first = begin / near.size, last = (end - 1) / near.size;
  const Index from = first >= near.before ? (first - near.before) * near.size : 0;
  const Index until = causal || near.before >= n / near.size - last ? n : (last + near.before + 1) * near.size;
  return {causal ? 0 : end - std::min(until, n), begin - from, 1};
}

/// Rows that come from other ranks: of everything some input could ask for.
void add_rows(const ReachStep& step, const ReachPattern& pattern, const ReachSequence& sequence, Index ranks,
              LayerCost& cost) {
  const Index n = sequence.tokens, share = n / ranks;
  const bool anything = !step.drawn.empty();
  double busiest = 0;
  for (Index rank = 0; rank < ranks; ++rank) {
    const Index begin = rank * share, end = begin + share;
    ReachStep of_rank = step;
    for (const NearBlocks& near : step.near) {
      of_rank.lags.push_back(lags_of_blocks(near, pattern.causal, begin, end, n));
    }
    const Mask mask = mask_of(of_rank, pattern, sequence);
    Index rows = 0;
    for (const TokenSet& others : {tokens_between(0, begin), tokens_between(end, n)}) {
      if (others.empty()) continue;
      const bool visible = anything && (!pattern.causal || others.ranges().front().begin < begin);
      rows += visible ? others.size() : mask.keys_needed(tokens_between(begin, end), others).size();
    }
    for (const Index size : step.summaries) rows += begin / size + (pattern.causal ? 0 : ceil_div(n - end, size));
    busiest = std::max(busiest, static_cast<double>(rows));
    cost.all += static_cast<double>(rows);
  }
  cost.busiest += busiest;
}

LayerCost cost_of(const ReachLayer& steps, const ReachPattern& pattern, const ReachSequence& sequence,
                  const ReachProblem& problem, Index ranks) {
  LayerCost cost;
  for (const ReachStep& step : steps) {
    const TokenSet everything = tokens_between(0, sequence.tokens);
    for (const NearBlocks& near : step.near) cost.pairs += near_pairs(near, pattern, sequence.tokens);
    for (const ReachPrimitive& p : step.drawn) cost.pairs += drawn_pairs(p, problem);
    for (const Index size : step.summaries) cost.pairs += summary_pairs(size, pattern.causal, sequence.tokens);
    const Mask for_pairs = mask_of(step, pattern, sequence);
    cost.pairs += static_cast<double>(for_pairs.pairs(everything, everything));
    add_rows(step, pattern, sequence, ranks, cost);
  }
  return cost;
}

void check(const ReachSequence& sequence, const ReachHardware& hardware) {
  constexpr Index most_tokens = Index{1} << 31;
  if (sequence.tokens > most_tokens) {
    throw std::invalid_argument(
        fmt::format("n = {} is past 2^31 (the most tokens whose pairs can be counted), write less", sequence.tokens));
  }
  if (hardware.ranks < 1 || sequence.tokens % hardware.ranks != 0) {
    throw std::invalid_argument(
        fmt::format("ranks = {} does not divide n = {} (each rank gets as many tokens), use a "
                    "divisor",
                    hardware.ranks, sequence.tokens));
  }
}

}  // namespace

ReachCost reach_cost(const ReachPattern& pattern, const ReachSequence& sequence, const ReachHardware& hardware) {
  check(sequence, hardware);
  const ReachProblem problem = make_problem(pattern, sequence, ReachView::drawn);
  std::vector<LayerCost> by_kind;
  for (const ReachLayer& layer : problem.kinds) {
    by_kind.push_back(cost_of(layer, pattern, sequence, problem, hardware.ranks));
  }
  LayerCost sum;
  for (int layer = 0; layer < problem.layers(); ++layer) {
    const LayerCost& cost = by_kind[static_cast<std::size_t>(problem.kind_of_layer[static_cast<std::size_t>(layer)])];
    sum.pairs += cost.pairs;
    sum.busiest += cost.busiest;
    sum.all += cost.all;
  }
  const double layers = sequence.layers;
  ReachCost cost;
  cost.pairs_per_token = sum.pairs / layers / static_cast<double>(sequence.tokens);
  cost.flops_per_token = 4.0 * hardware.head_dim * hardware.heads * cost.pairs_per_token;
  const double row_bytes = 2.0 * hardware.kv_heads * hardware.head_dim * hardware.element_bytes;
  cost.bytes_busiest_rank = sum.busiest / layers * row_bytes;
  cost.bytes_all_ranks = sum.all / layers * row_bytes;
  return cost;
}

}  // namespace orrery
