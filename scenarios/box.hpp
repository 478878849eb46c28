// A box of GPUs as its own tools describe it: the matrix of `nvidia-smi topo -m`, or the XML that NCCL writes to
// NCCL_TOPO_DUMP_FILE; as the [cluster] table of a scenario.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "scenarios/hardware.hpp"
#include "sim/topologies.hpp"

namespace orrery {

struct Box {
  int nvlinks = 0;  // of each GPU (to switches), or of each pair; 0: PCIe alone
  enum class Ends { unknown, switches, gpus } ends = Ends::unknown;
  std::vector<int> pcie_switch;   // of each GPU: the first GPU under the same switch
  std::vector<int> socket;        // of each GPU: the first GPU on the same socket, as far as the file says it
  std::vector<std::string> nics;  // "mlx5_0 (400 Gbit/s)"

  int gpus() const { return static_cast<int>(socket.size()); }
};

/// Throws InputError if the file is neither, or what it describes is not the same for all GPUs.
Box read_box(const std::filesystem::path& file);

/// One node of GPUs: all on a switch, or on a PCIe tree.
struct NodeShape {
  std::string link;  // of each GPU, by name
  int gpus = 0;
  int gpus_per_switch = 0;  // 0: no tree, all on one switch
  int sockets = 1;

  bool is_tree() const { return gpus_per_switch > 0; }
};

/// Throws InputError if no topology has this shape, or if the NVLinks are not those of the GPU.
NodeShape shape_of(const Box& box, const Gpu& gpu);

/// Whether as many of `ranks` GPUs can be on each of the sockets that they need.
bool is_even(const NodeShape& shape, Rank ranks);

/// Of the tree, the part that `ranks` GPUs are on, which share switches as far as they fill them and are as many on
/// each socket. Uplinks and the link between the sockets are taken to be as wide as a GPU's.
PcieTree tree_of(const NodeShape& shape, Rank ranks, const LinkSpec& link);

/// The text of [cluster], for a box of these GPUs. What the file cannot know is marked as assumed. Throws InputError if
/// no topology has this shape, or if the NVLinks are not those of the GPU.
std::string cluster_text(const Box& box, const Gpu& gpu);

}  // namespace orrery
