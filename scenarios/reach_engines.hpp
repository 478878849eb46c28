// The engines that compute a reach. They share the problem and nothing else, and must agree.
#pragma once

#include <cstdint>
#include <functional>

#include "scenarios/reach_problem.hpp"

namespace orrery {

/// Called with every layer (from 1) and the tokens that can influence the query after it, the query itself included.
using ReachVisit = std::function<void(int layer, const IntervalSet& reached)>;

/// The tokens that some of these queries score in one stage; the residual path is not a key. For all but `drawn`.
IntervalSet keys_of(const ReachProblem& problem, const ReachStep& step, const IntervalSet& queries);

/// Interval arithmetic: exact for everything but random draws, at any number of tokens. Throws std::length_error if the
/// set falls into more than IntervalSet::most_parts intervals.
void reach_by_intervals(const ReachProblem& problem, const ReachVisit& visit);

/// A bit for every token; a stage is a handful of shifts of the whole array. The engine that can draw the choices of
/// select and bucket, from `seed`. Throws std::invalid_argument above most_bitset_tokens: bits take 32 MB there, and if
/// every other token is reached, the intervals that are visited take 2 GB.
inline constexpr Index most_bitset_tokens = Index{1} << 28;
void reach_by_bitset(const ReachProblem& problem, const ReachVisit& visit, std::uint64_t seed = 0);

/// The definition: a Boost.Graph graph with a vertex for every token after every stage of every layer and an edge for
/// every key a query sees, searched breadth first from the query at each layer. It looks at every pair of tokens of
/// every kind of stage and keeps the edges, 4 bytes each. Throws std::invalid_argument above these limits.
inline constexpr double most_graph_pairs = 4'294'967'296;    // 2^32: about a minute
inline constexpr std::int64_t most_graph_edges = 1LL << 28;  // 1 GB
void reach_by_graph(const ReachProblem& problem, const ReachVisit& visit);

}  // namespace orrery
