#include "sim/cluster.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <boost/graph/dijkstra_shortest_paths.hpp>
#include <boost/graph/filtered_graph.hpp>
#include <cmath>
#include <limits>
#include <set>
#include <stdexcept>
#include <utility>

namespace orrery {
namespace {

/// Leaves out the links that are of no use.
template <class IsUsable>
struct UsableEdges {
  const IsUsable* is_usable = nullptr;
  template <class Edge>
  bool operator()(const Edge& edge) const {
    return (*is_usable)(edge);
  }
};

/// The length of two paths, one after the other. What is beyond 2^63 ps is all equally far; see refuse_beyond_time.
template <class Distance>
Distance longer_by(Distance a, Distance b) {
  Ticks latency = 0;
  if (__builtin_add_overflow(a.latency, b.latency, &latency)) latency = std::numeric_limits<Ticks>::max();
  return {latency, a.hops + b.hops};
}

bool is_beyond_time(Seconds latency) {
  return latency.si() * ticks_per_second >= 9223372036854775807.0;
}

/// Names the slowest link, since it is the likeliest to be wrong.
void refuse_beyond_time(const Route& route, std::span<const Link> links) {
  if (!is_beyond_time(route.latency)) return;
  const LinkId slowest = *std::max_element(route.links.begin(), route.links.end(),
                                           [&](LinkId a, LinkId b) { return links[a].latency < links[b].latency; });
  throw std::overflow_error(fmt::format(
      "the latencies of a route of {} links add up to {:.3g} s, {:.3g} s of it for the link {} (beyond 2^63 "
      "ps, 106 days); give it a smaller one",
      route.links.size(), route.latency.si(), links[slowest].latency.si(), links[slowest].name));
}

}  // namespace

Cluster::Cluster(GpuResources gpu) : gpu_(gpu) {
  if (!(gpu.sms >= 0) || !(gpu.hbm_bandwidth.si() >= 0)) {
    throw std::invalid_argument("a GPU's SM count or HBM bandwidth is negative or not a number; give 0 if unlimited");
  }
}

Cluster::Node Cluster::add_node(std::string name, bool is_gpu) {
  forget_routes();
  node_names_.push_back(std::move(name));
  is_gpu_.push_back(is_gpu);
  return boost::add_vertex(graph_);
}

Cluster::Node Cluster::add_gpu(std::string name) {
  const Node node = add_node(std::move(name), true);
  gpus_.push_back(node);
  return node;
}

Cluster::Node Cluster::add_switch(std::string name) {
  return add_node(std::move(name), false);
}

void Cluster::add_link(Node from, Node to, BytesPerSecond bandwidth, Seconds latency) {
  const auto id = static_cast<LinkId>(links_.size());
  links_.push_back(Link{fmt::format("{} -> {}", node_names_[from], node_names_[to]), bandwidth, latency});
  link_ends_.push_back(LinkEnds{from, to});
  boost::add_edge(from, to, EdgeLink{id, Distance{to_ticks(latency), 1}}, graph_);
}

void Cluster::connect(Node a, Node b, BytesPerSecond bandwidth_per_direction, Seconds latency) {
  if (a >= node_names_.size() || b >= node_names_.size() || a == b) {
    throw std::invalid_argument(fmt::format(
        "cannot connect node {} with node {} (a link needs two different nodes of this cluster, which has {}); add the "
        "nodes first",
        a, b, node_names_.size()));
  }
  const double bandwidth = bandwidth_per_direction.si();
  if (!(bandwidth > 0) || !std::isfinite(bandwidth)) {
    throw std::invalid_argument(
        fmt::format("the link {} - {} has a bandwidth of {} B/s (nothing would ever arrive); "
                    "give a positive one",
                    node_names_[a], node_names_[b], bandwidth));
  }
  if (!(latency.si() >= 0) || !std::isfinite(latency.si())) {
    throw std::invalid_argument(
        fmt::format("the link {} - {} has a latency of {} s (no message arrives before it is "
                    "sent); give zero or more",
                    node_names_[a], node_names_[b], latency.si()));
  }
  if (is_beyond_time(latency)) {
    throw std::invalid_argument(
        fmt::format("the link {} - {} has a latency of {:.3g} s (beyond 2^63 ps, 106 days); give a "
                    "smaller one",
                    node_names_[a], node_names_[b], latency.si()));
  }
  forget_routes();
  add_link(a, b, bandwidth_per_direction, latency);
  add_link(b, a, bandwidth_per_direction, latency);
}

void Cluster::set_gpus_forward(bool forward) {
  forget_routes();
  gpus_forward_ = forward;
}

void Cluster::forget_routes() {
  last_links_.clear();
  routes_.clear();
  nearest_.clear();
}

std::vector<LinkId> Cluster::last_links_from(Node source) const {
  // Neither dead, nor from a node that does not forward.
  const auto may_use = [&](LinkId link) { return !is_dead(link) && forwards(link_ends_[link].from, source); };
  const auto is_usable = [&](const Graph::edge_descriptor& edge) { return may_use(graph_[edge].link); };
  using Edges = UsableEdges<decltype(is_usable)>;
  const boost::filtered_graph<Graph, Edges> usable(graph_, Edges{&is_usable});

  const Distance unreached{std::numeric_limits<Ticks>::max(), std::numeric_limits<std::int32_t>::max()};
  std::vector<Distance> distance(node_names_.size());
  boost::dijkstra_shortest_paths(
      usable, source,
      boost::weight_map(boost::get(&EdgeLink::length, usable))
          .distance_map(boost::make_iterator_property_map(distance.begin(), boost::get(boost::vertex_index, graph_)))
          .distance_compare(std::less<Distance>())
          .distance_combine(&longer_by<Distance>)
          .distance_inf(unreached)
          .distance_zero(Distance{}));

  // Which of several shortest paths Dijkstra records depends on its queue; choosing afterwards does not.
  std::vector<LinkId> last_links(node_names_.size(), -1);
  for (LinkId id = 0; id < static_cast<LinkId>(links_.size()); ++id) {
    const auto [from, to] = link_ends_[id];
    if (last_links[to] >= 0 || distance[from] == unreached || !may_use(id)) continue;
    if (longer_by(distance[from], Distance{to_ticks(links_[id].latency), 1}) == distance[to]) last_links[to] = id;
  }
  return last_links;
}

std::optional<std::array<LinkId, 2>> Cluster::over_one_node(Rank source, Rank destination) const {
  if (!is_dead_.empty()) return std::nullopt;
  const Node from = gpus_[source], to = gpus_[destination];
  // connect() makes links in pairs, there and back.
  std::optional<std::array<LinkId, 2>> best;
  Distance length;
  for (auto [back, back_end] = boost::out_edges(to, graph_); back != back_end; ++back) {
    const Node middle = boost::target(*back, graph_);
    if (middle == from) return std::nullopt;
    if (!forwards(middle, from)) continue;
    for (auto [out, out_end] = boost::out_edges(from, graph_); out != out_end; ++out) {
      if (boost::target(*out, graph_) != middle) continue;
      const std::array<LinkId, 2> links = {graph_[*out].link, graph_[*back].link ^ 1};
      const Distance d = longer_by(graph_[*out].length, graph_[*back].length);
      const auto from_the_end = [](const std::array<LinkId, 2>& a) { return std::array{a[1], a[0]}; };
      if (!best || d < length || (d == length && from_the_end(links) < from_the_end(*best))) {
        best = links;
        length = d;
      }
    }
  }
  if (!best) return std::nullopt;
  if (nearest_.empty()) {
    nearest_.assign(node_names_.size(), Distance{std::numeric_limits<Ticks>::max() / 2, 0});
    for (LinkId id = 0; id < static_cast<LinkId>(links_.size()); ++id) {
      const Distance d{to_ticks(links_[id].latency), 1};
      nearest_[link_ends_[id].from] = std::min(nearest_[link_ends_[id].from], d);
    }
  }
  // Nodes from which no link can be at `to` sooner are not looked beyond.
  std::vector<std::pair<Node, Distance>> reached = {{from, Distance{}}};
  for (std::size_t i = 0; i < reached.size(); ++i) {
    const auto [node, distance] = reached[i];
    if (!forwards(node, from) || !(longer_by(distance, nearest_[node]) < length)) continue;
    for (auto [out, end] = boost::out_edges(node, graph_); out != end; ++out) {
      const Node next = boost::target(*out, graph_);
      const Distance d = longer_by(distance, graph_[*out].length);
      if (!(d < length)) continue;
      if (next == to) return std::nullopt;
      const auto known = std::find_if(reached.begin(), reached.end(), [&](const auto& r) { return r.first == next; });
      if (known != reached.end() && known->second <= d) continue;
      constexpr std::size_t most = 64;
      if (reached.size() == most) return std::nullopt;
      reached.emplace_back(next, d);
    }
  }
  return best;
}

Cluster Cluster::without(std::span<const LinkId> dead) const {
  Cluster other = *this;
  other.forget_routes();
  other.is_dead_.resize(links_.size());
  for (const LinkId link : dead) other.is_dead_[link] = true;
  return other;
}

Cluster Cluster::with_gpu(GpuResources gpu) const {
  Cluster other = *this;
  other.gpu_ = gpu;
  return other;
}

Cluster::Search Cluster::search_from(Rank source) const {
  Search search;
  Node begin = gpus_[source];
  const auto [first, end] = boost::out_edges(begin, graph_);
  if (!gpus_forward_ && std::distance(first, end) == 1 && !is_gpu_[boost::target(*first, graph_)] &&
      !is_dead(graph_[*first].link)) {
    search.first = graph_[*first].link;
    begin = boost::target(*first, graph_);
  }
  const auto [known, is_new] = last_links_.try_emplace(begin);
  if (is_new) known->second = last_links_from(begin);
  search.last_links = &known->second;
  return search;
}

void Cluster::scale_bandwidth(double factor) {
  for (Link& link : links_) link.bandwidth = link.bandwidth * factor;
}

const Route& Cluster::route(Rank source, Rank destination) const {
  if (source < 0 || destination < 0 || source >= ranks() || destination >= ranks()) {
    throw std::invalid_argument(fmt::format(
        "no route from rank {} to rank {} (the cluster has {} ranks, counted from 0)", source, destination, ranks()));
  }
  const std::int64_t key = static_cast<std::int64_t>(source) * ranks() + destination;
  if (const auto known = routes_.find(key); known != routes_.end()) return known->second;

  if (source != destination) {
    if (const auto links = over_one_node(source, destination)) {
      Route near{{links->begin(), links->end()}, links_[(*links)[0]].latency + links_[(*links)[1]].latency};
      refuse_beyond_time(near, links_);
      return routes_.emplace(key, std::move(near)).first->second;
    }
  }
  const Search search = search_from(source);
  Route route;
  const Node begin = search.first < 0 ? gpus_[source] : link_ends_[search.first].to;
  for (Node node = gpus_[destination]; source != destination && node != begin;) {
    const LinkId link = (*search.last_links)[node];
    if (link < 0) {
      throw std::runtime_error(
          fmt::format("rank {} ({}) cannot reach rank {} ({}) (no chain of links joins them{}); add "
                      "a link or a switch between them",
                      source, node_names_[gpus_[source]], destination, node_names_[gpus_[destination]],
                      gpus_forward_ ? "" : ", and GPUs do not forward"));
    }
    route.links.push_back(link);
    node = link_ends_[link].from;
  }
  if (source != destination && search.first >= 0) route.links.push_back(search.first);
  std::reverse(route.links.begin(), route.links.end());
  for (const LinkId link : route.links) route.latency += links_[link].latency;
  refuse_beyond_time(route, links_);
  return routes_.emplace(key, std::move(route)).first->second;
}

void Cluster::check_connected() const {
  // GPUs that do not forward make "can reach" intransitive, so every source has to be asked.
  // Those behind the same switch see the same, and each other.
  std::set<const std::vector<LinkId>*> asked;
  // Where all forward, links lead both ways and so do routes.
  const bool is_whole = is_dead_.empty();
  const Rank sources = gpus_forward_ && is_whole ? std::min(ranks(), 1) : ranks();
  for (Rank source = 0; source < sources; ++source) {
    const Search search = search_from(source);
    if (search.first >= 0 && is_whole && !asked.insert(search.last_links).second) continue;
    for (Rank destination = 0; destination < ranks(); ++destination) {
      if (destination != source && (*search.last_links)[gpus_[destination]] < 0) route(source, destination);  // throws
    }
  }
}

}  // namespace orrery
