// The [cluster] table of a scenario: a topology and its links by name.
#pragma once

#include <string>
#include <vector>

#include "scenarios/reader.hpp"
#include "scenarios/scenario.hpp"

namespace orrery {

struct ClusterDescription {
  std::string topology;
  std::vector<ClusterLink> links;
  Cluster cluster;
  Rank node_size = 0;  // GPUs that share a node; all of them without nodes
};

/// Reads topology and links; bandwidths inside a node are multiplied by `link_efficiency`. Throws InputError, also if
/// the cluster has another number of GPUs than `ranks`.
ClusterDescription read_cluster(const Table& table, Rank ranks, const Gpu& gpu, double link_efficiency);

}  // namespace orrery
