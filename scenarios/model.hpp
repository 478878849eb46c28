// The shape of a transformer decoder: the files in scenarios/models/ and Hugging Face's config.json.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "scenarios/pattern.hpp"

namespace orrery {

/// A dense decoder with multi-head or grouped-query attention.
struct ModelShape {
  std::string name;  // the file's
  std::string description;
  std::string source;
  std::int64_t layers = 0;
  std::int64_t hidden = 0;
  std::int64_t heads = 0;     // query heads
  std::int64_t kv_heads = 0;  // divides heads
  std::int64_t head_dim = 0;  // not always hidden / heads
  std::int64_t ffn_hidden = 0;
  bool gated_ffn = false;  // SwiGLU and the like: three matrices instead of two
  std::int64_t vocabulary = 0;
  bool tied_embeddings = false;        // the output projection is the input embedding
  std::int64_t learned_positions = 0;  // rows of a learned position embedding; 0 with rotary ones
  /// The pattern of its layers, if the file has one (sliding windows): what a scenario without a pattern gets.
  std::vector<Primitive> attention{};
  std::optional<double> published_parameters;
  /// What the file leaves out and the class of such models has a documented value for.
  struct Assumed {
    std::string name, value, source;
  };
  std::vector<Assumed> assumed{};
  /// These, and its pattern: whether it is the one that is used.
  std::vector<Assumed> assumptions(bool uses_own_pattern) const;

  double attention_parameters() const;  // of one layer: the projections of q, k, v and the output
  double ffn_parameters() const;        // of one layer
  double embedding_parameters() const;  // input, output and positions
  /// All of it, with the two norms of a layer and the last one; biases are left out (below 0.1 %).
  double parameters() const;
};

/// The largest shapes a model file may state, a hundred times what has been published. Everything derived from them
/// fits its type: heads and head_dim an int, products with 2^31 tokens a 64-bit integer.
namespace model_limits {
inline constexpr std::int64_t layers = 10'000;
inline constexpr std::int64_t heads = 16'384;
inline constexpr std::int64_t head_dim = 65'536;
inline constexpr std::int64_t width = std::int64_t{1} << 30;  // hidden sizes, vocabulary, positions
}  // namespace model_limits

/// By path (.toml, or .json for a Hugging Face config), or by the name of a file in scenarios/models/ (see resolve).
/// Throws InputError, among others if kv_heads does not divide heads, or if the model is not of this kind (mixture of
/// experts, latent attention, encoder-decoder).
ModelShape load_model(std::string_view name, const std::filesystem::path& mentioned_in = {});

}  // namespace orrery
