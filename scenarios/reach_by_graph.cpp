// Reach by definition: a Boost.Graph graph of tokens after every stage, searched breadth first. Slow, and deliberately
// without any of the other engines' arithmetic: an edge exists if allows() says so for this one pair.
#include <fmt/format.h>

#include <algorithm>
#include <boost/graph/breadth_first_search.hpp>
#include <boost/graph/compressed_sparse_row_graph.hpp>
#include <boost/pending/queue.hpp>
#include <stdexcept>
#include <utility>

#include "scenarios/reach_engines.hpp"

namespace orrery {
namespace {

bool in_progression(const LagProgression& lags, Index lag) {
  return lag >= lags.first && lag <= lags.last && (lag - lags.first) % lags.step == 0;
}

/// Tokens are counted from the begin of the document.
class Edges {
 public:
  Edges(const ReachProblem& problem, const ReachStep& step) : problem_(problem), step_(step) {}

  bool allows(Index query, Index key) const {
    if (query == key) return true;
    if (problem_.causal && key > query) return false;
    if (key < step_.sink) return true;
    return at_a_lag(query - key) || near(query, key) || free(query, key);
  }

 private:
  bool at_a_lag(Index lag) const {
    const Index n = problem_.tokens();
    for (const LagProgression& lags : step_.lags) {
      if (!problem_.ring && in_progression(lags, lag)) return true;
      if (!problem_.ring) continue;
      for (Index wanted = lags.first; wanted <= lags.last; wanted += lags.step) {
        if ((wanted - lag) % n == 0) return true;
      }
    }
    return false;
  }

  bool near(Index query, Index key) const {
    return std::any_of(step_.near.begin(), step_.near.end(),
                       [&](const NearBlocks& b) { return std::abs(query / b.size - key / b.size) <= b.before; });
  }

  bool free(Index query, Index key) const {
    return std::any_of(step_.free.begin(), step_.free.end(), [&](const FreeBlocks& b) {
      const Index first = query / b.query_block * b.query_block;
      const Index last = std::min(first + b.query_block, problem_.tokens()) - 1;
      const Index block = key / b.size;
      if (block < b.first) return false;
      return block + b.before < first / b.size || block > last / b.size + b.before;
    });
  }

  const ReachProblem& problem_;
  const ReachStep& step_;
};

using Graph = boost::compressed_sparse_row_graph<boost::directedS>;
using Vertex = boost::graph_traits<Graph>::vertex_descriptor;

/// Notes which tokens of level 0, the layers' input, are discovered.
class FindInputs : public boost::default_bfs_visitor {
 public:
  FindInputs(std::vector<Index>& found, Index tokens) : found_(&found), tokens_(static_cast<Vertex>(tokens)) {}
  void discover_vertex(Vertex vertex, const Graph&) {
    if (vertex < tokens_) found_->push_back(static_cast<Index>(vertex));
  }

 private:
  std::vector<Index>* found_;
  Vertex tokens_;
};

struct LayeredGraph {
  Graph graph;
  std::vector<int> level_after_layer;  // vertices of level s: s * tokens + token
};

LayeredGraph build(const ReachProblem& problem) {
  const Index n = problem.tokens();
  std::vector<std::pair<Vertex, Vertex>> edges;  // sorted by source, as they are made
  LayeredGraph result;
  int level = 0;
  for (int layer = 0; layer < problem.layers(); ++layer) {
    for (const ReachStep& step : problem.layer(layer)) {
      const Edges defined(problem, step);
      for (Index query = 0; query < n; ++query) {
        for (Index key = 0; key < n; ++key) {
          if (!defined.allows(query, key)) continue;
          edges.emplace_back(static_cast<Vertex>((level + 1) * n + query), static_cast<Vertex>(level * n + key));
        }
        if (static_cast<std::int64_t>(edges.size()) > most_graph_edges) {
          throw std::invalid_argument(
              fmt::format("the token graph has more than {} edges (the most of the graph engine), use fewer tokens or "
                          "layers, or --engine bitset",
                          most_graph_edges));
        }
      }
      ++level;
    }
    result.level_after_layer.push_back(level);
  }
  result.graph = Graph(boost::edges_are_sorted, edges.begin(), edges.end(), static_cast<Vertex>((level + 1) * n));
  return result;
}

}  // namespace

void reach_by_graph(const ReachProblem& problem, const ReachVisit& visit) {
  const Index n = problem.tokens();
  if (n > most_graph_edges / n) {
    throw std::invalid_argument(
        fmt::format("n = {} has too many pairs of tokens for the graph engine (it looks at each), use fewer tokens or "
                    "--engine bitset",
                    n));
  }
  const LayeredGraph layered = build(problem);
  std::vector<boost::default_color_type> colors;
  for (int layer = 0; layer < problem.layers(); ++layer) {
    colors.assign(boost::num_vertices(layered.graph), boost::white_color);
    std::vector<Index> found;
    boost::queue<Vertex> queue;
    const Index source = layered.level_after_layer[static_cast<std::size_t>(layer)] * n + problem.query - problem.begin;
    boost::breadth_first_visit(
        layered.graph, static_cast<Vertex>(source), queue, FindInputs(found, n),
        boost::make_iterator_property_map(colors.begin(), boost::get(boost::vertex_index, layered.graph)));
    std::vector<Interval> tokens;
    for (const Index token : found) tokens.push_back({token + problem.begin, token + problem.begin});
    visit(layer + 1, IntervalSet::merged(std::move(tokens)));
  }
}

}  // namespace orrery
