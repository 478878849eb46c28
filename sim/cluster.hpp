// The cluster: ranks, the GPU each of them is, and the directed graph of links between them.
#pragma once

#include <array>
#include <boost/graph/adjacency_list.hpp>
#include <compare>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "sim/program.hpp"
#include "sim/units.hpp"

namespace orrery {

/// What the simulator needs to know of a GPU: the two resources that compute and communication contend for.
struct GpuResources {
  double sms = 0;  // streaming multiprocessors (TPU: tensor cores); 0 if nothing can hold them
  BytesPerSecond hbm_bandwidth;
};

using LinkId = std::int32_t;

/// One direction of a cable, bus or switch port. Bandwidth and latency are separate properties.
struct Link {
  std::string name;  // "gpu3 -> nvswitch"
  BytesPerSecond bandwidth;
  Seconds latency;
};

/// The links from one rank to another, in order. Transfers cut through: a hop adds its latency, not another
/// serialisation, so the time alone on the route is latency + size / (smallest bandwidth).
struct Route {
  std::vector<LinkId> links;
  Seconds latency;  // sum over the links
};

class Cluster {
 public:
  using Node = std::size_t;

  explicit Cluster(GpuResources gpu);

  /// Ranks are numbered in the order in which their nodes are added.
  Node add_gpu(std::string name);
  Node add_switch(std::string name);
  /// Two links, one in each direction. Throws std::invalid_argument if the bandwidth is not positive.
  void connect(Node a, Node b, BytesPerSecond bandwidth_per_direction, Seconds latency);

  /// What if every link had `factor` times its bandwidth? Routes stay. Precondition: factor > 0.
  void scale_bandwidth(double factor);

  /// What if these links were dead? Links keep their numbers, routes avoid them. Precondition: they exist.
  Cluster without(std::span<const LinkId> dead) const;

  /// What if every GPU were another?
  Cluster with_gpu(GpuResources gpu) const;

  Rank ranks() const { return static_cast<Rank>(gpus_.size()); }
  const GpuResources& gpu() const { return gpu_; }
  std::span<const Link> links() const { return links_; }

  /// The route of least latency, then fewest hops, then (of several such) the one through the lowest numbered links,
  /// compared from the last link back. From a rank to itself it is empty.
  /// Traffic does not pass through another GPU unless the topology says GPUs forward (torus), see set_gpus_forward.
  /// Found with Boost.Graph once per source and kept until the cluster changes; the reference is good as long.
  /// Throws std::runtime_error naming both ranks if there is none. The cache is filled by const calls, so two threads
  /// need two copies of a cluster.
  const Route& route(Rank source, Rank destination) const;

  /// In a torus or mesh a chip's router forwards traffic of others; in NVLink or PCIe systems a GPU does not.
  void set_gpus_forward(bool forward);

  /// Throws std::runtime_error naming two ranks that cannot reach each other.
  void check_connected() const;

 private:
  /// Length of a path: latency in whole ticks (so that sums do not depend on their order), then the number of links.
  struct Distance {
    Ticks latency = 0;
    std::int32_t hops = 0;
    auto operator<=>(const Distance&) const = default;
  };
  struct EdgeLink {
    LinkId link = -1;
    Distance length;
  };
  using Graph = boost::adjacency_list<boost::vecS, boost::vecS, boost::directedS, boost::no_property, EdgeLink>;
  struct LinkEnds {
    Node from, to;
  };

  Node add_node(std::string name, bool is_gpu);
  void add_link(Node from, Node to, BytesPerSecond bandwidth, Seconds latency);
  void forget_routes();
  bool is_dead(LinkId link) const { return !is_dead_.empty() && is_dead_[link]; }
  bool forwards(Node node, Node source) const { return node == source || gpus_forward_ || !is_gpu_[node]; }
  /// For every node the last link of its route from `source`; -1 where there is none.
  std::vector<LinkId> last_links_from(Node source) const;
  /// The two links of the best route over one node between the two, if a short search from `source` can tell that none
  /// is better. In large clusters that is most routes in use, and much less work than last_links_from.
  std::optional<std::array<LinkId, 2>> over_one_node(Rank source, Rank destination) const;
  /// What last_links_from gives for where the routes of a GPU begin. That is the GPU, or, if its only link leads to a
  /// switch, the switch, so that all GPUs there share one search: `first` is then that link, else -1.
  struct Search {
    LinkId first = -1;
    const std::vector<LinkId>* last_links = nullptr;
  };
  Search search_from(Rank source) const;

  GpuResources gpu_;
  Graph graph_;
  std::vector<std::string> node_names_;
  std::vector<bool> is_gpu_;
  std::vector<Node> gpus_;
  std::vector<Link> links_;
  std::vector<LinkEnds> link_ends_;
  bool gpus_forward_ = false;
  std::vector<bool> is_dead_;                                         // by link; empty: none is
  mutable std::unordered_map<Node, std::vector<LinkId>> last_links_;  // by where the search began
  mutable std::unordered_map<std::int64_t, Route> routes_;
  mutable std::vector<Distance> nearest_;  // by node, its shortest outgoing link
};

}  // namespace orrery
