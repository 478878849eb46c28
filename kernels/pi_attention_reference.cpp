#include "kernels/pi_attention_reference.hpp"

#include <limits>

namespace orrery {
namespace {

struct Branch {
  Doubles o;
  double lse = -std::numeric_limits<double>::infinity();
};

struct Keys {
  std::vector<int64_t> window, skips;  // joint: all in `window`
};

Keys keys_of(const PiAttentionShape& s, int64_t token) {
  Keys out;
  for (int64_t j = std::max<int64_t>(0, token - s.window + 1); j <= token; ++j) out.window.push_back(j);
  std::vector<int64_t>& skips = s.fusion == Fusion::joint ? out.window : out.skips;
  for (int64_t m = 1; s.period > 0 && m <= s.skips && token - m * s.period >= 0; ++m) {
    if (m * s.period >= s.window) skips.push_back(token - m * s.period);
  }
  return out;
}

struct Row {
  const PiAttentionShape& s;
  const Doubles &q, &k, &v;
  int64_t head, token;

  size_t query_row() const { return static_cast<size_t>((token * s.heads + head) * s.head_dim); }
  size_t key_row(int64_t j) const {
    return static_cast<size_t>((j * s.kv_heads + head / (s.heads / s.kv_heads)) * s.head_dim);
  }
  double dot(const double* a, const double* b) const {
    double sum = 0;
    for (int64_t c = 0; c < s.head_dim; ++c) sum += a[c] * b[c];
    return sum;
  }
  double score(int64_t j) const { return s.scale() * dot(&q[query_row()], &k[key_row(j)]); }
  Branch attend(const std::vector<int64_t>& keys) const {
    Branch out;
    out.o.assign(static_cast<size_t>(s.head_dim), 0.0);
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
  // Adds what a branch over `keys` gives to the gradients if that of its output is d_o.
  void add_gradients(const std::vector<int64_t>& keys, const Branch& branch, const Doubles& d_o,
                     PiGradients& out) const {
    const double delta = dot(d_o.data(), branch.o.data());
    double* dq = &out.dq[query_row()];
    for (int64_t j : keys) {
      const size_t kv = key_row(j);
      const double p = std::exp(score(j) - branch.lse), ds = s.scale() * p * (dot(d_o.data(), &v[kv]) - delta);
      for (size_t c = 0; c < d_o.size(); ++c) {
        dq[c] += ds * k[kv + c];
        out.dk[kv + c] += ds * q[query_row() + c];
        out.dv[kv + c] += p * d_o[c];
      }
    }
  }
};

double sigmoid(double x) {
  return 1 / (1 + std::exp(-x));
}

}  // namespace

PiRow reference_pi_row(const PiAttentionShape& s, const Doubles& q, const Doubles& k, const Doubles& v,
                       const Doubles& gate_logit, int64_t head, int64_t token) {
  const Row row{s, q, k, v, head, token};
  const Keys keys = keys_of(s, token);
  const Branch window = row.attend(keys.window), skips = row.attend(keys.skips);
  PiRow out{window.o, window.lse, skips.lse};
  if (keys.skips.empty()) return out;
  const double g = sigmoid(gate_logit[static_cast<size_t>(head * s.n + token)]);
  for (size_t c = 0; c < out.o.size(); ++c) out.o[c] = g * window.o[c] + (1 - g) * skips.o[c];
  return out;
}

PiGradients reference_pi_backward(const PiAttentionShape& s, const Doubles& q, const Doubles& k, const Doubles& v,
                                  const Doubles& gate_logit, const Doubles& d_o) {
  PiGradients out{Doubles(q.size()), Doubles(k.size()), Doubles(v.size()), Doubles(static_cast<size_t>(s.n * s.heads))};
  for (int64_t head = 0; head < s.heads; ++head) {
    for (int64_t token = 0; token < s.n; ++token) {
      const Row row{s, q, k, v, head, token};
      const Keys keys = keys_of(s, token);
      const Branch window = row.attend(keys.window);
      const auto from = d_o.begin() + static_cast<int64_t>(row.query_row());
      Doubles d_window(from, from + s.head_dim);
      if (!keys.skips.empty()) {
        const Branch skips = row.attend(keys.skips);
        const auto at = static_cast<size_t>(head * s.n + token);
        const double g = sigmoid(gate_logit[at]);
        out.d_gate_logit[at] =
            g * (1 - g) * (row.dot(d_window.data(), window.o.data()) - row.dot(d_window.data(), skips.o.data()));
        Doubles d_skips = d_window;
        for (double& x : d_skips) x *= 1 - g;
        for (double& x : d_window) x *= g;
        row.add_gradients(keys.skips, skips, d_skips, out);
      }
      row.add_gradients(keys.window, window, d_window, out);
    }
  }
  return out;
}

}  // namespace orrery
