#include "scenarios/pattern_reader.hpp"

#include <fmt/format.h>

#include <cmath>
#include <stdexcept>
#include <string>

namespace orrery {
namespace {

std::vector<int> read_layers(const Table& table, int layers) {
  std::vector<int> chosen;
  if (!table.has("layers")) return chosen;
  if (table.is_table("layers")) {
    const Table every = table.table("layers");
    const auto step = static_cast<int>(every.count("every", 1, layers));
    for (int layer = step; layer <= layers; layer += step) chosen.push_back(layer);
    return chosen;
  }
  for (const Index layer : table.counts("layers")) {
    if (layer < 1 || layer > layers) {
      throw table.error_at("layers", fmt::format("layer {} does not exist (the model has layers 1 to {}), write one of "
                                                 "them",
                                                 layer, layers));
    }
    chosen.push_back(static_cast<int>(layer));
  }
  if (chosen.empty())
    throw table.error_at(
        "layers", "layers is an empty list (the pattern would never be used), name a layer or leave the key out");
  return chosen;
}

/// A lag or count that may be negative in the file, so that the message can say what is wrong with that.
Index signed_count(const Table& table, std::string_view key) {
  if (table.is_string(key)) return table.count(key);
  const double value = table.number(key);
  constexpr double most = 9007199254740992.0;  // 2^53, from where on doubles skip whole numbers
  if (std::abs(value) >= most) {
    throw table.error_at(key, fmt::format("{} = {} is out of range (2^53 or more), write less", key, value));
  }
  if (value != std::floor(value)) {
    throw table.error_at(key, fmt::format("{} = {} is not a whole number (it counts tokens), round it", key, value));
  }
  return static_cast<Index>(value);
}

Primitive read_primitive(const Table& table, bool causal, int layers) {
  Primitive p;
  const std::string kind = table.choice("kind", {"full", "window", "stride", "sink", "gated_skip"});
  std::string number = "kind";
  if (kind == "window") {
    p.kind = Primitive::Kind::window;
    p.left = signed_count(table, number = "left");
    if (!causal) {
      p.right = signed_count(table, "right");
    } else if (table.has("right") && signed_count(table, "right") != 0) {
      throw table.error_at(
          "right",
          "right is not 0, but attention is causal (no later tokens are seen), write right = 0 or causal = false");
    }
    if (p.left >= 0) number = "right";
  } else if (kind == "stride") {
    p.kind = Primitive::Kind::stride;
    p.period = signed_count(table, number = "period");
    const bool all = table.is_string("count") && table.string("count") == "all";
    p.count = all ? 0 : signed_count(table, "count");
    if (!all && p.count == 0) throw table.error_at("count", "count = 0 skips nothing, write 1 or more, or \"all\"");
    if (p.period >= 1) number = "count";
  } else if (kind == "sink") {
    p.kind = Primitive::Kind::sink;
    p.first = signed_count(table, number = "first");
    if (p.first == 0) throw table.error_at("first", "first = 0 adds no key, write 1 or more, or leave the sink out");
  } else if (kind == "gated_skip") {
    p.kind = Primitive::Kind::gated_skip;
    p.period = signed_count(table, number = "period");
    if (!causal)
      throw table.error_at(
          "kind", "a gated skip adds the value of an earlier token, but attention is not causal, write causal = true");
  }
  p.layers = read_layers(table, layers);
  try {
    check(p, layers);
  } catch (const std::invalid_argument& error) {
    throw table.error_at(p.layers.empty() ? number : "layers", error.what());
  }
  return p;
}

}  // namespace

std::vector<Primitive> read_pattern(const Table& table, bool causal, int layers) {
  std::vector<Primitive> primitives;
  for (const Table& primitive : table.tables("pattern"))
    primitives.push_back(read_primitive(primitive, causal, layers));
  return primitives;
}

}  // namespace orrery
