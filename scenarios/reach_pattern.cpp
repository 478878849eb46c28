#include "scenarios/reach_pattern.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <stdexcept>

#include "scenarios/nearest.hpp"
#include "scenarios/reach_set.hpp"
#include "sim/contains.hpp"

namespace orrery {
namespace {

using Kind = ReachPrimitive::Kind;

bool is_power_of_two(int value) {
  return (value & (value - 1)) == 0;
}

void require(bool holds, const std::string& message) {
  if (!holds) throw std::invalid_argument(message);
}

std::string describe_layers(const LayerRule& rule) {
  switch (rule.kind) {
    case LayerRule::Kind::list:
      return fmt::format(" in layers {}", fmt::join(rule.list, ", "));
    case LayerRule::Kind::every:
      return fmt::format(" in every {}th layer", rule.list.front());
    default:
      for (const NamedLayerRule& row : named_layer_rules()) {
        if (row.kind == rule.kind && rule.kind != LayerRule::Kind::all) return fmt::format(" in layers {}", row.name);
      }
      return "";
  }
}

std::string describe_one(const ReachPrimitive& p) {
  switch (p.kind) {
    case Kind::full:
      return "full";
    case Kind::window:
      return p.right == 0 ? fmt::format("window(left {})", p.left)
                          : fmt::format("window(left {}, right {})", p.left, p.right);
    case Kind::stride:
      if (p.value_alone) return fmt::format("gated_skip({})", p.period);
      return fmt::format("stride({}{}, {})", p.period, p.doubling ? " doubling" : "",
                         p.count == 0 ? "all" : fmt::format("count {}", p.count));
    case Kind::sink:
      return fmt::format("sink({})", p.first);
    case Kind::block:
      return fmt::format("block({}, before {})", p.size, p.before);
    case Kind::select:
      return p.density > 0 ? fmt::format("select(share {} of blocks of {}, {} heads)", p.density, p.size, p.heads)
                           : fmt::format("select({} blocks of {}, {} heads)", p.pick, p.size, p.heads);
    case Kind::bucket:
      return fmt::format("bucket({} buckets, {} heads)", p.buckets, p.heads);
    case Kind::summary:
      return fmt::format("summary({})", p.size);
    case Kind::state:
      return "state";
  }
  return {};
}

}  // namespace

bool LayerRule::active(int layer, int layers) const {
  switch (kind) {
    case Kind::all:
      return true;
    case Kind::list:
      return contains(list, layer);
    case Kind::every:
      return layer % list.front() == 0;
    case Kind::powers_of_two:
      return is_power_of_two(layer);
    case Kind::powers_of_two_from_2:
      return layer > 1 && is_power_of_two(layer);
    case Kind::log2_steps:
      return layer > 1 && is_power_of_two(layer - 1);
    case Kind::deeper_half:
      return layer > layers / 2;
    case Kind::first_log2:
      return layer <= ceil_log2(layers);
    case Kind::last_log2:
      return layer > layers - ceil_log2(layers);
  }
  return false;
}

std::span<const NamedLayerRule> named_layer_rules() {
  using K = LayerRule::Kind;
  static constexpr std::array rules = {
      NamedLayerRule{"all", K::all},
      NamedLayerRule{"powers_of_two", K::powers_of_two},
      NamedLayerRule{"powers_of_two_from_2", K::powers_of_two_from_2},
      NamedLayerRule{"log2_steps", K::log2_steps},
      NamedLayerRule{"deeper_half", K::deeper_half},
      NamedLayerRule{"first_log2", K::first_log2},
      NamedLayerRule{"last_log2", K::last_log2},
  };
  return rules;
}

bool ReachPattern::depends_on_data() const {
  return std::any_of(primitives.begin(), primitives.end(), [](const auto& p) { return p.depends_on_data(); });
}

bool ReachPattern::coarse() const {
  return std::any_of(primitives.begin(), primitives.end(), [](const auto& p) { return p.coarse(); });
}

Index ReachPattern::resolution() const {
  Index worst = 1;
  for (const ReachPrimitive& p : primitives) {
    if (p.kind == Kind::state) return 0;
    if (p.kind == Kind::summary) worst = std::max(worst, p.size);
  }
  return worst;
}

std::string ReachPattern::describe() const {
  std::string text;
  for (const ReachPrimitive& p : primitives) {
    if (!text.empty()) text += p.stage > 1 ? " then " : " + ";
    text += describe_one(p) + describe_layers(p.layers);
  }
  return text + (ring ? ", ring" : causal ? ", causal" : ", both sides");
}

void check(const ReachPrimitive& p) {
  Primitive plain;
  plain.left = p.left, plain.right = p.right, plain.period = p.period, plain.count = p.count, plain.first = p.first;
  check(plain, 1);
  const auto positive = [](const char* name, Index value, const char* why) {
    require(value >= 1, fmt::format("{} = {} is not positive ({}), write 1 or more", name, value, why));
  };
  positive("size", p.size, "it counts the tokens of a block");
  positive("query_block", p.query_block, "it counts the queries that choose together");
  positive("buckets", p.buckets, "a token must fall into one");
  positive("heads", p.heads, "somebody must choose");
  positive("stage", p.stage, "stages are counted from 1");
  constexpr Index most_buckets = Index{1} << 24;
  require(p.buckets <= most_buckets, fmt::format("buckets = {} is past {}, use fewer", p.buckets, most_buckets));
  require(p.stage <= 8, fmt::format("stage = {} is past 8 (stages of one layer), use fewer", p.stage));
  require(p.before >= 0, fmt::format("before = {} is negative (it counts earlier blocks), write 0 or more", p.before));
  require(p.pick >= 0, fmt::format("pick = {} is negative (it counts chosen blocks), write 0 or more", p.pick));
  require(p.density >= 0 && p.density <= 1,
          fmt::format("density = {} is not in 0 to 1 (it is a share of the blocks), write e.g. 0.1", p.density));
  for (const int layer : p.layers.list) {
    require(layer >= 1, fmt::format("layer {} does not exist (layers are counted from 1), write 1 or more", layer));
  }
}

void check(const ReachPattern& pattern, int layers) {
  require(layers >= 1,
          fmt::format("layers = {} is less than 1 (there is nothing to compute), write 1 or more", layers));
  require(!(pattern.causal && pattern.ring),
          "ring = true does not go with causal = true (on a ring every token is earlier than every other), write "
          "causal = false");
  for (const ReachPrimitive& p : pattern.primitives) check(p);
  for (int layer = 1; layer <= layers; ++layer) {
    const bool any = std::any_of(pattern.primitives.begin(), pattern.primitives.end(),
                                 [&](const ReachPrimitive& p) { return p.layers.active(layer, layers); });
    require(any, fmt::format("layer {} attends to nothing (no pattern is active in it), add a pattern without "
                             "\"layers\", e.g. a window",
                             layer));
  }
}

ReachPrimitive to_reach(const Primitive& primitive) {
  static constexpr Kind kinds[] = {Kind::full, Kind::window, Kind::stride, Kind::sink, Kind::stride};
  ReachPrimitive p;
  p.kind = kinds[static_cast<std::size_t>(primitive.kind)];
  p.left = primitive.left, p.right = primitive.right;
  p.period = primitive.period, p.count = primitive.count;
  p.first = primitive.first;
  if (primitive.kind == Primitive::Kind::gated_skip) p.count = 1, p.value_alone = true;  // what is read is reached
  if (!primitive.layers.empty()) p.layers = {LayerRule::Kind::list, primitive.layers};
  return p;
}

}  // namespace orrery
