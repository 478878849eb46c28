// Random patterns of every kind. The random numbers are the generator's own, so that the patterns are the same
// everywhere.
#pragma once

#include <algorithm>
#include <random>
#include <vector>

#include "scenarios/reach_problem.hpp"

namespace orrery {

class RandomPatterns {
 public:
  using Kind = ReachPrimitive::Kind;
  explicit RandomPatterns(std::uint32_t seed) : random_(seed) {}

  Index below(Index limit) { return static_cast<Index>(random_() % static_cast<std::uint32_t>(limit)); }

  LayerRule layers(int count) {
    using K = LayerRule::Kind;
    constexpr K kinds[] = {
        K::all,         K::all,        K::list,      K::every,     K::powers_of_two, K::powers_of_two_from_2,
        K::deeper_half, K::first_log2, K::last_log2, K::log2_steps};
    LayerRule rule{kinds[below(10)], {}};
    if (rule.kind == K::every) rule.list = {static_cast<int>(1 + below(3))};
    if (rule.kind == K::list) rule.list = {static_cast<int>(1 + below(count)), static_cast<int>(1 + below(count))};
    return rule;
  }

  ReachPrimitive primitive(Index tokens, int count, bool translation_invariant) {
    constexpr Kind kinds[] = {Kind::window, Kind::stride, Kind::stride, Kind::sink,
                              Kind::block,  Kind::select, Kind::bucket, Kind::full};
    ReachPrimitive p;
    p.kind = kinds[below(translation_invariant ? 3 : 8)];
    if (p.kind == Kind::full && below(4) != 0) p.kind = Kind::window;
    p.left = below(6), p.right = below(4);
    p.period = 1 + below(tokens), p.count = below(5);
    p.doubling = below(6) == 0;
    p.first = below(4);
    p.size = 1 + below(12), p.before = below(3);
    p.query_block = 1 + below(12);
    p.stage = static_cast<int>(1 + below(3));
    p.layers = layers(count);
    return p;
  }

  ReachPattern pattern(Index tokens, int count) {
    ReachPattern pattern;
    const Index side = below(3);
    pattern.causal = side == 0;
    pattern.ring = side == 2;
    const bool translation_invariant = pattern.ring || below(2) == 0;
    ReachPrimitive window;
    window.kind = Kind::window;
    window.left = below(4), window.right = below(3);
    pattern.primitives.push_back(window);
    for (Index more = below(4); more > 0; --more) {
      pattern.primitives.push_back(primitive(tokens, count, translation_invariant));
    }
    return pattern;
  }

  std::vector<Index> documents(Index tokens) {
    std::vector<Index> lengths;
    if (below(3) != 0) return lengths;
    while (tokens > 0) {
      lengths.push_back(std::min(tokens, 1 + below(tokens)));
      tokens -= lengths.back();
    }
    return lengths;
  }

 private:
  std::mt19937 random_;
};

}  // namespace orrery
