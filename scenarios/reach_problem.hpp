// A reach made concrete: which keys each stage of each layer can see, for one query token of one sequence. The engines
// work on this and on nothing else.
#pragma once

#include <vector>

#include "scenarios/mask.hpp"
#include "scenarios/reach_pattern.hpp"
#include "scenarios/reach_set.hpp"

namespace orrery {

/// The query's own aligned block of `size` tokens and `before` more before it (and after it, if not causal).
struct NearBlocks {
  Index size = 1, before = 0;
};

/// The blocks a query can choose from: of those before its query block (and after it, if not causal) all but the
/// `first` first of the document and the `before` nearest.
struct FreeBlocks {
  Index query_block = 1, size = 1, first = 0, before = 0;
};

/// What one stage of a layer adds to the residual path, which every stage has. Tokens are those of one document.
struct ReachStep {
  std::vector<LagProgression> lags;  // none changes sign unless its step is 1
  Index sink = 0;
  std::vector<NearBlocks> near;
  std::vector<FreeBlocks> free;
  std::vector<Index> summaries;       // chunk sizes, for the cost
  std::vector<ReachPrimitive> drawn;  // select and bucket, for the engine that draws them
};
using ReachLayer = std::vector<ReachStep>;

struct ReachProblem {
  Index begin = 0, end = 1;  // the query's document: tokens [begin, end)
  Index query = 0;
  bool causal = true, ring = false;
  std::vector<ReachLayer> kinds;
  std::vector<int> kind_of_layer;  // from 0

  Index tokens() const { return end - begin; }
  Interval domain() const { return {begin, end - 1}; }
  int layers() const { return static_cast<int>(kind_of_layer.size()); }
  const ReachLayer& layer(int from_zero) const {
    return kinds[static_cast<std::size_t>(kind_of_layer[static_cast<std::size_t>(from_zero)])];
  }
  /// True if the layers may be applied in any order: all alike, or lags alone of which none can leave the sequence at
  /// one end and come back. Then layer l + 1 needs only what layer l has reached.
  bool commutes() const;
  bool lags_only() const;
};

/// Which edges are counted. lo: those every input has. up: those some input could create. drawn: a random choice.
/// coarse: lo and the keys that stand for many tokens (summaries, states).
enum class ReachView { lo, up, drawn, coarse };

/// The sequence a pattern is applied to. `documents` are lengths that add up to `tokens` (empty: one document).
struct ReachSequence {
  Index tokens = 1;
  Index query = 0;
  int layers = 1;
  std::vector<Index> documents{};
};

/// Throws std::invalid_argument for numbers without sense and for 64-bit overflow.
ReachProblem make_problem(const ReachPattern& pattern, const ReachSequence& sequence, ReachView view);

/// The largest lag after each layer if the sequence had no begin, for causal patterns of windows and strides with a
/// count; empty otherwise. Throws std::invalid_argument past 2^63.
std::vector<Index> unbounded_max_lags(const ReachPattern& pattern, int layers);

/// After layer l: for_each(l, tokens that can influence the query). `Engine` has a Set, start(), apply(step, set).
template <class Engine, class Visit>
void for_each_layer(const ReachProblem& problem, Engine& engine, Visit visit) {
  const bool forward = problem.commutes();
  const auto apply = [&](int layer, typename Engine::Set& set) {
    const ReachLayer& steps = problem.layer(layer);
    for (auto step = steps.rbegin(); step != steps.rend(); ++step) engine.apply(*step, set);
  };
  typename Engine::Set set = engine.start();
  for (int layer = 0; layer < problem.layers(); ++layer) {
    if (forward) {
      apply(layer, set);
    } else {
      // From the query down: the last layer is the first to be crossed.
      set = engine.start();
      for (int down = layer; down >= 0; --down) apply(down, set);
    }
    visit(layer + 1, set);
  }
}

}  // namespace orrery
