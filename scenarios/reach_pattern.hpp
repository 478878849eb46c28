// What a reach is computed for: primitives that differ by layer, act together (union) or one after another (stages),
// and may depend on data. It says more than Pattern and includes all of it.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "scenarios/mask.hpp"
#include "scenarios/pattern.hpp"

namespace orrery {

/// A report keeps kilobytes for each layer.
inline constexpr int most_reach_layers = 1 << 16;

/// In which layers (counted from 1) of L something is active.
struct LayerRule {
  enum class Kind {
    all,
    list,                  // those of `list`
    every,                 // m, 2m, 3m, ... with m = list[0]
    powers_of_two,         // 1, 2, 4, 8, ...
    powers_of_two_from_2,  // 2, 4, 8, ...
    log2_steps,            // 2, 3, 5, 9, 17, ...: after any l layers it was active in exactly ceil(log2 l) of them
    deeper_half,           // the last ceil(L / 2)
    first_log2,            // the first ceil(log2 L)
    last_log2,             // the last ceil(log2 L)
  };
  Kind kind = Kind::all;
  std::vector<int> list{};

  bool active(int layer, int layers) const;
};

/// The names of the rules that need no number: "all", "powers_of_two", ...
struct NamedLayerRule {
  std::string_view name;
  LayerRule::Kind kind;
};
std::span<const NamedLayerRule> named_layer_rules();

/// One primitive. Which numbers count follows from `kind`; lag = query position - key position.
struct ReachPrimitive {
  enum class Kind {
    full,     // every key (of the past, if causal)
    window,   // lags -right, ..., left
    stride,   // lags period, 2 * period, ..., count * period (count 0: all); both sides unless causal
    sink,     // the first `first` tokens of the document
    block,    // the query's own aligned block of `size` tokens and `before` blocks before it (after it, if not causal)
    select,   // every query block picks `pick` of the other blocks, in each head; data decides
    bucket,   // every token falls into one of `buckets` buckets, in each head, and sees its bucket; data decides
    summary,  // one key for each earlier chunk of `size` tokens
    state,    // a recurrent state: all of the past in one key
  };
  Kind kind = Kind::full;
  Index left = 0, right = 0;
  Index period = 1, count = 0;
  bool doubling = false;     // the period is period * 2^(l - 1) in layer l
  bool value_alone = false;  // a gate adds the value: of what it reaches no key is scored or sent
  Index first = 0;
  Index size = 1, before = 0;
  Index query_block = 1, pick = 0;
  double density = 0;  // pick this share of the free blocks instead of `pick` of them
  Index buckets = 1;
  int heads = 1;  // of which each chooses for itself
  int stage = 1;  // stages of a layer run one after the other: the second sees what the first has seen
  LayerRule layers{};

  bool depends_on_data() const { return kind == Kind::select || kind == Kind::bucket; }
  bool coarse() const { return kind == Kind::summary || kind == Kind::state; }
};

/// k and pi of the bound k * L + pi * ceil(log2 L) of arXiv 2511.10696, Proposition 1.
struct PiParameters {
  Index k = 0;
  Index pi = 1;
};

struct ReachPattern {
  bool causal = true;
  bool ring = false;  // positions wrap around (not causal)
  std::vector<ReachPrimitive> primitives;
  std::optional<PiParameters> bound;

  bool depends_on_data() const;
  bool coarse() const;
  /// Tokens that one key stands for, at most: 1, a chunk size, or 0 for a state.
  Index resolution() const;
  /// "window(left 4) + stride(16, count 1) in layers powers_of_two"
  std::string describe() const;
};

/// Throws std::invalid_argument if a number makes no sense: "problem (why), suggestion".
void check(const ReachPrimitive& primitive);
void check(const ReachPattern& pattern, int layers);

ReachPrimitive to_reach(const Primitive& primitive);

/// A reading of pi-Attention's skips. The paper leaves open which it means.
struct PiRule {
  std::string_view name;
  std::string_view description;
  std::vector<ReachPrimitive> (*primitives)(PiParameters);
};
std::span<const PiRule> pi_rules();

/// Throws std::invalid_argument for k < 0, pi < 1 or an unknown rule.
ReachPattern pi_pattern(std::string_view rule, PiParameters parameters, bool causal, bool ring);

/// k and pi of a pattern that is a window and one stride, as pi-Attention's; empty for others.
std::optional<PiParameters> bound_of(const ReachPattern& pattern);

/// kL + pi * ceil(log2 L). Throws std::invalid_argument past 2^63.
Index pi_bound(PiParameters parameters, int layers);

}  // namespace orrery
