// What is asked of a search for a cluster: a model and a step, and the GPUs to choose from.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "cost_models/profile.hpp"
#include "scenarios/box.hpp"
#include "scenarios/hardware.hpp"
#include "scenarios/implementation.hpp"
#include "scenarios/memory.hpp"
#include "scenarios/model.hpp"
#include "scenarios/pattern.hpp"

namespace orrery {

/// A GPU with what it is wired by: nodes of so many GPUs on a switch of their fastest link, nodes on a rail-optimised
/// network of full bisection.
struct GpuOption {
  Gpu gpu;
  Profile profile;
  LinkType link;
  std::optional<NodeShape> node;         // as a box says; otherwise a switch
  std::string name;                      // as it was asked for
  std::optional<double> price_per_hour;  // of one GPU

  /// That no kernel exceeds, whatever its shape; set by SizeProblem::prepare.
  struct Rates {
    FlopsPerSecond dense, attention_forward, attention_backward;
    BytesPerSecond weights;  // read by matrix products
  };
  Rates fastest{};
};

/// Which profile a GPU gets.
struct ProfileChoice {
  std::string name;      // empty: its own if all kinds of kernels were measured, or else that of the GPU it is like
  bool if_none = false;  // only if it has none of its own
};

/// By name or path. Throws std::runtime_error if it has no peak for `dtype`, or is wired to its neighbours instead of a
/// switch.
GpuOption gpu_option(const std::string& name, const std::string& dtype, const ProfileChoice& profile);

/// What its times rest on, in a word: "measured", "as h100_sxm", "published", "peak".
std::string basis_of(const GpuOption& option);

struct SizeProblem {
  ModelShape model;
  Index tokens = 0;
  Index batch = 1;  // sequences of a step
  StepPass pass = StepPass::training;
  std::string dtype = "bf16";
  bool fp8_matrices = false;  // of the layers, beside dtype
  bool causal = true;
  std::vector<Primitive> primitives;
  std::vector<GpuOption> gpus;
  LinkType network;
  std::vector<int> node_sizes = {8};  // to choose from, ascending
  /// Of a causal ring's tokens, to choose from; what no order balances is laid out contiguously.
  std::vector<std::string> layouts = {"zigzag", "contiguous"};
  int max_gpus = 4096;
  Implementation implementation;

  /// Layers whose tokens see the same.
  struct LayerKind {
    double share = 1;        // of the layers
    bool full = true;        // tokens see everything (before them, if causal)
    double pairs = 0;        // unmasked, of a sequence
    Pattern::Cached cached;  // of the last tokens, what later ones still read
    TokenSet keys_of_last;   // that a decode step reads
  };
  /// Set by prepare from the primitives, as the rates of the GPUs are: of kernels alone at the power limit, or of
  /// bursts, than which no step is faster.
  std::vector<LayerKind> layer_kinds;
  void prepare(Regime regime = Regime::sustained);

  bool all_full() const;
  bool none_full() const;
};

/// Of a step, whatever the candidate.
Flops useful_flops(const SizeProblem& problem);
/// What their MFU is measured by: the peak of the type, or of both types of a step that multiplies in fp8 too.
FlopsPerSecond peak_of_types(const SizeProblem& problem, const Gpu& gpu);

}  // namespace orrery
