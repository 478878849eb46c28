// The search is exact and short. The cost of rule A is
//     pairs(k, pi) = sum_i (min(i, k) + 1) + [pi > k] * (n - pi)+,
// so for a given k a skip is the cheaper the longer it is. Which pi cover follows from the closed form: with
// t = ceil((pi - 1)/k) - 1 fixed, pi runs over tk + 2, ..., (t + 1)k + 1, and coverage needs (L - t)*pi + k*t >= n - 1,
// which holds for the longest pi of that range or for none. So for every k only the longest pi of every t <= L counts.
// A larger k pays if it allows a skip that is longer by more than the window grows; since the window alone costs more
// with every k, the search ends at the first k whose window costs as much as the best pair so far.
#include "scenarios/reach_find.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <stdexcept>

#include "scenarios/reach_closed_form.hpp"
#include "scenarios/token_set.hpp"

namespace orrery {
namespace {

constexpr Index most_tokens = Index{1} << 31;  // pair counts stay below 2^63

Index window_pairs(Index k, Index n) {
  const Index growing = std::min(k, n);  // queries that see less than k earlier tokens
  return n * (growing + 1) - growing * (growing + 1) / 2;
}

bool covers(PiParameters p, Index tokens, int layers) {
  return rule_a_contiguous(p, layers) >= tokens - 1;
}

/// The longest pi > k that covers, for this k; none if k is too small.
std::optional<Index> longest_skip(Index k, Index tokens, int layers) {
  for (Index t = layers; t >= 0; --t) {
    const Index pi = std::min((t + 1) * k + 1, tokens);
    if (pi > k && covers({k, pi}, tokens, layers)) return pi;
  }
  return std::nullopt;
}

/// A k with which some pi covers: the coverage of the best pi grows with k.
bool can_cover(Index k, Index tokens, int layers) {
  return covers({k, 1}, tokens, layers) || longest_skip(k, tokens, layers).has_value();
}

Index least_window(Index tokens, int layers) {
  Index low = 0, high = tokens - 1;  // high covers in one layer
  while (low < high) {
    const Index middle = low + (high - low) / 2;
    if (can_cover(middle, tokens, layers)) {
      high = middle;
    } else {
      low = middle + 1;
    }
  }
  return low;
}

}  // namespace

Index rule_a_pairs(PiParameters p, Index tokens) {
  const Index skips = p.pi > p.k ? std::max<Index>(0, tokens - p.pi) : 0;
  return window_pairs(p.k, tokens) + skips;
}

CheapestPair cheapest_pair(Index tokens, int layers) {
  if (tokens < 1 || tokens > most_tokens) {
    throw std::invalid_argument(
        fmt::format("cover = {} is not in 1 to {} (tokens to cover), write one of these", tokens, most_tokens));
  }
  if (layers < 1) {
    throw std::invalid_argument(
        fmt::format("layers = {} is less than 1 (nothing can be covered), write 1 or more", layers));
  }
  std::optional<CheapestPair> best;
  const auto consider = [&](PiParameters p) {
    const Index pairs = rule_a_pairs(p, tokens);
    if (!best || pairs < best->pairs) best = CheapestPair{p, pairs, 0, 1};
  };
  for (Index k = least_window(tokens, layers); k < tokens; ++k) {
    if (best && window_pairs(k, tokens) >= best->pairs) break;
    if (covers({k, 1}, tokens, layers)) consider({k, 1});
    if (const auto pi = longest_skip(k, tokens, layers)) consider({k, *pi});
  }
  if (!best) consider({0, 1});  // one token
  best->pairs_no_skip = window_pairs(ceil_div(tokens - 1, layers), tokens);
  best->layers_needed = static_cast<int>(*rule_a_layers_to_cover(best->parameters, tokens));
  return *best;
}

}  // namespace orrery
