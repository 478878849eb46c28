// The cluster: ranks, the GPU each of them is, and the directed graph of links between them.
#pragma once

#include <boost/graph/adjacency_list.hpp>
#include <cstdint>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "sim/program.hpp"
#include "sim/units.hpp"

namespace orrery {

/// What the simulator needs to know of a GPU: the two resources that compute and communication contend for.
struct GpuResources {
  double sms = 0;                 // streaming multiprocessors (TPU: tensor cores); 0 if nothing can hold them
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

  Rank ranks() const { return static_cast<Rank>(gpus_.size()); }
  const GpuResources& gpu() const { return gpu_; }
  std::span<const Link> links() const { return links_; }

  /// The route of least latency, then fewest hops, then (of several such) the one through the lowest numbered links.
  /// Traffic does not pass through another GPU unless the topology says GPUs forward (torus), see set_gpus_forward.
  /// Found with Boost.Graph once per source and kept. Throws std::runtime_error naming both ranks if there is none.
  const Route& route(Rank source, Rank destination) const;

  /// In a torus or mesh a chip's router forwards traffic of others; in NVLink or PCIe systems a GPU does not.
  void set_gpus_forward(bool forward) { gpus_forward_ = forward; }

  /// Throws std::runtime_error naming two ranks that cannot reach each other.
  void check_connected() const;

 private:
  struct EdgeLink {
    LinkId link;
  };
  using Graph = boost::adjacency_list<boost::vecS, boost::vecS, boost::directedS, boost::no_property, EdgeLink>;

  GpuResources gpu_;
  Graph graph_;
  std::vector<std::string> node_names_;
  std::vector<Node> gpus_;
  std::vector<Link> links_;
  bool gpus_forward_ = false;
  mutable std::unordered_map<std::int64_t, Route> routes_;
};

}  // namespace orrery
