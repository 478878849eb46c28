#include "scenarios/reach_problem.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <numeric>
#include <stdexcept>
#include <utility>

namespace orrery {
namespace {

using Kind = ReachPrimitive::Kind;

Index period_in_layer(const ReachPrimitive& p, int layer) {
  if (!p.doubling) return p.period;
  const int shift = layer - 1;
  Index period = 0;
  if (shift < 63 && !__builtin_mul_overflow(p.period, Index{1} << shift, &period)) return period;
  throw std::invalid_argument(
      fmt::format("the doubling period {} * 2^{} of layer {} is past 2^63 - 1 (the largest whole number here), use "
                  "fewer layers or a smaller period",
                  p.period, shift, layer));
}

void add_window(std::vector<LagProgression>& lags, Index right, Index left, Index most) {
  lags.push_back({-std::min(right, most), std::min(left, most), 1});
}

void add_stride(std::vector<LagProgression>& lags, const ReachPrimitive& p, Index period, const ReachProblem& problem) {
  const Index n = problem.tokens();
  const Index once_around = (n - 1) / period;
  Index count = p.count == 0 ? once_around : p.count;
  if (problem.ring) {
    count = std::min(count, n / std::gcd(n, period));  // then the multiples repeat
    period %= n;
  } else {
    count = std::min(count, once_around);
  }
  if (count == 0 || period == 0) return;
  const Index last = checked_multiply(period, count, "a stride (period * count)");
  lags.push_back({period, last, period});
  if (!problem.causal) lags.push_back({-last, -period, period});
}

void add(const ReachPrimitive& p, int layer, ReachView view, const ReachProblem& problem, ReachStep& step) {
  const Index most = problem.tokens() - 1;
  const Index everything_later = problem.causal ? 0 : most;
  // More than all tokens means all tokens; products stay far from overflow.
  const auto fits = [&](Index value) { return std::min(value, problem.tokens()); };
  switch (p.kind) {
    case Kind::full:
      return add_window(step.lags, everything_later, most, most);
    case Kind::window:
      return add_window(step.lags, problem.causal ? 0 : p.right, p.left, most);
    case Kind::stride:
      return add_stride(step.lags, p, period_in_layer(p, layer), problem);
    case Kind::sink:
      step.sink = std::max(step.sink, std::min(p.first, problem.tokens()));
      return;
    case Kind::block:
      step.near.push_back({fits(p.size), fits(p.before)});
      return;
    case Kind::select:
      if (view == ReachView::up)
        step.free.push_back({fits(p.query_block), fits(p.size), fits(p.first), fits(p.before)});
      if (view == ReachView::drawn) {
        ReachPrimitive& drawn = step.drawn.emplace_back(p);
        for (Index* value : {&drawn.query_block, &drawn.size, &drawn.first, &drawn.before}) *value = fits(*value);
      }
      return;
    case Kind::bucket:
      if (view == ReachView::up) add_window(step.lags, everything_later, most, most);
      if (view == ReachView::drawn) step.drawn.push_back(p);
      return;
    case Kind::summary:
      step.summaries.push_back(fits(p.size));
      if (view == ReachView::coarse) step.free.push_back({1, fits(p.size), 0, 0});
      return;
    case Kind::state:
      if (view == ReachView::coarse) add_window(step.lags, everything_later, most, most);
      return;
  }
}

ReachLayer make_layer(const ReachPattern& pattern, int layer, int layers, ReachView view, const ReachProblem& problem) {
  std::map<int, ReachStep> stages;
  for (const ReachPrimitive& p : pattern.primitives) {
    if (p.layers.active(layer, layers)) add(p, layer, view, problem, stages[p.stage]);
  }
  ReachLayer steps;
  for (auto& [stage, step] : stages) steps.push_back(std::move(step));
  return steps;
}

void check(const ReachSequence& s) {
  constexpr Index most_tokens = Index{1} << 60;
  if (s.tokens < 1) {
    throw std::invalid_argument(
        fmt::format("n = {} is less than 1 (there is no token to look from), write 1 or more", s.tokens));
  }
  if (s.tokens > most_tokens) {
    throw std::invalid_argument(fmt::format("n = {} is past 2^60 (the most tokens here), write less", s.tokens));
  }
  if (s.query < 0 || s.query >= s.tokens) {
    throw std::invalid_argument(
        fmt::format("query = {} does not exist (the tokens are 0 to {}), write one of them", s.query, s.tokens - 1));
  }
  if (s.layers > most_reach_layers) {
    throw std::invalid_argument(fmt::format("layers = {} is past {}, write less", s.layers, most_reach_layers));
  }
}

}  // namespace

bool ReachProblem::lags_only() const {
  for (const ReachLayer& layer : kinds) {
    for (const ReachStep& step : layer) {
      if (step.sink > 0 || !step.near.empty() || !step.free.empty() || !step.drawn.empty()) return false;
    }
  }
  return true;
}

bool ReachProblem::commutes() const {
  return kinds.size() == 1 || ((causal || ring) && lags_only());
}

ReachProblem make_problem(const ReachPattern& pattern, const ReachSequence& sequence, ReachView view) {
  check(sequence);
  check(pattern, sequence.layers);
  if (pattern.ring && !sequence.documents.empty()) {
    throw std::invalid_argument(
        "ring = true does not go with documents (positions wrap around the whole sequence), leave one of them out");
  }
  ReachProblem problem;
  problem.causal = pattern.causal, problem.ring = pattern.ring;
  problem.query = sequence.query, problem.end = sequence.tokens;
  Index end = 0;
  for (const Index length : sequence.documents) {
    const Index begin = std::exchange(end, end + length);
    if (sequence.query >= begin && sequence.query < end) problem.begin = begin, problem.end = end;
  }
  std::map<std::vector<int>, int> known;  // active primitives, and the layer if something changes with every layer
  for (int layer = 1; layer <= sequence.layers; ++layer) {
    std::vector<int> key;
    for (const ReachPrimitive& p : pattern.primitives) {
      const bool active = p.layers.active(layer, sequence.layers);
      key.push_back(!active ? 0 : p.doubling ? layer + 1 : 1);
    }
    const auto [entry, is_new] = known.try_emplace(key, static_cast<int>(problem.kinds.size()));
    if (is_new) problem.kinds.push_back(make_layer(pattern, layer, sequence.layers, view, problem));
    problem.kind_of_layer.push_back(entry->second);
  }
  return problem;
}

std::vector<Index> unbounded_max_lags(const ReachPattern& pattern, int layers) {
  std::vector<Index> reach;
  if (!pattern.causal) return reach;
  Index sum = 0;
  bool known = true;
  for (int layer = 1; layer <= layers; ++layer) {
    std::map<int, Index> stages;
    for (const ReachPrimitive& p : pattern.primitives) {
      if (!p.layers.active(layer, layers)) continue;
      Index lag = p.left;
      if (p.kind == Kind::stride) {
        const Index period = period_in_layer(p, layer);
        lag = checked_multiply(period, std::max<Index>(p.count, 1), "a stride (period * count)");
      }
      known = known && (p.kind == Kind::window || (p.kind == Kind::stride && p.count > 0));
      Index& longest = stages[p.stage];
      longest = std::max(longest, lag);
    }
    for (const auto& [stage, lag] : stages) sum = checked_add(sum, lag, fmt::format("the reach after layer {}", layer));
    reach.push_back(sum);
  }
  return known ? reach : std::vector<Index>{};
}

}  // namespace orrery
