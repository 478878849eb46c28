#include "scenarios/reach_closed_form.hpp"

#include <algorithm>

#include "scenarios/reach_set.hpp"

namespace orrery {
namespace {

/// t of the derivation; k > 0 and pi > k.
Index holes_until(PiParameters p) {
  return ceil_div(p.pi - 1, p.k) - 1;
}

}  // namespace

Index rule_a_reach(PiParameters p, Index layers) {
  return checked_multiply(layers, std::max(p.k, p.pi), "the reach of rule A");
}

Index rule_a_count(PiParameters p, Index layers) {
  constexpr const char* what = "the count of rule A";
  if (p.pi <= p.k) return checked_multiply(p.k, layers, what);
  if (p.k == 0) return layers;
  const Index t = holes_until(p);
  const Index m = std::min(layers, t);
  const Index full = checked_multiply(p.pi, std::max<Index>(0, layers - t), what);
  const Index pairs = m % 2 == 0 ? checked_multiply(m / 2, m + 1, what) : checked_multiply((m + 1) / 2, m, what);
  return checked_add(checked_add(full, checked_multiply(p.k, pairs, what), what), m, what);
}

Index rule_a_contiguous(PiParameters p, Index layers) {
  constexpr const char* what = "the contiguous reach of rule A";
  if (p.pi <= p.k) return checked_multiply(p.k, layers, what);
  if (p.k == 0) return p.pi == 1 ? layers : 0;
  const Index t = holes_until(p);
  if (layers < t) return checked_multiply(p.k, layers, what);
  return checked_add(checked_multiply(layers - t, p.pi, what), checked_multiply(p.k, t, what), what);
}

std::optional<Index> rule_a_layers_to_cover(PiParameters p, Index tokens) {
  const Index wanted = tokens - 1;
  const Index step = std::max(p.k, p.pi == 1 ? Index{1} : p.k);
  if (wanted == 0) return 1;
  if (step == 0) return std::nullopt;
  const Index by_window = ceil_div(wanted, step);
  if (p.pi <= p.k || p.k == 0) return by_window;
  const Index t = holes_until(p);
  if (by_window <= t) return by_window;
  const Index by_skips = t + ceil_div(wanted - p.k * t, p.pi);  // k*t < wanted
  return std::max<Index>(1, by_skips);
}

bool rule_a_bound_holds(PiParameters p, int layers) {
  return rule_a_reach(p, layers) <= pi_bound(p, layers);
}

}  // namespace orrery
