// Closed forms of rule A: a window of k earlier tokens or one skip of pi, in every layer.
//
// Derivation. A path of L hops that takes s skips and L - s window hops moves by s*pi + t with any 0 <= t <= k(L - s),
// since each window hop moves by 0..k. So the lags reached after L layers are
//     U_{s = 0..L} [s*pi, s*pi + k(L - s)].
//
// reach: the right ends s*pi + k(L - s) are linear in s, so the largest is at s = 0 or s = L: L * max(k, pi).
//
// For pi <= k all intervals lie in the first one: reach = count = contiguous = kL. Let pi > k from here on.
//
// count: interval s is cut by interval s + 1, which begins at (s + 1)*pi, and by no other, so it adds
// min(pi, k(L - s) + 1) lags. With c = ceil((pi - 1) / k), the intervals with j = L - s >= c are full (pi lags each);
// the others add k*j + 1. With t = c - 1 and m = min(L, t) the sum, without lag 0, is
//     pi * max(0, L - t) + k*m(m + 1)/2 + (m + 1) - 1.
//
// contiguous: intervals s - 1 and s leave no hole iff (s - 1)*pi + k(L - s + 1) >= s*pi - 1, iff k(L - s + 1) >= pi -
// 1, iff s <= L - t. The first hole is therefore behind interval max(0, L - t): contiguous = kL if L < t, else (L -
// t)*pi + k*t.
//
// layers to cover n tokens: the least L with contiguous >= n - 1; both branches are solved for L.
//
// k = 0 has no window: the lags are the multiples of pi up to L*pi.
#pragma once

#include <optional>

#include "scenarios/reach_pattern.hpp"

namespace orrery {

/// Lags on a sequence without begin. They throw std::invalid_argument past 2^63.
Index rule_a_reach(PiParameters parameters, Index layers);
Index rule_a_count(PiParameters parameters, Index layers);
Index rule_a_contiguous(PiParameters parameters, Index layers);

/// Layers until the last of n tokens sees all; empty if never (k = 0, pi > 1).
std::optional<Index> rule_a_layers_to_cover(PiParameters parameters, Index tokens);

/// Whether the bound kL + pi*ceil(log2 L) holds for the reach: iff pi(L - ceil(log2 L)) <= kL or pi <= k.
bool rule_a_bound_holds(PiParameters parameters, int layers);

}  // namespace orrery
