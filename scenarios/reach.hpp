// Reach: which tokens can influence a query after every layer, as numbers.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "scenarios/reach_engines.hpp"

namespace orrery {

/// Tokens on one side of the query, by their distance from it.
struct SideReach {
  Index max_lag = 0;            // the farthest reached
  Index contiguous = 0;         // all lags 0..contiguous are reached
  Index count = 0;              // reached, the query not counted
  std::vector<Index> in_bands;  // reached, by band of ReachRun::bands
};

struct LayerReach {
  int layer = 1;
  SideReach earlier, later;
  bool covers = false;  // every token the query could ever see
};

struct ReachRun {
  std::string engine;
  std::vector<Interval> bands;                 // of lags
  Index earlier_tokens = 0, later_tokens = 0;  // what the sequence holds on each side
  std::vector<LayerReach> layers;
  std::optional<int> layers_to_cover;
};

/// Lags 1, 2-3, 4-7, ... up to `largest`, each octave cut into at most `parts`.
std::vector<Interval> octaves(Index largest, int parts = 1);

enum class ReachEngine { automatic, intervals, bitset, graph };

/// automatic: intervals, and the bitset engine if those become too many. On a ring, half of the tokens count as
/// earlier and half as later, each by its shorter distance.
ReachRun run_reach(const ReachProblem& problem, ReachEngine engine = ReachEngine::automatic, int parts_of_octave = 1,
                   std::uint64_t seed = 0);

/// Means over random draws of the choices that data makes.
struct ExpectedReach {
  int layer = 1;
  double max_lag = 0, contiguous = 0, count = 0;  // of earlier and later tokens together
};
std::vector<ExpectedReach> expected_reach(const ReachProblem& drawn, int samples, std::uint64_t seed);

/// An exact figure against a claimed upper bound.
struct Verdict {
  enum class Kind { holds, tight, violated } kind = Kind::holds;
  Index by = 0;              // slack or excess
  std::string text() const;  // "holds (slack 12)", "tight", "violated (by 80)"
};
Verdict judge(Index exact, Index bound);

/// All that is known of one pattern on one sequence.
struct ReachReport {
  ReachRun lo;                       // what every input has; the only one if data decides nothing
  std::optional<ReachRun> up;        // what some input could create
  std::optional<ReachRun> coarse;    // with keys that stand for many tokens
  std::vector<ExpectedReach> exp;    // empty if data decides nothing
  std::vector<Index> bounds;         // by layer; empty if nothing is claimed
  std::vector<Index> unbounded_max;  // by layer: the largest lag if the sequence did not end; may be empty
  Index resolution = 1;              // tokens per key at worst; 0: a state
  double wall_s = 0;

  Verdict max_lag_verdict(std::size_t layer) const;  // of the sequence without end, if that is known
  bool cut_by_n(std::size_t layer) const;            // the sequence ends before the pattern does
};
inline constexpr int expected_samples = 16;
ReachReport report_reach(const ReachPattern& pattern, const ReachSequence& sequence, ReachEngine engine);

/// The query to look from if none is named: the last token, which has the longest past; the middle one where both sides
/// are seen; any on a ring.
Index default_query(const ReachPattern& pattern, Index tokens);

}  // namespace orrery
