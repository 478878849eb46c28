#include "scenarios/reach.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <stdexcept>

namespace orrery {
namespace {

/// Positions on a ring as seen from the query: -floor(n / 2), ..., -1 are earlier, 1, ... are later.
IntervalSet unrolled(const IntervalSet& reached, const ReachProblem& problem) {
  const Index n = problem.tokens();
  const Index half = n / 2;
  std::vector<Interval> parts;
  const IntervalSet from_query = reached.turned(-(problem.query % n), -(problem.query % n), n);
  for (const Interval& part : from_query.parts()) {
    parts.push_back({part.first, std::min(part.last, n - half - 1)});
    parts.push_back({std::max(part.first, n - half) - n, part.last - n});
  }
  return IntervalSet::merged(std::move(parts));
}

void add_to_bands(SideReach& side, const std::vector<Interval>& bands, Interval lags) {
  auto band = std::lower_bound(bands.begin(), bands.end(), lags.first,
                               [](const Interval& b, Index lag) { return b.last < lag; });
  for (; band != bands.end() && band->first <= lags.last; ++band) {
    side.in_bands[static_cast<std::size_t>(band - bands.begin())] +=
        std::min(band->last, lags.last) - std::max(band->first, lags.first) + 1;
  }
}

void add_lags(SideReach& side, const std::vector<Interval>& bands, Interval lags) {
  if (lags.first > lags.last) return;
  side.max_lag = std::max(side.max_lag, lags.last);
  if (lags.first == 1) side.contiguous = lags.last;
  side.count += lags.last - lags.first + 1;
  add_to_bands(side, bands, lags);
}

LayerReach measure_layer(int layer, const IntervalSet& reached, Index query, const ReachRun& run) {
  LayerReach result;
  result.layer = layer;
  result.earlier.in_bands.resize(run.bands.size());
  result.later.in_bands.resize(run.bands.size());
  for (const Interval& part : reached.parts()) {
    add_lags(result.earlier, run.bands, {std::max<Index>(1, query - part.last), query - part.first});
    add_lags(result.later, run.bands, {std::max<Index>(1, part.first - query), part.last - query});
  }
  result.covers = result.earlier.count == run.earlier_tokens && result.later.count == run.later_tokens;
  return result;
}

ReachRun empty_run(const ReachProblem& problem, int parts_of_octave) {
  ReachRun run;
  const Index n = problem.tokens();
  run.earlier_tokens = problem.ring ? n / 2 : problem.query - problem.begin;
  run.later_tokens = problem.causal ? 0 : problem.ring ? (n - 1) / 2 : problem.end - 1 - problem.query;
  run.bands = octaves(std::max(run.earlier_tokens, run.later_tokens), parts_of_octave);
  return run;
}

struct EngineRow {
  ReachEngine engine;
  const char* name;
};
constexpr EngineRow engine_rows[] = {
    {ReachEngine::intervals, "intervals"}, {ReachEngine::bitset, "bitset"}, {ReachEngine::graph, "graph"}};

ReachRun run_with(const ReachProblem& problem, const EngineRow& row, int parts_of_octave, std::uint64_t seed) {
  ReachRun run = empty_run(problem, parts_of_octave);
  run.engine = row.name;
  const ReachVisit visit = [&](int layer, const IntervalSet& reached) {
    const LayerReach measured = problem.ring ? measure_layer(layer, unrolled(reached, problem), 0, run)
                                             : measure_layer(layer, reached, problem.query, run);
    run.layers.push_back(measured);
    if (measured.covers && !run.layers_to_cover) run.layers_to_cover = layer;
  };
  switch (row.engine) {
    case ReachEngine::bitset:
      reach_by_bitset(problem, visit, seed);
      break;
    case ReachEngine::graph:
      reach_by_graph(problem, visit);
      break;
    default:
      reach_by_intervals(problem, visit);
  }
  return run;
}

}  // namespace

std::vector<Interval> octaves(Index largest, int parts) {
  std::vector<Interval> bands;
  for (Index from = 1; from <= largest; from *= 2) {
    const Index pieces = std::min<Index>(parts, from);
    for (Index i = 0; i < pieces; ++i) {
      const Interval band{from + from / pieces * i,
                          i + 1 == pieces ? 2 * from - 1 : from + from / pieces * (i + 1) - 1};
      if (band.first <= largest) bands.push_back({band.first, std::min(band.last, largest)});
    }
  }
  return bands;
}

ReachRun run_reach(const ReachProblem& problem, ReachEngine engine, int parts_of_octave, std::uint64_t seed) {
  for (const EngineRow& row : engine_rows) {
    if (row.engine == engine) return run_with(problem, row, parts_of_octave, seed);
  }
  try {
    return run_with(problem, engine_rows[0], parts_of_octave, seed);
  } catch (const std::length_error&) {
    if (problem.tokens() > most_bitset_tokens) throw;
    return run_with(problem, engine_rows[1], parts_of_octave, seed);
  }
}

std::vector<ExpectedReach> expected_reach(const ReachProblem& drawn, int samples, std::uint64_t seed) {
  std::vector<ExpectedReach> mean(static_cast<std::size_t>(drawn.layers()));
  for (int sample = 0; sample < samples; ++sample) {
    const ReachRun run = run_reach(drawn, ReachEngine::bitset, 1, seed + static_cast<std::uint64_t>(sample));
    for (std::size_t l = 0; l < mean.size(); ++l) {
      const LayerReach& layer = run.layers[l];
      mean[l].layer = layer.layer;
      mean[l].max_lag += static_cast<double>(std::max(layer.earlier.max_lag, layer.later.max_lag)) / samples;
      mean[l].contiguous += static_cast<double>(layer.earlier.contiguous + layer.later.contiguous) / samples;
      mean[l].count += static_cast<double>(layer.earlier.count + layer.later.count) / samples;
    }
  }
  return mean;
}

std::string Verdict::text() const {
  switch (kind) {
    case Kind::holds:
      return fmt::format("holds (slack {})", by);
    case Kind::tight:
      return "tight";
    case Kind::violated:
      return fmt::format("violated (by {})", by);
  }
  return {};
}

Verdict judge(Index exact, Index bound) {
  if (exact == bound) return {Verdict::Kind::tight, 0};
  return exact < bound ? Verdict{Verdict::Kind::holds, bound - exact} : Verdict{Verdict::Kind::violated, exact - bound};
}

Verdict ReachReport::max_lag_verdict(std::size_t layer) const {
  return judge(unbounded_max.empty() ? lo.layers[layer].earlier.max_lag : unbounded_max[layer], bounds[layer]);
}

bool ReachReport::cut_by_n(std::size_t layer) const {
  return !unbounded_max.empty() && unbounded_max[layer] > lo.earlier_tokens;
}

ReachReport report_reach(const ReachPattern& pattern, const ReachSequence& sequence, ReachEngine engine) {
  const auto start = std::chrono::steady_clock::now();
  ReachReport report;
  report.unbounded_max = unbounded_max_lags(pattern, sequence.layers);
  if (pattern.bound) {
    for (int layer = 1; layer <= sequence.layers; ++layer) report.bounds.push_back(pi_bound(*pattern.bound, layer));
  }
  report.lo = run_reach(make_problem(pattern, sequence, ReachView::lo), engine);
  report.resolution = pattern.resolution();
  if (pattern.depends_on_data()) {
    report.up = run_reach(make_problem(pattern, sequence, ReachView::up), engine);
    report.exp = expected_reach(make_problem(pattern, sequence, ReachView::drawn), expected_samples, 1);
  }
  if (pattern.coarse()) report.coarse = run_reach(make_problem(pattern, sequence, ReachView::coarse), engine);
  report.wall_s = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return report;
}

Index default_query(const ReachPattern& pattern, Index tokens) {
  return pattern.causal ? tokens - 1 : pattern.ring ? 0 : tokens / 2;
}

}  // namespace orrery
