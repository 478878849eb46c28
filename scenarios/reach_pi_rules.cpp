// The readings of pi-Attention (arXiv 2511.10696). Its public text says "pi-stride skips" and leaves open which keys
// they are, in which layers they act and whether a layer skips AND looks around or does one of the two. The letters are
// those of docs/reach.md.
#include <fmt/format.h>

#include <array>
#include <stdexcept>

#include "scenarios/nearest.hpp"
#include "scenarios/reach_pattern.hpp"
#include "scenarios/reach_set.hpp"

namespace orrery {
namespace {

using Primitives = std::vector<ReachPrimitive>;
using Layers = LayerRule::Kind;

ReachPrimitive window(Index left) {
  return {.kind = ReachPrimitive::Kind::window, .left = left};
}

ReachPrimitive skip(Index period, LayerRule layers = {}, int stage = 1) {
  return {.kind = ReachPrimitive::Kind::stride, .period = period, .count = 1, .stage = stage, .layers = layers};
}

Primitives rule_c(PiParameters p) {
  ReachPrimitive all = skip(p.pi);
  all.count = 0;
  return {window(p.k), all};
}

Primitives rule_d(PiParameters p) {
  ReachPrimitive doubling = skip(p.pi);
  doubling.doubling = true;
  return {window(p.k), doubling};
}

}  // namespace

std::span<const PiRule> pi_rules() {
  static constexpr std::array rules = {
      PiRule{"I", "the window alone, which the paper calls RingAttention",
             [](PiParameters p) -> Primitives { return {window(p.k)}; }},
      PiRule{"A", "window OR one skip of pi, in every layer",
             [](PiParameters p) -> Primitives {
               return {window(p.k), skip(p.pi)};
             }},
      PiRule{"A2", "as A, with a window of k keys that counts the token itself",
             [](PiParameters p) -> Primitives {
               if (p.k < 1) {
                 throw std::invalid_argument(
                     fmt::format("k = {} is less than 1 (rule A2 counts the token itself), write 1 or more", p.k));
               }
               return {window(p.k - 1), skip(p.pi)};
             }},
      PiRule{"B", "skip AND window, one after the other, in every layer",
             [](PiParameters p) -> Primitives {
               return {window(p.k), skip(p.pi, {}, 2)};
             }},
      PiRule{"C", "window OR all multiples of pi, in every layer", rule_c},
      PiRule{"D", "window OR a skip of pi * 2^(l - 1) in layer l", rule_d},
      PiRule{"E1", "window, OR a skip in layers 1, 2, 4, 8, ...",
             [](PiParameters p) -> Primitives {
               return {window(p.k), skip(p.pi, {Layers::powers_of_two})};
             }},
      PiRule{"E2", "window, OR a skip in layers 2, 4, 8, ...",
             [](PiParameters p) -> Primitives {
               return {window(p.k), skip(p.pi, {Layers::powers_of_two_from_2})};
             }},
      PiRule{"E3", "window, AND a skip in layers 2, 4, 8, ...",
             [](PiParameters p) -> Primitives {
               return {window(p.k), skip(p.pi, {Layers::powers_of_two_from_2}, 2)};
             }},
      PiRule{"F", "window, OR a skip in ceil(log2 l) of any first l layers",
             [](PiParameters p) -> Primitives {
               return {window(p.k), skip(p.pi, {Layers::log2_steps})};
             }},
      PiRule{"G", "window, AND a skip in ceil(log2 l) of any first l layers",
             [](PiParameters p) -> Primitives {
               return {window(p.k), skip(p.pi, {Layers::log2_steps}, 2)};
             }},
      PiRule{"H", "window, OR a skip in every second layer",
             [](PiParameters p) -> Primitives {
               return {window(p.k), skip(p.pi, {Layers::every, {2}})};
             }},
  };
  return rules;
}

ReachPattern pi_pattern(std::string_view rule, PiParameters parameters, bool causal, bool ring) {
  if (parameters.k < 0) {
    throw std::invalid_argument(
        fmt::format("k = {} is negative (it counts earlier tokens), write 0 or more", parameters.k));
  }
  if (parameters.pi < 1) {
    throw std::invalid_argument(
        fmt::format("pi = {} is not positive (a skip must leave its token), write 1 or more", parameters.pi));
  }
  std::vector<std::string> names;
  for (const PiRule& row : pi_rules()) {
    names.emplace_back(row.name);
    if (row.name != rule) continue;
    ReachPattern pattern{causal, ring, row.primitives(parameters), parameters};
    for (ReachPrimitive& p : pattern.primitives) {
      if (!causal) p.right = p.left;
    }
    return pattern;
  }
  throw std::invalid_argument(
      fmt::format("rule {} does not exist (it is a reading of pi-Attention's skips), {}", rule, suggest(rule, names)));
}

std::optional<PiParameters> bound_of(const ReachPattern& pattern) {
  if (pattern.primitives.size() != 2) return std::nullopt;
  const ReachPrimitive& first = pattern.primitives[0];
  const ReachPrimitive& second = pattern.primitives[1];
  using Kind = ReachPrimitive::Kind;
  if (first.kind == Kind::stride && second.kind == Kind::window) return PiParameters{second.left, first.period};
  if (first.kind == Kind::window && second.kind == Kind::stride) return PiParameters{first.left, second.period};
  return std::nullopt;
}

Index pi_bound(PiParameters parameters, int layers) {
  const Index local = checked_multiply(parameters.k, layers, "the bound kL + pi*ceil(log2 L)");
  const Index skips = checked_multiply(parameters.pi, ceil_log2(layers), "the bound kL + pi*ceil(log2 L)");
  return checked_add(local, skips, "the bound kL + pi*ceil(log2 L)");
}

}  // namespace orrery
