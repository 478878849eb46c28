// Reach by definition: a Boost.Graph graph of tokens after every stage, searched breadth first. Slow, and deliberately
// without any of the other engines' arithmetic: an edge exists if allows() says so for this one pair.
#include <fmt/format.h>

#include <algorithm>
#include <boost/graph/breadth_first_search.hpp>
#include <boost/graph/two_bit_color_map.hpp>
#include <boost/iterator/transform_iterator.hpp>
#include <boost/pending/queue.hpp>
#include <cstdint>
#include <stdexcept>
#include <utility>
#include <vector>

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

using Vertex = std::size_t;

/// The keys of every query in one stage, query after query.
struct StageEdges {
  std::vector<std::size_t> begin_of_query{0};
  std::vector<std::uint32_t> keys;
};

/// A Boost.Graph IncidenceGraph. Vertex s * tokens + t is token t after s stages of all layers; its edges lead to the
/// keys it sees, one stage earlier. Layers that are alike share the memory of their edges.
class LayeredGraph {
 public:
  struct ToEdge {
    Vertex query = 0, first_key = 0;
    std::pair<Vertex, Vertex> operator()(std::uint32_t key) const { return {query, first_key + key}; }
  };
  using vertex_descriptor = Vertex;
  using edge_descriptor = std::pair<Vertex, Vertex>;
  using directed_category = boost::directed_tag;
  using edge_parallel_category = boost::disallow_parallel_edge_tag;
  using traversal_category = boost::incidence_graph_tag;
  using out_edge_iterator = boost::transform_iterator<ToEdge, const std::uint32_t*, edge_descriptor, edge_descriptor>;
  using degree_size_type = std::size_t;

  explicit LayeredGraph(const ReachProblem& problem);

  Vertex after_layer(int layer, Index token) const {
    return level_after_layer_[static_cast<std::size_t>(layer)] * tokens_ + static_cast<Vertex>(token);
  }
  Vertex vertices() const { return (stage_of_level_.size() + 1) * tokens_; }

  friend std::pair<out_edge_iterator, out_edge_iterator> out_edges(Vertex vertex, const LayeredGraph& graph) {
    const Vertex level = vertex / graph.tokens_, query = vertex % graph.tokens_;
    if (level == 0) return {};
    const StageEdges& edges = graph.stages_[graph.stage_of_level_[level - 1]];
    const ToEdge to_edge{vertex, (level - 1) * graph.tokens_};
    return {{edges.keys.data() + edges.begin_of_query[query], to_edge},
            {edges.keys.data() + edges.begin_of_query[query + 1], to_edge}};
  }
  friend std::size_t out_degree(Vertex vertex, const LayeredGraph& graph) {
    const auto [begin, end] = out_edges(vertex, graph);
    return static_cast<std::size_t>(end - begin);
  }
  friend Vertex source(const edge_descriptor& edge, const LayeredGraph&) { return edge.first; }
  friend Vertex target(const edge_descriptor& edge, const LayeredGraph&) { return edge.second; }

 private:
  std::size_t add_stage(const ReachProblem& problem, const ReachStep& step);

  Vertex tokens_;
  std::vector<StageEdges> stages_;
  std::vector<std::size_t> stage_of_level_;  // from level 1 on
  std::vector<Vertex> level_after_layer_;
  std::size_t edges_ = 0;
};

LayeredGraph::LayeredGraph(const ReachProblem& problem) : tokens_(static_cast<Vertex>(problem.tokens())) {
  std::vector<std::vector<std::size_t>> stages_of_kind;
  for (const ReachLayer& kind : problem.kinds) {
    std::vector<std::size_t>& stages = stages_of_kind.emplace_back();
    for (const ReachStep& step : kind) stages.push_back(add_stage(problem, step));
  }
  for (const int kind : problem.kind_of_layer) {
    const std::vector<std::size_t>& stages = stages_of_kind[static_cast<std::size_t>(kind)];
    stage_of_level_.insert(stage_of_level_.end(), stages.begin(), stages.end());
    level_after_layer_.push_back(stage_of_level_.size());
  }
}

std::size_t LayeredGraph::add_stage(const ReachProblem& problem, const ReachStep& step) {
  const Edges defined(problem, step);
  const auto for_each_key = [&](Index query, auto found) {
    for (Index key = 0; key < problem.tokens(); ++key) {
      if (defined.allows(query, key)) found(static_cast<std::uint32_t>(key));
    }
  };
  StageEdges& stage = stages_.emplace_back();
  std::size_t edges = 0;
  for (Index query = 0; query < problem.tokens(); ++query) {
    for_each_key(query, [&](std::uint32_t) { ++edges; });
    stage.begin_of_query.push_back(edges);
    if (edges_ + edges > static_cast<std::size_t>(most_graph_edges)) {
      throw std::invalid_argument(
          fmt::format("the token graph has more than {} edges (1 GB, the most memory of the graph engine), use fewer "
                      "tokens or --engine bitset",
                      most_graph_edges));
    }
  }
  edges_ += edges;
  stage.keys.reserve(edges);
  for (Index query = 0; query < problem.tokens(); ++query) {
    for_each_key(query, [&](std::uint32_t key) { stage.keys.push_back(key); });
  }
  return stages_.size() - 1;
}

/// Notes which tokens of level 0, the layers' input, are discovered.
class FindInputs : public boost::default_bfs_visitor {
 public:
  FindInputs(std::vector<Index>& found, Index tokens) : found_(&found), tokens_(static_cast<Vertex>(tokens)) {}
  void discover_vertex(Vertex vertex, const LayeredGraph&) {
    if (vertex < tokens_) found_->push_back(static_cast<Index>(vertex));
  }

 private:
  std::vector<Index>* found_;
  Vertex tokens_;
};

void check_time(const ReachProblem& problem) {
  std::size_t stages = 0;
  for (const ReachLayer& kind : problem.kinds) stages += kind.size();
  const double pairs =
      static_cast<double>(problem.tokens()) * static_cast<double>(problem.tokens()) * static_cast<double>(stages);
  if (pairs <= most_graph_pairs) return;
  throw std::invalid_argument(
      fmt::format("n = {} has {:.2g} pairs of tokens in all kinds of stages (the graph engine looks at each, at most "
                  "{:.2g} in about a minute), use fewer tokens or --engine bitset",
                  problem.tokens(), pairs, most_graph_pairs));
}

}  // namespace

void reach_by_graph(const ReachProblem& problem, const ReachVisit& visit) {
  check_time(problem);
  const LayeredGraph graph(problem);
  for (int layer = 0; layer < problem.layers(); ++layer) {
    std::vector<Index> found;
    boost::queue<Vertex> queue;
    boost::breadth_first_visit(
        graph, graph.after_layer(layer, problem.query - problem.begin), queue, FindInputs(found, problem.tokens()),
        boost::make_two_bit_color_map(graph.vertices(), boost::typed_identity_property_map<Vertex>()));
    std::vector<Interval> tokens;
    for (const Index token : found) tokens.push_back({token + problem.begin, token + problem.begin});
    visit(layer + 1, IntervalSet::merged(std::move(tokens)));
  }
}

}  // namespace orrery
