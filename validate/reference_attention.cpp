#include "validate/reference_attention.hpp"

#include <algorithm>
#include <limits>

namespace orrery {

ReferenceLayer::ReferenceLayer(Index tokens, int heads, int kv_heads, int head_dim)
    : query(tokens, heads, head_dim, 1),
      key_value(tokens, kv_heads, head_dim, 2),
      d_output(tokens, heads, head_dim, 1),
      output(tokens, heads, head_dim, 1),
      d_query(tokens, heads, head_dim, 1),
      d_key_value(tokens, kv_heads, head_dim, 2) {}

namespace {

void fill(CheckedTensor& tensor, Index tokens, int heads, std::mt19937_64& random) {
  std::uniform_real_distribution<double> uniform(-1, 1);
  for (Index token = 0; token < tokens; ++token) {
    for (int head = 0; head < heads; ++head) {
      for (int part = 0; part < tensor.parts(); ++part) {
        for (int i = 0; i < tensor.head_dim(); ++i) tensor.row(token, head, part)[i] = uniform(random);
      }
    }
  }
}

/// The keys one query scores, with their softmax weights.
struct Weights {
  std::vector<Index> keys;
  std::vector<double> weights;
};

Weights softmax_weights(ReferenceLayer& r, const Mask& mask, Index query, int head, int kv_head) {
  const int d = r.query.head_dim();
  Weights w;
  double highest = -std::numeric_limits<double>::infinity();
  for (Index key = 0; key < mask.tokens(); ++key) {
    if (!mask.allows(query, key)) continue;
    w.keys.push_back(key);
    w.weights.push_back(attention_scale(d) * dot(r.query.row(query, head), r.key_value.row(key, kv_head, 0), d));
    highest = std::max(highest, w.weights.back());
  }
  double sum = 0;
  for (double& weight : w.weights) sum += weight = std::exp(weight - highest);
  for (double& weight : w.weights) weight /= sum;
  return w;
}

void solve_row(ReferenceLayer& r, const Mask& mask, const Mask& values, Index i, int h, int g) {
  const int d = r.query.head_dim();
  const Weights w = softmax_weights(r, mask, i, h, g);
  double* out = r.output.row(i, h);
  std::fill_n(out, d, 0.0);
  std::fill_n(r.d_query.row(i, h), d, 0.0);
  for (std::size_t x = 0; x < w.keys.size(); ++x) {
    for (int c = 0; c < d; ++c) out[c] += w.weights[x] * r.key_value.row(w.keys[x], g, 1)[c];
  }
  const double delta = dot(r.d_output.row(i, h), out, d);
  for (std::size_t x = 0; x < w.keys.size(); ++x) {
    const Index j = w.keys[x];
    const double dp = dot(r.d_output.row(i, h), r.key_value.row(j, g, 1), d);
    const double ds = w.weights[x] * (dp - delta) * attention_scale(d);
    for (int c = 0; c < d; ++c) {
      r.d_query.row(i, h)[c] += ds * r.key_value.row(j, g, 0)[c];
      r.d_key_value.row(j, g, 0)[c] += ds * r.query.row(i, h)[c];
      r.d_key_value.row(j, g, 1)[c] += w.weights[x] * r.d_output.row(i, h)[c];
    }
  }
  for (Index j = 0; j < mask.tokens(); ++j) {
    if (!values.allows(i, j) || mask.allows(i, j)) continue;
    for (int c = 0; c < d; ++c) {
      out[c] += r.key_value.row(j, g, 1)[c];
      r.d_key_value.row(j, g, 1)[c] += r.d_output.row(i, h)[c];
    }
  }
}

}  // namespace

ReferenceLayer make_reference(const Geometry& geometry, const Mask& mask, const Mask& values, std::mt19937_64& random) {
  const Index tokens = mask.tokens();
  ReferenceLayer r(tokens, geometry.heads, geometry.kv_heads, geometry.head_dim);
  fill(r.query, tokens, geometry.heads, random);
  fill(r.key_value, tokens, geometry.kv_heads, random);
  fill(r.d_output, tokens, geometry.heads, random);
  for (Index j = 0; j < tokens; ++j) {
    for (int g = 0; g < geometry.kv_heads; ++g) {
      std::fill_n(r.d_key_value.row(j, g, 0), geometry.head_dim, 0.0);
      std::fill_n(r.d_key_value.row(j, g, 1), geometry.head_dim, 0.0);
    }
  }
  for (int h = 0; h < geometry.heads; ++h) {
    for (Index i = 0; i < tokens; ++i) solve_row(r, mask, values, i, h, h * geometry.kv_heads / geometry.heads);
  }
  return r;
}

}  // namespace orrery
