// A pattern: which keys a query scores, layer by layer, as a union of primitives.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "scenarios/mask.hpp"

namespace orrery {

/// One primitive of a pattern and the layers it is active in. `kind` decides which of the numbers count:
///   full     every key (of the past, if causal)
///   window   keys at lags -right..left (0 is the token itself), e.g. left = k, right = 0: k earlier tokens and itself
///   stride   keys at lags period, 2*period, ..., count*period (count 0: all of them); both sides unless causal
///   sink     the first `first` tokens of the document
///   gated_skip  pi-Attention's skip with a softmax of its own: over one key it is 1, so a gate adds the value at lag
///            `period` and its key is never read. Causal.
struct Primitive {
  enum class Kind { full, window, stride, sink, gated_skip };
  Kind kind = Kind::full;
  Index left = 0, right = 0;
  Index period = 1, count = 0;
  Index first = 0;
  std::vector<int> layers{};  // 1-based; empty: every layer
};

/// The kinds by name, with the keys a file states for each.
struct PrimitiveKind {
  std::string_view name;
  std::string_view description;
};
std::span<const PrimitiveKind> primitive_kinds();

/// Throws std::invalid_argument ("window.left is negative ...") if a number of `primitive` makes no sense.
void check(const Primitive& primitive, int layers);

class Pattern {
 public:
  /// Throws std::invalid_argument if a layer has no primitive at all.
  Pattern(std::vector<Primitive> primitives, int layers);

  /// Layers with the same active primitives share a class; classes are numbered in order of first use.
  int classes() const { return static_cast<int>(active_.size()); }
  int class_of_layer(int layer) const { return class_of_layer_[static_cast<std::size_t>(layer)]; }  // layer from 0

  /// Whose keys a query scores.
  Mask mask(int pattern_class, Index tokens, bool causal, const std::vector<Index>& documents) const;
  /// Whose values it reads: gated skips besides.
  Mask value_mask(int pattern_class, Index tokens, bool causal, const std::vector<Index>& documents) const;
  /// Every window sees `rows` tokens more of the past.
  Pattern wider(Index rows) const;
  bool has_gated_skips() const;
  /// A gated skip reads a value in a document of so many tokens.
  bool is_gated(int pattern_class, Index document) const;

  /// A token sees all keys (of the past, if causal).
  bool is_full(int pattern_class) const;

  /// Of a causal sequence: of how many of the last tokens, and of the first ones, the last token and later ones read
  /// keys and values, and of how many of the last ones values.
  struct Cached {
    Index last = 0, first = 0, values = 0;
  };
  Cached cached(int pattern_class, Index tokens) const;

  /// "window(left 1024) + stride(16384, count 1)"
  std::string describe(int pattern_class) const;
  int layers_of(int pattern_class) const;
  /// All classes, with their numbers of layers if there are several.
  std::string describe() const;

 private:
  Mask mask_of(int pattern_class, Index tokens, bool causal, const std::vector<Index>& documents, bool gated) const;

  std::vector<Primitive> primitives_;
  std::vector<std::vector<std::size_t>> active_;  // by class: indices of primitives
  std::vector<int> class_of_layer_;
};

}  // namespace orrery
