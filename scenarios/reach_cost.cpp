#include "scenarios/reach_cost.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <numeric>
#include <stdexcept>

#include "scenarios/mask.hpp"
#include "scenarios/reach_draw.hpp"
#include "scenarios/reach_engines.hpp"

namespace orrery {
namespace {

/// Keys that data may pick, each with the same probability.
struct Choice {
  IntervalSet keys;
  double probability = 0;
};

Choice choice_of(const ReachPrimitive& p, const ReachProblem& problem, Index query) {
  const Index n = problem.tokens();
  if (p.kind == ReachPrimitive::Kind::bucket) {
    return {IntervalSet({0, problem.causal ? query : n - 1}), 1 / static_cast<double>(p.buckets)};
  }
  Index available = 0;
  std::vector<Interval> keys;
  for (const Interval& blocks : choices({p.query_block, p.size, p.first, p.before}, problem, query / p.query_block)) {
    available += blocks.last - blocks.first + 1;
    keys.push_back({blocks.first * p.size, std::min((blocks.last + 1) * p.size, n) - 1});
  }
  if (available == 0) return {};
  return {IntervalSet::merged(std::move(keys)),
          static_cast<double>(picked(p, available)) / static_cast<double>(available)};
}

/// How many keys are scored on the average: the certain ones, and every other unless nothing picks it.
double expected_keys(const IntervalSet& certain, const std::vector<Choice>& choices) {
  if (choices.empty()) return static_cast<double>(certain.size());
  std::vector<Index> cuts;
  const auto add_cuts = [&](const IntervalSet& set) {
    for (const Interval& part : set.parts()) cuts.insert(cuts.end(), {part.first, part.last + 1});
  };
  add_cuts(certain);
  for (const Choice& choice : choices) add_cuts(choice.keys);
  std::sort(cuts.begin(), cuts.end());
  double keys = 0;
  for (std::size_t i = 1; i < cuts.size(); ++i) {
    double missed = certain.contains(cuts[i - 1]) ? 0 : 1;
    for (const Choice& choice : choices) {
      if (choice.keys.contains(cuts[i - 1])) missed *= 1 - choice.probability;
    }
    keys += (1 - missed) * static_cast<double>(cuts[i] - cuts[i - 1]);
  }
  return keys;
}

/// One key for each earlier chunk (each other one, if not causal).
double summary_pairs(Index size, bool causal, Index n) {
  const Index chunks = n / size;
  if (!causal) return static_cast<double>(n) * static_cast<double>(ceil_div(n, size) - 1);
  const double whole = static_cast<double>(size) * static_cast<double>(chunks) * static_cast<double>(chunks - 1) / 2;
  return whole + static_cast<double>(n - chunks * size) * static_cast<double>(chunks);
}

/// Query by query: blocks are no lags, and what data picks may be there already.
double pairs_query_by_query(const ReachStep& step, const ReachProblem& problem) {
  constexpr double most_work = 1 << 26;  // a minute
  const Index n = problem.tokens();
  double pairs = 0;
  for (Index query = 0; query < n; ++query) {
    IntervalSet certain = keys_of(problem, step, IntervalSet({query, query}));
    std::vector<Choice> choices;
    for (const ReachPrimitive& p : step.drawn) {
      choices.push_back(choice_of(p, problem, query));
      if (p.kind == ReachPrimitive::Kind::bucket) certain.unite(IntervalSet({query, query}));
    }
    pairs += expected_keys(certain, choices);
    const double intervals = static_cast<double>(certain.parts().size() + choices.size());
    if (intervals * static_cast<double>(n) > most_work) {
      throw std::invalid_argument(
          fmt::format("the pairs of {} tokens cannot be counted (blocks and what data picks are united query by query, "
                      "{} intervals in each, at most {:.0f} in all in about a minute), use fewer tokens",
                      n, intervals, most_work));
    }
  }
  return pairs;
}

double pairs_of(const ReachStep& step, const ReachProblem& problem) {
  const Index n = problem.tokens();
  double pairs = 0;
  for (const Index size : step.summaries) pairs += summary_pairs(size, problem.causal, n);
  if (!step.near.empty() || !step.drawn.empty() || (problem.ring && step.sink > 0)) {
    return pairs + pairs_query_by_query(step, problem);
  }
  if (problem.ring) {  // every query has as many keys
    return pairs + static_cast<double>(n) * static_cast<double>(keys_of(problem, step, IntervalSet({0, 0})).size());
  }
  const TokenSet everything({{0, n, 1}});
  return pairs + static_cast<double>(Mask(n, problem.causal, step.lags, step.sink, {}).pairs(everything, everything));
}

/// Patterns know nothing beyond their document. Documents of one length cost the same pairs, and their tokens need keys
/// at the same places.
struct Document {
  ReachProblem up;            // of everything some input could ask for
  ReachProblem up_scored;     // and of what is scored: those rows are needed with their keys
  std::vector<double> pairs;  // by kind of layer
};

/// Without the skips of which values alone are read: they begin where the sequence ends.
ReachPattern scored(ReachPattern pattern, Index tokens) {
  for (ReachPrimitive& p : pattern.primitives) p.period = p.value_alone ? tokens : p.period;
  return pattern;
}

Document document_of(const ReachPattern& pattern, Index length, int layers) {
  const ReachSequence alone{length, length - 1, layers, {}};
  const ReachPattern of_keys = scored(pattern, length);
  Document document{make_problem(pattern, alone, ReachView::up), make_problem(of_keys, alone, ReachView::up), {}};
  const ReachProblem drawn = make_problem(of_keys, alone, ReachView::drawn);
  for (const ReachLayer& layer : drawn.kinds) {
    double& pairs = document.pairs.emplace_back();
    for (const ReachStep& step : layer) pairs += pairs_of(step, drawn);
  }
  return document;
}

/// Rows of others that the queries `own` of a document need in one layer.
Index rows_needed(const ReachLayer& layer, const ReachProblem& document, Interval own) {
  const Index n = document.tokens();
  Index rows = 0;
  for (const ReachStep& step : layer) {
    IntervalSet keys = keys_of(document, step, IntervalSet(own));
    keys.unite(IntervalSet(own));
    rows += keys.size() - (own.last - own.first + 1);
    for (const Index size : step.summaries) {
      rows += own.first / size + (document.causal ? 0 : ceil_div(n - 1 - own.last, size));
    }
  }
  return rows;
}

void check(const ReachSequence& sequence, const ReachHardware& hardware) {
  constexpr Index most_tokens = Index{1} << 31, most_ranks = Index{1} << 20;
  if (sequence.tokens > most_tokens) {
    throw std::invalid_argument(
        fmt::format("n = {} is past 2^31 (the most tokens whose pairs can be counted), write less", sequence.tokens));
  }
  if (hardware.ranks < 1 || hardware.ranks > most_ranks) {
    throw std::invalid_argument(
        fmt::format("ranks = {} is not in 1 to {} (GPUs), write one of these", hardware.ranks, most_ranks));
  }
  if (sequence.tokens % hardware.ranks != 0) {
    throw std::invalid_argument(
        fmt::format("ranks = {} does not divide n = {} (each rank gets as many tokens), use a divisor", hardware.ranks,
                    sequence.tokens));
  }
}

}  // namespace

ReachCost reach_cost(const ReachPattern& pattern, const ReachSequence& sequence, const ReachHardware& hardware) {
  check(sequence, hardware);
  const std::vector<Index> lengths =
      sequence.documents.empty() ? std::vector<Index>{sequence.tokens} : sequence.documents;
  const ReachProblem whole = make_problem(pattern, {1, 0, sequence.layers, {}}, ReachView::up);
  const std::size_t kinds = whole.kinds.size(), ranks = static_cast<std::size_t>(hardware.ranks);
  std::vector<double> pairs(kinds);
  // Of V, and of K.
  std::vector<std::vector<Index>> rows(kinds, std::vector<Index>(ranks));
  std::map<Index, Document> documents;
  const Index share = sequence.tokens / hardware.ranks;
  Index begin = 0;
  for (const Index length : lengths) {
    if (!documents.contains(length)) documents.emplace(length, document_of(pattern, length, sequence.layers));
    const Document& document = documents.at(length);
    for (std::size_t kind = 0; kind < kinds; ++kind) pairs[kind] += document.pairs[kind];
    for (Index rank = begin / share; rank * share < begin + length; ++rank) {
      const Interval own{std::max(rank * share, begin) - begin,
                         std::min((rank + 1) * share, begin + length) - 1 - begin};
      for (std::size_t kind = 0; kind < kinds; ++kind) {
        rows[kind][static_cast<std::size_t>(rank)] +=
            rows_needed(document.up.kinds[kind], document.up, own) +
            rows_needed(document.up_scored.kinds[kind], document.up_scored, own);
      }
    }
    begin += length;
  }
  double all_pairs = 0, busiest = 0, all = 0;
  for (const int kind : whole.kind_of_layer) {
    const std::vector<Index>& of_ranks = rows[static_cast<std::size_t>(kind)];
    all_pairs += pairs[static_cast<std::size_t>(kind)];
    busiest += static_cast<double>(*std::max_element(of_ranks.begin(), of_ranks.end()));
    all += static_cast<double>(std::accumulate(of_ranks.begin(), of_ranks.end(), Index{0}));
  }
  const double layers = sequence.layers;
  ReachCost cost;
  cost.pairs_per_token = all_pairs / layers / static_cast<double>(sequence.tokens);
  cost.flops_per_token = 4.0 * hardware.head_dim * hardware.heads * cost.pairs_per_token;
  const double row_bytes = 1.0 * hardware.kv_heads * hardware.head_dim * hardware.element_bytes;
  cost.bytes_busiest_rank = busiest / layers * row_bytes;
  cost.bytes_all_ranks = all / layers * row_bytes;
  return cost;
}

}  // namespace orrery
