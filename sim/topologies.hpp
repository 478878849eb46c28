// The shapes of clusters: one plain struct of parameters and one function per topology, and a table that lists them.
//
// Bandwidths are per direction; a latency belongs to one link, so that GPU - switch - GPU costs two. Every function
// throws std::invalid_argument with a sentence "problem (why); suggestion" if a parameter makes no sense.
#pragma once

#include <optional>
#include <span>
#include <string_view>
#include <variant>
#include <vector>

#include "sim/cluster.hpp"

namespace orrery {

struct LinkSpec {
  BytesPerSecond bandwidth;  // per direction
  Seconds latency;
};

/// One node: every GPU is linked to one switch that is never the bottleneck.
struct NvSwitch {
  Rank gpus = 0;
  LinkSpec link;
};
Cluster nvswitch(const GpuResources& gpu, const NvSwitch& parameters);

/// A direct link between every two GPUs (bridged NVLink, Infinity Fabric).
struct FullMesh {
  Rank gpus = 0;
  LinkSpec link;
};
Cluster full_mesh(const GpuResources& gpu, const FullMesh& parameters);

/// GPUs under PCIe switches under the root complex of their socket. GPUs are numbered switch by switch; the first half
/// of the switches belongs to the first socket.
struct PcieTree {
  Rank gpus = 0;
  Rank gpus_per_switch = 0;
  LinkSpec gpu_link;  // GPU to switch
  LinkSpec uplink;    // switch to root complex
  Rank sockets = 1;   // 1 or 2
  std::optional<LinkSpec> inter_socket;
};
Cluster pcie_tree(const GpuResources& gpu, const PcieTree& parameters);

/// Chips that forward, in a grid whose lines close to rings. Rank = x + shape[0] * (y + shape[1] * z). A dimension of
/// size 1 has no links. In one of size 2 the direct and the wrap-around link would join the same two chips: there is
/// one link, of double bandwidth if `doubled_pairs` says that both cables exist.
struct Torus {
  Rank gpus = 0;
  std::vector<Rank> shape;  // 1 to 3 dimensions
  LinkSpec link;
  bool doubled_pairs = false;
};
Cluster torus(const GpuResources& gpu, const Torus& parameters);

/// Nodes of equal make, joined by a rail-optimised two-level network. Every GPU has a NIC; rail r is the GPUs number r
/// of all nodes. A pod of `nodes_per_pod` nodes has one leaf switch per rail, and all leaves hang from one spine: each
/// by one link of nodes_per_pod * network bandwidth / oversubscription, which stands for its uplinks with ideal
/// balancing.
///
/// NVSwitch nodes: the NIC is at the GPU (give `network` the smaller bandwidth of NIC and PCIe), and GPUs forward.
/// GPUs of different rails and nodes then reach each other through the sender's NVSwitch and the GPU on the receiver's
/// rail or over the spine, whichever has less latency; on a tie the former, as NCCL's PXN does. HBM traffic of the GPU
/// on the way is not counted.
/// PCIe nodes: the NIC is at the GPU's PCIe switch, by a link like the GPU's, and GPUs do not forward. A node's way to
/// another rail is over its PCIe tree to the NIC of that rail, or over the spine, by the same rule.
struct FatTree {
  Rank nodes = 0;
  std::variant<NvSwitch, PcieTree> node;
  LinkSpec network;  // NIC to leaf
  Rank nodes_per_pod = 0;
  double oversubscription = 1;  // 1: full bisection
  Seconds uplink_latency;       // leaf to spine
};
Cluster fat_tree(const GpuResources& gpu, const FatTree& parameters);

/// Whether it leads to or from a switch of a fat tree's network, and so not to another GPU of the node.
bool is_network_link(const Link& link);

struct TopologyInfo {
  std::string_view name;
  std::string_view description;
  std::string_view parameters;
};

/// All of the above, in the order in which a list shows them.
std::span<const TopologyInfo> topologies();

}  // namespace orrery
