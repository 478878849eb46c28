#include "scenarios/pattern.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <stdexcept>
#include <utility>

#include "sim/contains.hpp"

namespace orrery {
namespace {

bool is_active(const Primitive& primitive, int layer) {
  return primitive.layers.empty() || contains(primitive.layers, layer + 1);
}

std::vector<LagProgression> lags_of(const Primitive& primitive, Index tokens) {
  switch (primitive.kind) {
    case Primitive::Kind::full:
      return {{-tokens, tokens, 1}};
    case Primitive::Kind::window:
      return {{-std::min(primitive.right, tokens), std::min(primitive.left, tokens), 1}};
    case Primitive::Kind::stride: {
      if (primitive.period >= tokens) return {};
      const Index fits = (tokens - 1) / primitive.period;
      const Index count = primitive.count == 0 ? fits : std::min(primitive.count, fits);
      return {{primitive.period, count * primitive.period, primitive.period},
              {-count * primitive.period, -primitive.period, primitive.period}};
    }
    case Primitive::Kind::gated_skip:
      return primitive.period < tokens ? std::vector<LagProgression>{{primitive.period, primitive.period, 1}}
                                       : std::vector<LagProgression>{};
    case Primitive::Kind::sink:
      return {};
  }
  return {};
}

std::string describe_one(const Primitive& primitive) {
  switch (primitive.kind) {
    case Primitive::Kind::full:
      return "full";
    case Primitive::Kind::window:
      return primitive.right == 0 ? fmt::format("window(left {})", primitive.left)
                                  : fmt::format("window(left {}, right {})", primitive.left, primitive.right);
    case Primitive::Kind::stride:
      return primitive.count == 0 ? fmt::format("stride({}, all)", primitive.period)
                                  : fmt::format("stride({}, count {})", primitive.period, primitive.count);
    case Primitive::Kind::sink:
      return fmt::format("sink({})", primitive.first);
    case Primitive::Kind::gated_skip:
      return fmt::format("gated_skip({})", primitive.period);
  }
  return {};
}

constexpr std::array kinds = {
    PrimitiveKind{"full", "all keys (of the past, if causal)"},
    PrimitiveKind{"window", "left (and, if not causal, right): keys at lags -right..left"},
    PrimitiveKind{"stride", "period, count (a number or \"all\"): keys at multiples of the period"},
    PrimitiveKind{"sink", "first: the first tokens of the document"},
    PrimitiveKind{"gated_skip", "period: the value one period back, which a gate adds; its key is not read"},
};

}  // namespace

std::span<const PrimitiveKind> primitive_kinds() {
  return kinds;
}

void check(const Primitive& primitive, int layers) {
  const auto require = [](bool holds, const std::string& message) {
    if (!holds) throw std::invalid_argument(message);
  };
  require(primitive.left >= 0,
          fmt::format("left = {} is negative (it counts earlier tokens), write 0 or more", primitive.left));
  require(primitive.right >= 0,
          fmt::format("right = {} is negative (it counts later tokens), write 0 or more", primitive.right));
  require(primitive.period >= 1,
          fmt::format("period = {} is not positive (a skip must leave its token), write 1 or more", primitive.period));
  require(primitive.count >= 0, fmt::format("count = {} is negative, write 1 or more, or \"all\"", primitive.count));
  require(primitive.first >= 0,
          fmt::format("first = {} is negative (it counts sink tokens), write 1 or more", primitive.first));
  for (const int layer : primitive.layers) {
    require(layer >= 1 && layer <= layers,
            fmt::format("layer {} does not exist (the model has layers 1 to {}), write one of them", layer, layers));
  }
}

Pattern::Pattern(std::vector<Primitive> primitives, int layers) : primitives_(std::move(primitives)) {
  for (int layer = 0; layer < layers; ++layer) {
    std::vector<std::size_t> active;
    for (std::size_t i = 0; i < primitives_.size(); ++i) {
      if (is_active(primitives_[i], layer)) active.push_back(i);
    }
    if (active.empty()) {
      throw std::invalid_argument(fmt::format(
          "layer {} attends to nothing (no pattern is active in it), add a pattern without \"layers\", e.g. a window",
          layer + 1));
    }
    auto known = std::find(active_.begin(), active_.end(), active);
    if (known == active_.end()) known = active_.insert(active_.end(), active);
    class_of_layer_.push_back(static_cast<int>(known - active_.begin()));
  }
}

Mask Pattern::mask_of(int pattern_class, Index tokens, bool causal, const std::vector<Index>& documents,
                      bool gated) const {
  std::vector<LagProgression> lags;
  Index sink = 0;
  for (const std::size_t i : active_[static_cast<std::size_t>(pattern_class)]) {
    if (primitives_[i].kind == Primitive::Kind::gated_skip && !gated) continue;
    const std::vector<LagProgression> added = lags_of(primitives_[i], tokens);
    lags.insert(lags.end(), added.begin(), added.end());
    if (primitives_[i].kind == Primitive::Kind::sink) sink = std::max(sink, std::min(primitives_[i].first, tokens));
  }
  return Mask(tokens, causal, std::move(lags), sink, documents);
}

Mask Pattern::mask(int pattern_class, Index tokens, bool causal, const std::vector<Index>& documents) const {
  return mask_of(pattern_class, tokens, causal, documents, false);
}

Mask Pattern::value_mask(int pattern_class, Index tokens, bool causal, const std::vector<Index>& documents) const {
  return mask_of(pattern_class, tokens, causal, documents, true);
}

Pattern Pattern::wider(Index rows) const {
  Pattern pattern = *this;
  for (Primitive& p : pattern.primitives_) {
    if (p.kind == Primitive::Kind::window) p.left += rows;
  }
  return pattern;
}

bool Pattern::has_gated_skips() const {
  return std::any_of(primitives_.begin(), primitives_.end(),
                     [](const Primitive& p) { return p.kind == Primitive::Kind::gated_skip; });
}

bool Pattern::is_gated(int pattern_class, Index document) const {
  const std::vector<std::size_t>& active = active_[static_cast<std::size_t>(pattern_class)];
  return std::any_of(active.begin(), active.end(), [&](std::size_t i) {
    return primitives_[i].kind == Primitive::Kind::gated_skip && primitives_[i].period < document;
  });
}

bool Pattern::is_full(int pattern_class) const {
  const std::vector<std::size_t>& active = active_[static_cast<std::size_t>(pattern_class)];
  return std::any_of(active.begin(), active.end(),
                     [&](std::size_t i) { return primitives_[i].kind == Primitive::Kind::full; });
}

Pattern::Cached Pattern::cached(int pattern_class, Index tokens) const {
  Cached cached;
  for (const std::size_t i : active_[static_cast<std::size_t>(pattern_class)]) {
    const Primitive& p = primitives_[i];
    if (p.kind == Primitive::Kind::sink) {
      cached.first = std::max(cached.first, std::min(p.first, tokens));
      continue;
    }
    if (p.kind == Primitive::Kind::gated_skip) {
      cached.values = std::max(cached.values, std::min(p.period, tokens - 1) + 1);
      continue;
    }
    Index last = tokens;
    if (p.kind == Primitive::Kind::window) last = std::min(p.left, tokens - 1) + 1;
    if (p.kind == Primitive::Kind::stride && p.count > 0 && p.period < tokens && p.count < tokens / p.period)
      last = p.count * p.period + 1;
    cached.last = std::max(cached.last, last);
  }
  cached.values = std::max(cached.values, cached.last);
  return cached;
}

std::string Pattern::describe(int pattern_class) const {
  std::string text;
  for (const std::size_t i : active_[static_cast<std::size_t>(pattern_class)]) {
    text += (text.empty() ? "" : " + ") + describe_one(primitives_[i]);
  }
  return text;
}

int Pattern::layers_of(int pattern_class) const {
  return static_cast<int>(std::count(class_of_layer_.begin(), class_of_layer_.end(), pattern_class));
}

std::string Pattern::describe() const {
  if (classes() == 1) return describe(0);
  std::string text;
  for (int c = 0; c < classes(); ++c) {
    text += fmt::format("{}{} in {} layers", c == 0 ? "" : "; ", describe(c), layers_of(c));
  }
  return text;
}

}  // namespace orrery
