// A scenario: a workload, a way to spread it over ranks, and a cluster, read from one TOML file.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "cost_models/profile.hpp"
#include "scenarios/attention_program.hpp"
#include "scenarios/degrees.hpp"
#include "scenarios/fault_plan.hpp"
#include "scenarios/hardware.hpp"
#include "scenarios/implementation.hpp"
#include "scenarios/memory.hpp"
#include "scenarios/model.hpp"
#include "scenarios/pattern.hpp"
#include "scenarios/reader.hpp"
#include "scenarios/variation.hpp"
#include "sim/cluster.hpp"

namespace orrery {

/// A link type as it is used in the cluster.
struct ClusterLink {
  std::string role;  // "link", "uplink", "network", ...
  LinkType type;
  Rank domain = 1;  // GPUs in a row, from the first on, that links of this kind alone join: those of a node, say
};

struct Scenario {
  std::filesystem::path file;
  std::string name;  // the file's
  std::string description;

  ModelShape model;
  Index tokens = 0;
  Index batch = 1;
  std::string dtype;
  bool backward = false;              // a training step; otherwise the forward pass
  bool decode = false;                // or one more token of each sequence
  Regime regime = Regime::sustained;  // or one step after a rest
  bool whole_layers = false;          // with projections and MLP; otherwise attention alone
  bool whole_step = false;            // the whole model on all its degrees of parallelism
  int layers = 0;

  bool causal = true;
  std::vector<Primitive> primitives;
  bool pattern_of_model = false;  // the scenario states none
  std::vector<Index> documents;   // lengths; empty: one document

  const ScheduleKind* schedule = nullptr;
  std::string layout;
  Index residue_period = 1;
  int groups = 1, members = 1, inner_ring = 1;
  Implementation implementation;
  Degrees degrees;
  Recompute recompute = Recompute::none;
  int microbatches = 1;
  bool fused_loss = false, blockwise_ffn = false;
  bool six_block_accounts = false;  // of memory: Ring Attention's
  bool fp8_matrices = false;        // of the layers

  Gpu gpu;
  Profile profile;
  std::string topology;
  std::vector<ClusterLink> links;
  Rank node_size = 0;  // GPUs that share a node
  Cluster cluster{GpuResources{}};
  Variation variation;
  FaultPlan fault_plan;

  /// Every query scores every key of its document (of the past, if causal).
  bool full_pattern() const;
  Rank context_ranks() const { return groups * members; }
  Rank ranks() const { return degrees.ranks(); }
  /// Throws std::invalid_argument if a layer has no pattern; load_scenario has checked that.
  Pattern pattern() const { return Pattern(primitives, layers); }
  Index longest_document() const;
  /// By pattern class: a gated skip reads values.
  std::vector<bool> gates() const;
  bool has_gates() const;
};

/// Reads and checks everything, so that what it returns can be simulated. Throws InputError.
Scenario load_scenario(const std::filesystem::path& file);
Scenario read_scenario(const Table& table);

/// Attention, or layers, on the context ranks. Of a whole step see step_scenario.hpp.
AttentionProgram build_program(const Scenario& scenario);
AttentionProgramInput attention_input(const Scenario& scenario);

const Layout& layout_of(const Scenario& scenario);
/// Who holds which tokens and heads of one sequence on one tensor rank.
Geometry geometry_of(const Scenario& scenario);

GpuPeaks peaks_of(const Scenario& scenario);

double bytes_per_element(std::string_view dtype);

}  // namespace orrery
