// Random choices of patterns that depend on data: uniform, independent for every head, layer and query block, and the
// same on every machine.
#pragma once

#include <cstdint>
#include <vector>

#include "scenarios/reach_problem.hpp"

namespace orrery {

/// The blocks that the queries of query block `b` can choose from, as ranges of block numbers.
std::vector<Interval> choices(const FreeBlocks& free, const ReachProblem& problem, Index b);

/// How many of `available` blocks a head picks.
Index picked(const ReachPrimitive& select, Index available);

class ReachDraws {
 public:
  explicit ReachDraws(std::uint64_t seed) : state_(seed) {}

  /// The blocks that at least one head picks.
  std::vector<Index> blocks(const ReachPrimitive& select, const std::vector<Interval>& choices);
  /// The tokens that share a bucket with one of the queries, in at least one head.
  std::vector<Index> same_bucket(const ReachPrimitive& bucket, const std::vector<Interval>& queries, Index tokens,
                                 bool causal);

 private:
  std::uint64_t next();
  Index below(Index limit);

  std::uint64_t state_;
  std::vector<std::uint64_t> taken_;  // by choice: the draw that took it last
  std::uint64_t draw_ = 0;
};

}  // namespace orrery
