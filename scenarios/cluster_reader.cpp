#include "scenarios/cluster_reader.hpp"

#include <fmt/format.h>

#include <stdexcept>
#include <variant>

#include "scenarios/box.hpp"
#include "sim/topologies.hpp"

namespace orrery {
namespace {

class ClusterReader {
 public:
  ClusterReader(Rank ranks, const Gpu& gpu, double link_efficiency)
      : ranks_(ranks),
        node_size_(ranks),
        gpu_(gpu),
        resources_{static_cast<double>(gpu.sms), gpu.hbm_bandwidth},
        link_efficiency_(link_efficiency) {}

  ClusterDescription read(const Table& table) {
    if (table.has("box")) return read_as_box(table);
    const std::string topology = table.choice("topology", names_of(topologies()));
    try {
      Cluster cluster = build(table, topology);
      if (cluster.ranks() != ranks_) {
        throw table.error_at("topology",
                             fmt::format("the cluster has {} GPUs (parallelism.ranks = {}), make the two equal",
                                         cluster.ranks(), ranks_));
      }
      cluster.check_connected();
      return {topology, std::move(links_), std::move(cluster), node_size_};
    } catch (const InputError&) {
      throw;
    } catch (const std::exception& error) {
      throw table.error_at("topology", error.what());
    }
  }

 private:
  /// What the box says about itself, in a file beside the one that names it.
  ClusterDescription read_as_box(const Table& table) {
    try {
      const Box box = read_box(std::filesystem::path(table.file()).parent_path() / table.string("box"));
      const NodeShape shape = shape_of(box, gpu_);
      if (shape.gpus != ranks_)
        throw std::invalid_argument(
            fmt::format("the box has {} GPUs (parallelism.ranks = {}), make the two equal", shape.gpus, ranks_));
      LinkType type = load_link(shape.link);
      const LinkSpec link{type.bandwidth * link_efficiency_, type.latency};
      links_.push_back({"link", std::move(type), shape.is_tree() ? shape.gpus_per_switch : ranks_});
      if (!shape.is_tree())
        return {"nvswitch", std::move(links_), nvswitch(resources_, NvSwitch{ranks_, link}), node_size_};
      return {"pcie_tree", std::move(links_), pcie_tree(resources_, tree_of(shape, ranks_, link)), node_size_};
    } catch (const std::exception& error) {
      throw table.error_at("box", error.what());
    }
  }

  Cluster build(const Table& table, const std::string& topology) {
    if (topology == "nvswitch") return nvswitch(resources_, NvSwitch{ranks_, link(table, "link", ranks_)});
    if (topology == "full_mesh") return full_mesh(resources_, FullMesh{ranks_, link(table, "link", ranks_)});
    if (topology == "pcie_tree") return pcie_tree(resources_, pcie(table, ranks_));
    if (topology == "torus") {
      Torus parameters{.gpus = ranks_, .shape = {}, .link = link(table, "link", ranks_)};
      for (const std::int64_t side : table.counts("shape")) {
        if (side < 1 || side > most_gpus) {
          throw table.error_at(
              "shape", fmt::format("{} GPUs along a side are not in 1 to {}, write one of these", side, most_gpus));
        }
        parameters.shape.push_back(static_cast<Rank>(side));
      }
      return torus(resources_, parameters);
    }
    FatTree parameters;
    // Asked for before either is missed, or it would be taken for the other one mistyped.
    for (const char* key : {"nodes", "node"}) table.has(key);
    parameters.nodes = rank_count(table, "nodes");
    parameters.network = network(table);
    parameters.nodes_per_pod = rank_count(table, "nodes_per_pod");
    parameters.oversubscription = table.number("oversubscription");
    parameters.uplink_latency = table.seconds("uplink_latency");
    const Table node = table.table("node");
    const Rank gpus = node_size_ = rank_count(node, "gpus");
    if (node.choice("topology", {"nvswitch", "pcie_tree"}) == "nvswitch") {
      parameters.node = NvSwitch{gpus, link(node, "link", gpus)};
    } else {
      parameters.node = pcie(node, gpus);
    }
    return fat_tree(resources_, parameters);
  }

  PcieTree pcie(const Table& table, Rank gpus) {
    PcieTree parameters;
    parameters.gpus = gpus;
    parameters.gpus_per_switch = rank_count(table, "gpus_per_switch");
    parameters.gpu_link = link(table, "link", parameters.gpus_per_switch);
    parameters.uplink = link(table, "uplink");
    parameters.sockets = rank_count(table, "sockets");
    if (parameters.sockets == 2 && table.has("inter_socket")) parameters.inter_socket = link(table, "inter_socket");
    return parameters;
  }

  LinkSpec link(const Table& table, std::string_view key, Rank domain = 1) {
    return load(table, key, domain, link_efficiency_);
  }
  /// The profile's efficiency is of links inside a node. A NIC's rate is that of data, less headers of some 30 bytes in
  /// packets of 4 KiB, which are neglected.
  LinkSpec network(const Table& table) { return load(table, "network", 1, 1); }
  LinkSpec load(const Table& table, std::string_view key, Rank domain, double efficiency) {
    LinkType type = table.load(key, "hardware", load_link);
    const LinkSpec spec{type.bandwidth * efficiency, type.latency};
    links_.push_back({std::string(key), std::move(type), domain});
    return spec;
  }

  static constexpr std::int64_t most_gpus = 1 << 20;
  static Rank rank_count(const Table& table, std::string_view key) {
    return static_cast<Rank>(table.count(key, 1, most_gpus));
  }

  Rank ranks_;
  Rank node_size_;
  const Gpu& gpu_;
  GpuResources resources_;
  double link_efficiency_;
  std::vector<ClusterLink> links_;
};

}  // namespace

ClusterDescription read_cluster(const Table& table, Rank ranks, const Gpu& gpu, double link_efficiency) {
  return ClusterReader(ranks, gpu, link_efficiency).read(table);
}

}  // namespace orrery
