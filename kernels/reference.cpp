#include "kernels/reference.hpp"

#include <limits>

namespace orrery {
namespace {

double dot(const double* a, const double* b, int64_t n) {
  double sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += a[i] * b[i];
  return sum;
}

struct Index {
  int64_t heads, d;
  int64_t operator()(int64_t token, int64_t head) const { return (token * heads + head) * d; }
};

}  // namespace

ReferenceForward reference_forward(const AttentionShape& s, const Doubles& q, const Doubles& k, const Doubles& v) {
  const Index at{s.heads, s.head_dim}, kv_at{s.kv_heads, s.head_dim};
  const int64_t group = s.heads / s.kv_heads, d = s.head_dim;
  ReferenceForward out;
  out.o.assign(static_cast<size_t>(s.n_q * s.heads * d), 0.0);
  out.lse.assign(static_cast<size_t>(s.n_q * s.heads), -std::numeric_limits<double>::infinity());
  Doubles score(static_cast<size_t>(s.n_k));
  for (int64_t h = 0; h < s.heads; ++h) {
    for (int64_t i = 0; i < s.n_q; ++i) {
      const int64_t first = s.first_key(i), last = s.last_key(i);
      if (last < first) continue;
      double top = -std::numeric_limits<double>::infinity();
      for (int64_t j = first; j <= last; ++j) {
        score[j] = s.scale() * dot(&q[at(i, h)], &k[kv_at(j, h / group)], d);
        top = std::max(top, score[j]);
      }
      double sum = 0;
      double* o = &out.o[at(i, h)];
      for (int64_t j = first; j <= last; ++j) {
        const double w = std::exp(score[j] - top);
        sum += w;
        const double* row = &v[kv_at(j, h / group)];
        for (int64_t c = 0; c < d; ++c) o[c] += w * row[c];
      }
      for (int64_t c = 0; c < d; ++c) o[c] /= sum;
      out.lse[h * s.n_q + i] = top + std::log(sum);
    }
  }
  return out;
}

ReferenceBackward reference_backward(const AttentionShape& s, const Doubles& q, const Doubles& k, const Doubles& v,
                                     const Doubles& o, const Doubles& d_o, const Doubles& lse) {
  const Index at{s.heads, s.head_dim}, kv_at{s.kv_heads, s.head_dim};
  const int64_t group = s.heads / s.kv_heads, d = s.head_dim;
  ReferenceBackward out;
  out.dq.assign(q.size(), 0.0);
  out.dk.assign(k.size(), 0.0);
  out.dv.assign(v.size(), 0.0);
  for (int64_t h = 0; h < s.heads; ++h) {
    for (int64_t i = 0; i < s.n_q; ++i) {
      const double* g = &d_o[at(i, h)];
      const double row_sum = dot(g, &o[at(i, h)], d);
      for (int64_t j = s.first_key(i); j <= s.last_key(i); ++j) {
        const int64_t kv = kv_at(j, h / group);
        const double p = std::exp(s.scale() * dot(&q[at(i, h)], &k[kv], d) - lse[h * s.n_q + i]);
        const double ds = s.scale() * p * (dot(g, &v[kv], d) - row_sum);
        for (int64_t c = 0; c < d; ++c) {
          out.dq[at(i, h) + c] += ds * k[kv + c];
          out.dk[kv + c] += ds * q[at(i, h) + c];
          out.dv[kv + c] += p * g[c];
        }
      }
    }
  }
  return out;
}

void reference_merge(Doubles& o, Doubles& lse, const Doubles& o2, const Doubles& lse2, int64_t head_dim, int64_t n_q,
                     int64_t heads) {
  const Index at{heads, head_dim};
  for (int64_t h = 0; h < heads; ++h) {
    for (int64_t i = 0; i < n_q; ++i) {
      const double a = lse[h * n_q + i], b = lse2[h * n_q + i], top = std::max(a, b);
      if (top == -std::numeric_limits<double>::infinity()) continue;
      const double wa = std::exp(a - top), wb = std::exp(b - top);
      for (int64_t c = 0; c < head_dim; ++c) {
        double& x = o[at(i, h) + c];
        x = (wa * x + wb * o2[at(i, h) + c]) / (wa + wb);
      }
      lse[h * n_q + i] = top + std::log(wa + wb);
    }
  }
}

Difference difference(const Doubles& got, const Doubles& expected, int64_t row) {
  double error = 0, norm = 0;
  Doubles row_error, row_norm;
  for (size_t i = 0; i < expected.size(); i += static_cast<size_t>(row)) {
    double e = 0, n = 0;
    for (size_t c = i; c < std::min(expected.size(), i + static_cast<size_t>(row)); ++c) {
      const double x = c < got.size() ? got[c] - expected[c] : std::numeric_limits<double>::quiet_NaN();
      e += x * x;
      n += expected[c] * expected[c];
    }
    error += e;
    norm += n;
    row_error.push_back(e);
    row_norm.push_back(n);
  }
  Difference out;
  if (!(norm > 0)) {
    out.norm = out.row_max = error == 0 ? 0 : std::numeric_limits<double>::infinity();
    return out;
  }
  const double floor = 1e-6 * norm / static_cast<double>(row_norm.size());
  out.norm = std::sqrt(error / norm);
  for (size_t i = 0; i < row_norm.size(); ++i) {
    const double relative = std::sqrt(row_error[i] / std::max(row_norm[i], floor));
    if (!(relative <= out.row_max)) out.row_max = relative;
  }
  if (!(out.norm <= 1e300)) out.norm = out.row_max = std::numeric_limits<double>::infinity();
  return out;
}

}  // namespace orrery
