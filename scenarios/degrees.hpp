// How a training or inference step is split over ranks, beyond the attention of one sequence: the degrees multiply to
// the number of ranks.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

namespace orrery {

struct Degrees {
  int data = 1;            // replicas that see other sequences
  int tensor = 1;          // ranks that share every matrix (Megatron, arXiv 1909.08053)
  int pipeline = 1;        // stages of consecutive layers
  int context = 1;         // ranks that share a sequence: groups x members of the attention schedule
  int virtual_stages = 1;  // pipeline: chunks of layers of one rank (interleaved 1F1B, arXiv 2104.04473)
  int zero = 0;            // what data x context ranks share: 1 optimizer state, 2 and gradients, 3 and parameters
  bool sequence_parallel = true;  // tensor: also split what lies between the matrices (arXiv 2205.05198)

  bool operator==(const Degrees&) const = default;
  constexpr int ranks() const { return data * tensor * pipeline * context; }
  /// Ranks with the same weights: those ZeRO spreads its state over (arXiv 1910.02054).
  constexpr int replicas() const { return data * context; }
};

/// What the backward pass computes again instead of keeping it.
///   none       keeps all that it needs
///   selective  the scores of an attention that is not fused (arXiv 2205.05198); a fused one never keeps them
///   blocks     attention and MLP of each layer apart: keeps the input of both (Ring Attention's code)
///   full       whole layers: keeps their input
enum class Recompute : std::uint8_t { none, selective, blocks, full };
inline constexpr int recompute_kinds = static_cast<int>(Recompute::full) + 1;
std::span<const std::string_view> recompute_names();

}  // namespace orrery
