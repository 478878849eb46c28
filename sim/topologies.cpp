#include "sim/topologies.hpp"

#include <fmt/format.h>

#include <array>
#include <cmath>
#include <stdexcept>
#include <string>
#include <utility>

namespace orrery {
namespace {

using Node = Cluster::Node;

constexpr std::array table = {
    TopologyInfo{"nvswitch", "one node, every GPU linked to one non-blocking switch", "gpus, link"},
    TopologyInfo{"full_mesh", "a direct link between every two GPUs", "gpus, link"},
    TopologyInfo{"pcie_tree", "GPUs under PCIe switches under one or two root complexes",
                 "gpus, gpus_per_switch, gpu_link, uplink, sockets, inter_socket"},
    TopologyInfo{"torus", "1-D, 2-D or 3-D grid with wrap-around; chips forward", "gpus, shape, link, doubled_pairs"},
    TopologyInfo{"fat_tree", "NVSwitch or PCIe nodes on a rail-optimised two-level network",
                 "nodes, node, network, nodes_per_pod, oversubscription, uplink_latency"},
};

template <class... Arguments>
[[noreturn]] void refuse(fmt::format_string<Arguments...> format, Arguments&&... arguments) {
  throw std::invalid_argument(fmt::format(format, std::forward<Arguments>(arguments)...));
}

void require_positive(Rank value, std::string_view topology, std::string_view what) {
  if (value <= 0) refuse("{} of {} is {} (there would be nothing to simulate); give 1 or more", what, topology, value);
}

void require_link(const LinkSpec& link, std::string_view topology, std::string_view what) {
  if (!(link.bandwidth.si() > 0) || !std::isfinite(link.bandwidth.si())) {
    refuse("the bandwidth of {} of {} is {} B/s (nothing would ever arrive); give a positive one", what, topology,
           link.bandwidth.si());
  }
  if (!(link.latency.si() >= 0) || !std::isfinite(link.latency.si())) {
    refuse("the latency of {} of {} is {} s (a message cannot arrive before it is sent); give zero or more", what,
           topology, link.latency.si());
  }
}

void connect(Cluster& cluster, Node a, Node b, const LinkSpec& link) {
  cluster.connect(a, b, link.bandwidth, link.latency);
}

std::vector<Node> add_gpus(Cluster& cluster, Rank count) {
  std::vector<Node> gpus;
  for (Rank i = 0; i < count; ++i) gpus.push_back(cluster.add_gpu(fmt::format("gpu{}", cluster.ranks())));
  return gpus;
}

void check(const NvSwitch& node) {
  require_positive(node.gpus, "nvswitch", "gpus");
  require_link(node.link, "nvswitch", "link");
}

void wire(Cluster& cluster, const NvSwitch& node, std::span<const Node> gpus, const std::string& prefix) {
  const Node hub = cluster.add_switch(prefix + "nvswitch");
  for (const Node gpu : gpus) connect(cluster, gpu, hub, node.link);
}

void check(const PcieTree& tree) {
  require_positive(tree.gpus, "pcie_tree", "gpus");
  require_positive(tree.gpus_per_switch, "pcie_tree", "gpus_per_switch");
  require_link(tree.gpu_link, "pcie_tree", "gpu_link");
  require_link(tree.uplink, "pcie_tree", "uplink");
  if (tree.gpus % tree.gpus_per_switch != 0) {
    refuse(
        "{} GPUs cannot be spread over switches of {} (the last switch would be partly empty); give a multiple of {}",
        tree.gpus, tree.gpus_per_switch, tree.gpus_per_switch);
  }
  if (tree.sockets != 1 && tree.sockets != 2) {
    refuse("a pcie_tree with {} sockets is not known (hosts have 1 or 2 root complexes here); give 1 or 2",
           tree.sockets);
  }
  if (tree.sockets == 1) return;
  if ((tree.gpus / tree.gpus_per_switch) % 2 != 0) {
    refuse("{} PCIe switches cannot be shared by 2 sockets (one half each); give an even number of switches",
           tree.gpus / tree.gpus_per_switch);
  }
  if (!tree.inter_socket) {
    refuse(
        "a pcie_tree with 2 sockets has no inter_socket link (GPUs of different sockets could not reach each other); "
        "state its bandwidth and latency, or give sockets = 1");
  }
  require_link(*tree.inter_socket, "pcie_tree", "inter_socket");
}

/// Returns the PCIe switch of every GPU.
std::vector<Node> wire(Cluster& cluster, const PcieTree& tree, std::span<const Node> gpus, const std::string& prefix) {
  std::vector<Node> roots;
  for (Rank socket = 0; socket < tree.sockets; ++socket) {
    roots.push_back(cluster.add_switch(fmt::format("{}root{}", prefix, socket)));
  }
  if (tree.sockets == 2) connect(cluster, roots[0], roots[1], *tree.inter_socket);
  const Rank switches = tree.gpus / tree.gpus_per_switch;
  std::vector<Node> switch_of_gpu;
  for (Rank index = 0; index < switches; ++index) {
    const Node pcie_switch = cluster.add_switch(fmt::format("{}pcie{}", prefix, index));
    connect(cluster, pcie_switch, roots[index * tree.sockets / switches], tree.uplink);
    for (Rank i = 0; i < tree.gpus_per_switch; ++i) {
      connect(cluster, gpus[switch_of_gpu.size()], pcie_switch, tree.gpu_link);
      switch_of_gpu.push_back(pcie_switch);
    }
  }
  return switch_of_gpu;
}

Rank gpus_of(const std::variant<NvSwitch, PcieTree>& node) {
  return std::visit([](const auto& parameters) { return parameters.gpus; }, node);
}

void check(const FatTree& tree) {
  require_positive(tree.nodes, "fat_tree", "nodes");
  require_positive(tree.nodes_per_pod, "fat_tree", "nodes_per_pod");
  std::visit([](const auto& node) { check(node); }, tree.node);
  require_link(tree.network, "fat_tree", "network");
  if (!(tree.oversubscription >= 1) || !std::isfinite(tree.oversubscription)) {
    refuse(
        "the oversubscription of fat_tree is {} (1 is full bisection, 2 means half as much bandwidth up as down); "
        "give 1 or more",
        tree.oversubscription);
  }
  if (!(tree.uplink_latency.si() >= 0) || !std::isfinite(tree.uplink_latency.si())) {
    refuse("the uplink_latency of fat_tree is {} s (a message cannot arrive before it is sent); give zero or more",
           tree.uplink_latency.si());
  }
}

template <class Parameters>
Cluster node_alone(const GpuResources& gpu, const Parameters& parameters) {
  check(parameters);
  Cluster cluster(gpu);
  wire(cluster, parameters, add_gpus(cluster, parameters.gpus), "");
  return cluster;
}

}  // namespace

std::span<const TopologyInfo> topologies() {
  return table;
}

Cluster nvswitch(const GpuResources& gpu, const NvSwitch& parameters) {
  return node_alone(gpu, parameters);
}

Cluster full_mesh(const GpuResources& gpu, const FullMesh& parameters) {
  require_positive(parameters.gpus, "full_mesh", "gpus");
  require_link(parameters.link, "full_mesh", "link");
  Cluster cluster(gpu);
  const auto gpus = add_gpus(cluster, parameters.gpus);
  for (std::size_t a = 0; a < gpus.size(); ++a) {
    for (std::size_t b = a + 1; b < gpus.size(); ++b) connect(cluster, gpus[a], gpus[b], parameters.link);
  }
  return cluster;
}

Cluster pcie_tree(const GpuResources& gpu, const PcieTree& parameters) {
  return node_alone(gpu, parameters);
}

Cluster torus(const GpuResources& gpu, const Torus& parameters) {
  require_positive(parameters.gpus, "torus", "gpus");
  require_link(parameters.link, "torus", "link");
  const auto& shape = parameters.shape;
  if (shape.empty() || shape.size() > 3) {
    refuse("a torus of {} dimensions is not known (its routes are not checked); give a shape of 1 to 3 sizes",
           shape.size());
  }
  std::int64_t product = 1;
  for (const Rank size : shape) {
    require_positive(size, "torus", "a size in the shape");
    product *= size;
  }
  if (product != parameters.gpus) {
    refuse("the torus shape {} has {} places but there are {} GPUs (every place is one GPU); change one of them",
           fmt::join(shape, " x "), product, parameters.gpus);
  }
  Cluster cluster(gpu);
  cluster.set_gpus_forward(true);
  const auto gpus = add_gpus(cluster, parameters.gpus);
  Rank stride = 1;  // all links of a dimension before those of the next, so that routes go dimension by dimension
  for (const Rank size : shape) {
    LinkSpec link = parameters.link;
    if (size == 2 && parameters.doubled_pairs) link.bandwidth = link.bandwidth * 2;
    for (Rank rank = 0; rank < parameters.gpus && size > 1; ++rank) {
      const Rank place = rank / stride % size;
      if (size == 2 && place == 1) continue;
      connect(cluster, gpus[rank], gpus[rank + ((place + 1) % size - place) * stride], link);
    }
    stride *= size;
  }
  return cluster;
}

Cluster fat_tree(const GpuResources& gpu, const FatTree& parameters) {
  check(parameters);
  const Rank rails = gpus_of(parameters.node);
  const Rank pods = (parameters.nodes + parameters.nodes_per_pod - 1) / parameters.nodes_per_pod;
  Cluster cluster(gpu);
  const auto gpus = add_gpus(cluster, parameters.nodes * rails);

  const auto* pcie = std::get_if<PcieTree>(&parameters.node);
  std::vector<Node> nics = gpus;
  if (pcie != nullptr) {
    for (std::size_t i = 0; i < gpus.size(); ++i) nics[i] = cluster.add_switch(fmt::format("nic{}", i));
  }

  // Links to the leaves come before all others and so win ties: into a GPU from its own rail, not through its node.
  std::vector<Node> leaves;
  for (Rank i = 0; i < pods * rails; ++i) {
    leaves.push_back(cluster.add_switch(fmt::format("pod{} rail{}", i / rails, i % rails)));
  }
  for (Rank rank = 0; rank < cluster.ranks(); ++rank) {
    const Rank pod = rank / rails / parameters.nodes_per_pod;
    connect(cluster, nics[rank], leaves[pod * rails + rank % rails], parameters.network);
  }
  for (Rank node = 0; node < parameters.nodes; ++node) {
    const auto first = static_cast<std::size_t>(node * rails);
    const auto gpus_of_node = std::span(gpus).subspan(first, static_cast<std::size_t>(rails));
    const std::string prefix = fmt::format("node{} ", node);
    if (pcie == nullptr) {
      wire(cluster, std::get<NvSwitch>(parameters.node), gpus_of_node, prefix);
    } else {
      const auto switches = wire(cluster, *pcie, gpus_of_node, prefix);
      for (std::size_t i = 0; i < switches.size(); ++i) connect(cluster, nics[first + i], switches[i], pcie->gpu_link);
    }
  }
  const LinkSpec uplink{parameters.network.bandwidth * (parameters.nodes_per_pod / parameters.oversubscription),
                        parameters.uplink_latency};
  const Node spine = cluster.add_switch("spine");
  for (const Node leaf : leaves) connect(cluster, leaf, spine, uplink);
  cluster.set_gpus_forward(pcie == nullptr);
  return cluster;
}

bool is_network_link(const Link& link) {
  return link.name.find(" rail") != std::string::npos;  // one end is a leaf
}

}  // namespace orrery
