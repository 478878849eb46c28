#include "kernels/pi_attention_reference.hpp"

#include <limits>

namespace orrery {
namespace {

struct Branch {
  Doubles o;
  double lse = -std::numeric_limits<double>::infinity();
};

struct Row {
  const PiAttentionShape& s;
  const Doubles &q, &k, &v;
  int64_t head, token;

  double score(int64_t j) const {
    const double* a = &q[(token * s.heads + head) * s.head_dim];
    const double* b = &k[key_row(j)];
    double sum = 0;
    for (int64_t c = 0; c < s.head_dim; ++c) sum += a[c] * b[c];
    return s.scale() * sum;
  }
  size_t key_row(int64_t j) const {
    return static_cast<size_t>((j * s.kv_heads + head / (s.heads / s.kv_heads)) * s.head_dim);
  }
  Branch attend(const std::vector<int64_t>& keys) const {
    Branch out{Doubles(static_cast<size_t>(s.head_dim), 0.0)};
    Doubles scores;
    double top = out.lse, sum = 0;
    for (int64_t j : keys) {
      scores.push_back(score(j));
      top = std::max(top, scores.back());
    }
    for (size_t n = 0; n < keys.size(); ++n) {
      const double weight = std::exp(scores[n] - top), *row = &v[key_row(keys[n])];
      sum += weight;
      for (size_t c = 0; c < out.o.size(); ++c) out.o[c] += weight * row[c];
    }
    if (keys.empty()) return out;
    for (double& x : out.o) x /= sum;
    out.lse = top + std::log(sum);
    return out;
  }
};

}  // namespace

PiRow reference_pi_row(const PiAttentionShape& s, const Doubles& q, const Doubles& k, const Doubles& v,
                       const Doubles& gate_logit, int64_t head, int64_t token) {
  std::vector<int64_t> window, skips;
  for (int64_t j = std::max<int64_t>(0, token - s.window + 1); j <= token; ++j) window.push_back(j);
  std::vector<int64_t>& fused = s.fusion == Fusion::joint ? window : skips;
  for (int64_t m = 1; s.period > 0 && m <= s.skips && token - m * s.period >= 0; ++m) {
    if (m * s.period >= s.window) fused.push_back(token - m * s.period);
  }
  const Row row{s, q, k, v, head, token};
  const Branch a = row.attend(window), b = row.attend(skips);
  PiRow out{a.o, a.lse, b.lse};
  if (skips.empty()) return out;
  const double g = 1 / (1 + std::exp(-gate_logit[static_cast<size_t>(head * s.n + token)]));
  for (size_t c = 0; c < out.o.size(); ++c) out.o[c] = g * a.o[c] + (1 - g) * b.o[c];
  return out;
}

}  // namespace orrery
