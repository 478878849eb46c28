// How much memory a rank needs at the peak of a step, part by part, in closed form. Cheap enough to ask for every
// candidate of a search.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

#include "scenarios/degrees.hpp"
#include "scenarios/model.hpp"
#include "sim/units.hpp"

namespace orrery {

/// Bytes per parameter of what training keeps.
struct TrainingState {
  double parameter = 2, gradient = 2, optimizer = 12;
};
/// Adam with 16-bit weights and gradients: an fp32 copy and two fp32 moments (ZeRO, arXiv 1910.02054, section 3.1);
/// with fp32 weights two moments.
constexpr TrainingState adam_state(double element_bytes) {
  return {element_bytes, element_bytes, element_bytes < 4 ? 12.0 : 8.0};
}

enum class StepPass : std::uint8_t { training, prefill, decode };

/// Blocks of tokens x KV heads x head_dim, two tensors each, that the schedule holds beyond the rank's own K and V, in
/// units of the rank's own block. `gradients`: of travelling dK and dV. `kept`: of keys that stay in each layer from
/// its forward pass to its backward pass, as its activations do.
struct VisitingBlocks {
  double keys = 0;
  double gradients = 0;
  double kept = 0;
};

struct MemoryInput {
  const ModelShape* model = nullptr;
  int layers = 0;        // simulated, of the model
  double tokens = 0;     // of a sequence
  double sequences = 1;  // of a microbatch, on one data-parallel replica
  int microbatches = 1;  // of a step
  StepPass pass = StepPass::training;
  double element_bytes = 2;
  TrainingState state;
  Degrees degrees;
  Recompute recompute = Recompute::none;
  VisitingBlocks visiting;
  /// Of a rank's tokens, those whose keys and values the cache keeps: that later tokens still read. The mean over
  /// layers.
  double cached_share = 1;
  bool fused_attention = true;  // never writes the scores
  bool dropout = false;         // keeps the masks
  bool blockwise_ffn = false;   // the MLP runs in chunks of tokens (Blockwise Parallel Transformer, arXiv 2305.19370)
  bool fused_loss = false;      // logits in chunks of tokens
  /// What backward holds of a layer in work besides what it recomputes. The accounts of Ring Attention (section 3)
  /// leave it out.
  bool gradients_of_layer = true;
};

enum class MemoryPart : std::uint8_t {
  parameters,
  gradients,
  optimizer,
  gathered,            // ZeRO-3: parameters of layers in work and the next; ZeRO-2 and 3: gradients of one layer
  activations,         // kept for backward, of all microbatches in flight
  layer_in_work,       // recomputed activations, and the gradients beside them
  visiting_kv,         // blocks of other ranks: the buffers that hold one while the next arrives
  visiting_gradients,  // dK and dV of such blocks
  kv_cache,            // prefill and decode
  logits,
  workspace,  // buffers of collectives
};
inline constexpr int memory_parts = static_cast<int>(MemoryPart::workspace) + 1;
std::string_view name_of(MemoryPart part);

struct Memory {
  std::array<double, memory_parts> bytes{};
  int stage = 0;  // of the pipeline, that needs most

  double& operator[](MemoryPart part) { return bytes[static_cast<std::size_t>(part)]; }
  double operator[](MemoryPart part) const { return bytes[static_cast<std::size_t>(part)]; }
  Bytes peak() const;
  bool fits(Bytes capacity) const;
};

/// Share of a GPU's memory that is left to fragments, the context and code. Assumed: allocators that reuse blocks of
/// equal size lose a few percent; of table 3 of Ring Attention 0.6 to 4.5 % leave the prediction the same.
inline constexpr double memory_allowance = 0.03;

/// Bytes that one layer keeps for backward, of the tokens of one rank; `again`: what of it backward computes again.
double kept_per_layer(const MemoryInput& input, Recompute recompute);

/// What is under way on a rank of a stage.
struct MemoryMoment {
  enum class Kind : std::uint8_t { between, forward, recompute, backward };
  Kind kind = Kind::between;  // the layer in work, or what comes before and after the layers
  double kept_layers = 0;     // whose activations wait for their backward pass, of all microbatches
  int gathered_layers = 0;    // ZeRO-3
  bool logits = false;
};

/// Of a rank of one stage, at any moment of its step. What a forward pass of training makes beyond what it keeps is
/// left out: the backward pass of the layer needs more.
class StageMemory {
 public:
  StageMemory(const MemoryInput& input, int stage);
  Memory at(const MemoryMoment& moment) const;
  /// Of the two moments that can be the peak: with all layers kept that ever are, the first layer of a backward pass,
  /// or the head.
  Memory most() const;

 private:
  Memory always_;  // parts that do not change
  double gathered_layer_ = 0, layer_gradients_ = 0, kept_layer_ = 0, in_work_ = 0;
  double visiting_keys_ = 0, visiting_gradients_ = 0, logits_ = 0;
  double stage_layers_ = 0, most_kept_ = 0;
  MemoryMoment::Kind deepest_ = MemoryMoment::Kind::backward;
};

/// Of the stage that needs most: the first, which has most microbatches in flight, or the last, which has the logits.
Memory memory_of(const MemoryInput& input);

/// Chunks of layers that a stage holds activations of at most, counted in whole chunks of one microbatch: 1F1B
/// min(m, p - stage); interleaved (arXiv 2104.04473) 2 (p - stage - 1) + (v - 1) p + 1, at most m v.
int chunks_in_flight(const Degrees& degrees, int stage, int microbatches);

}  // namespace orrery
