// The engines that compute a reach. They share the problem and nothing else, and must agree.
#pragma once

#include <cstdint>
#include <functional>

#include "scenarios/reach_problem.hpp"

namespace orrery {

/// Called with every layer (from 1) and the tokens that can influence the query after it, the query itself included.
using ReachVisit = std::function<void(int layer, const IntervalSet& reached)>;

/// Interval arithmetic: exact for everything but random draws, at any number of tokens. Throws std::length_error if the
/// set falls into more than IntervalSet::most_parts intervals.
void reach_by_intervals(const ReachProblem& problem, const ReachVisit& visit);

/// A bit for every token; a stage is a handful of shifts of the whole array. The engine that can draw the choices of
/// select and bucket, from `seed`. Throws std::invalid_argument above most_bitset_tokens.
inline constexpr Index most_bitset_tokens = Index{1} << 28;
void reach_by_bitset(const ReachProblem& problem, const ReachVisit& visit, std::uint64_t seed = 0);

/// The definition, for small problems: a Boost.Graph graph with a vertex for every token after every stage of every
/// layer and an edge for every key a query sees, searched breadth first from the query at each layer. Throws
/// std::invalid_argument above most_graph_edges.
inline constexpr std::int64_t most_graph_edges = 20'000'000;
void reach_by_graph(const ReachProblem& problem, const ReachVisit& visit);

}  // namespace orrery
