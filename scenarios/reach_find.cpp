// The search is exact and short. Let a rule have windows of w earlier tokens in each of L layers and a skip of pi in S
// of them, instead of the window (OR) or besides it (AND). A path with s skips has L - s window hops if OR and L if
// AND:
//     the lags are U_{s = 0..S} [s*pi, s*pi + w*hops(s)].
// No hole is before interval s iff w*hops(s - 1) >= pi - 1, so the last token sees n tokens iff for some s in 0..S
//     s*pi + w*hops(s) >= n - 1, and (s = 0 or pi <= w*hops(s - 1) + 1).
// The pairs of all layers are L * sum_i (min(i, w) + 1) + S * (n - pi)+; a skip inside an OR window (pi <= w) costs
// nothing and reaches nothing more. So for a given w a longer pi is never dearer, and only the longest pi of every s
// counts. Lags grow with w, so the least w that covers with some pi is found by halving; the windows cost more with
// every w, so the search ends at the first w whose windows cost as much as the best pair so far.
#include "scenarios/reach_find.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <stdexcept>

#include "scenarios/reach_set.hpp"
#include "scenarios/token_set.hpp"

namespace orrery {
namespace {

/// Sum over n queries of the at most w earlier keys and the own one.
Index window_pairs(Index w, Index n) {
  const Index growing = std::min(w, n);  // queries that see less than w earlier tokens
  return n * (growing + 1) - growing * (growing + 1) / 2;
}

struct Search {
  Index own_key;  // 1 if k counts the token itself: w = k - 1
  LayerRule skip_layers;
  bool in_sequence;  // AND
  Index tokens;
  int layers;

  int skips(int first_layers) const {
    int sum = 0;
    for (int layer = 1; layer <= first_layers; ++layer) sum += skip_layers.active(layer, layers) ? 1 : 0;
    return sum;
  }

  Index hops(Index s, int of) const { return in_sequence ? of : of - s; }

  bool covers(Index w, Index pi, int first_layers, Index most_skips) const {
    for (Index s = 0; s <= most_skips; ++s) {
      if (s > 0 && pi > w * hops(s - 1, first_layers) + 1) return false;
      if (s * pi + w * hops(s, first_layers) >= tokens - 1) return true;
    }
    return false;
  }

  int layers_needed(Index w, Index pi) const {
    int low = 1, high = layers;  // high covers
    while (low < high) {
      const int middle = low + (high - low) / 2;
      if (covers(w, pi, middle, skips(middle))) {
        high = middle;
      } else {
        low = middle + 1;
      }
    }
    return low;
  }

  /// The cheapest pi that covers with this w.
  std::optional<Index> cheapest_skip(Index w, Index most_skips) const {
    if (w * layers >= tokens - 1) {
      const bool skips_are_free = most_skips == 0 || (!in_sequence && w > 0);
      return skips_are_free ? 1 : tokens;  // a skip of all tokens finds no key
    }
    std::optional<Index> longest;
    for (Index s = 1; s <= most_skips; ++s) {
      const Index pi = std::min(w * hops(s - 1, layers) + 1, tokens);
      if (s * pi + w * hops(s, layers) >= tokens - 1) longest = std::max(longest.value_or(0), pi);
    }
    return longest;
  }

  Index pairs(Index w, Index pi, Index most_skips) const {
    constexpr const char* what = "the number of query-key pairs";
    const Index skip = in_sequence || pi > w ? std::max<Index>(0, tokens - pi) : 0;
    return checked_add(checked_multiply(window_pairs(w, tokens), layers, what),
                       checked_multiply(skip, most_skips, what), what);
  }

  Index least_window(Index most_skips) const {
    Index low = 0, high = tokens - 1;  // high covers in one layer
    while (low < high) {
      const Index middle = low + (high - low) / 2;
      if (cheapest_skip(middle, most_skips)) {
        high = middle;
      } else {
        low = middle + 1;
      }
    }
    return low;
  }
};

Search make_search(std::string_view rule, Index tokens, int layers) {
  constexpr Index most_tokens = Index{1} << 31;  // the pairs of a layer stay below 2^63
  if (tokens < 1 || tokens > most_tokens) {
    throw std::invalid_argument(
        fmt::format("cover = {} is not in 1 to {} (tokens to cover), write one of these", tokens, most_tokens));
  }
  if (layers < 1 || layers > most_reach_layers) {
    throw std::invalid_argument(
        fmt::format("layers = {} is not in 1 to {} (attention layers), write one of these", layers, most_reach_layers));
  }
  constexpr Index k = 2;
  const ReachPattern pattern = pi_pattern(rule, {k, k + 1}, true, false);
  const bool one_skip =
      pattern.primitives.size() == 2 && pattern.primitives[1].count == 1 && !pattern.primitives[1].doubling;
  if (!one_skip) {
    throw std::invalid_argument(
        fmt::format("--find does not search rule {} (its layers are no window and one skip of pi), use A, A2, B, E1, "
                    "E2, E3, F, G or H",
                    rule));
  }
  const ReachPrimitive &window = pattern.primitives[0], &skip = pattern.primitives[1];
  return {k - window.left, skip.layers, skip.stage > window.stage, tokens, layers};
}

}  // namespace

CheapestPair cheapest_pair(std::string_view rule, Index tokens, int layers) {
  const Search search = make_search(rule, tokens, layers);
  const Index most_skips = search.skips(layers);
  std::optional<CheapestPair> best;
  for (Index w = search.least_window(most_skips); w < tokens; ++w) {
    if (best && search.pairs(w, tokens, 0) >= best->pairs) break;
    const Index pi = *search.cheapest_skip(w, most_skips);
    const Index pairs = search.pairs(w, pi, most_skips);
    if (!best || pairs < best->pairs) best = CheapestPair{{w + search.own_key, pi}, pairs};
  }
  best->layers_needed = search.layers_needed(best->parameters.k - search.own_key, best->parameters.pi);
  const Index alone = ceil_div(tokens - 1, layers);
  best->k_no_skip = alone + search.own_key;
  best->pairs_no_skip = search.pairs(alone, tokens, 0);
  return *best;
}

}  // namespace orrery
