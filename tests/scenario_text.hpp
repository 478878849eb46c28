// The file of a small scenario; a test changes what it is about.
#pragma once

#include <fmt/format.h>

#include <cstdint>
#include <string>

#include "scenarios/scenario.hpp"

namespace orrery {

/// Nodes of GPUs behind an NVSwitch each, in one pod of InfiniBand.
inline std::string fat_tree_text(int nodes, int gpus_of_node) {
  return fmt::format(R"(topology = "fat_tree"
nodes = {0}
node = {{topology = "nvswitch", gpus = {1}, link = "nvlink4"}}
network = "infiniband_ndr"
nodes_per_pod = {0}
oversubscription = 1
uplink_latency = "1 us"
)",
                     nodes, gpus_of_node);
}

struct ScenarioText {
  std::string model = "llama3_8b";
  std::int64_t tokens = 65536;
  int batch = 1;
  std::string dtype = "bf16", pass = "forward", scope = "attention";
  std::string workload{};  // more keys of the table, as `attention` and `parallelism`
  bool causal = true;
  std::string pattern = "{kind = \"full\"}";
  std::string attention{};
  int ranks = 8;
  std::string schedule = "ring", layout = "contiguous", implementation = "ideal";
  std::string parallelism{};
  std::string profile = "peak";
  std::string topology = "topology = \"nvswitch\"\nlink = \"nvlink4\"\n";  // with the keys that go with it

  std::string text() const {
    return fmt::format(R"(description = "test"
[workload]
model = "{}"
tokens = {}
batch = {}
dtype = "{}"
pass = "{}"
scope = "{}"
{}[attention]
causal = {}
pattern = [{}]
{}[parallelism]
ranks = {}
schedule = "{}"
layout = "{}"
implementation = "{}"
{}[cluster]
gpu = "h200_sxm"
profile = "{}"
{})",
                       model, tokens, batch, dtype, pass, scope, workload, causal, pattern, attention, ranks, schedule,
                       layout, implementation, parallelism, profile, topology);
  }
  Scenario scenario() const { return read_scenario(Table::parse(text(), "scenario.toml")); }
};

}  // namespace orrery
