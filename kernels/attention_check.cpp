#include "kernels/attention_check.hpp"

#include <algorithm>
#include <thread>

#include "kernels/device.hpp"

namespace orrery {
namespace {

double dot(const double* a, const double* b, int64_t n) {
  double s0 = 0, s1 = 0, s2 = 0, s3 = 0;
  for (int64_t i = 0; i < n; i += 4) {
    s0 += a[i] * b[i];
    s1 += a[i + 1] * b[i + 1];
    s2 += a[i + 2] * b[i + 2];
    s3 += a[i + 3] * b[i + 3];
  }
  return s0 + s1 + s2 + s3;
}

template <class F>
void parallel_for(int64_t count, F&& f) {
  const auto threads = static_cast<int64_t>(std::min(8u, std::max(1u, std::thread::hardware_concurrency())));
  std::vector<std::thread> workers;
  for (int64_t t = 0; t < threads; ++t) {
    workers.emplace_back([&, t] {
      for (int64_t i = t; i < count; i += threads) f(i);
    });
  }
  for (std::thread& w : workers) w.join();
}

// First, last and some in between, spread so that they fall into different tiles.
std::vector<int64_t> spread(int64_t count, int64_t wanted) {
  std::vector<int64_t> out;
  for (int64_t i = 0; i < std::min(count, wanted); ++i) {
    out.push_back(count <= wanted ? i : i * (count - 1) / (wanted - 1));
  }
  return out;
}

bool is_small(const AttentionShape& s) {
  return static_cast<double>(s.n_q) * static_cast<double>(s.n_k) * static_cast<double>(s.heads * s.head_dim) < 1e8;
}

struct Probe {
  int64_t row, first, last;
  Doubles weight;  // P of the keys first..last
};

}  // namespace

Difference worst(const Difference& a, const Difference& b) {
  return {std::max(a.norm, b.norm), std::max(a.row_max, b.row_max)};
}

Difference check_forward(const AttentionShape& s, const void* q, const void* k, const void* v, const void* o,
                         const void* lse) {
  const int64_t d = s.head_dim, group = s.heads / s.kv_heads;
  const Doubles got_lse = download_f32(lse, static_cast<size_t>(s.heads * s.n_q));
  if (is_small(s)) {
    auto load = [&](const void* p, int64_t n, int64_t heads) {
      return download_bf16(p, static_cast<size_t>(n * heads * d));
    };
    const ReferenceForward ref =
        reference_forward(s, load(q, s.n_q, s.heads), load(k, s.n_k, s.kv_heads), load(v, s.n_k, s.kv_heads));
    return worst(difference(load(o, s.n_q, s.heads), ref.o, d), difference(got_lse, ref.lse, s.n_q));
  }
  Difference result;
  for (int64_t h : spread(s.heads, 2)) {
    const Doubles q_head = download_head_bf16(q, s.n_q, s.heads, h, d);
    const Doubles k_head = download_head_bf16(k, s.n_k, s.kv_heads, h / group, d);
    const Doubles v_head = download_head_bf16(v, s.n_k, s.kv_heads, h / group, d);
    const Doubles o_head = download_head_bf16(o, s.n_q, s.heads, h, d);
    const std::vector<int64_t> rows = spread(s.n_q, 24);
    Doubles expected(rows.size() * static_cast<size_t>(d)), got(expected.size());
    Doubles expected_lse(rows.size()), actual_lse(rows.size());
    parallel_for(static_cast<int64_t>(rows.size()), [&](int64_t r) {
      AttentionShape row = s;  // one query that sees the keys first..last
      const int64_t first = s.first_key(rows[r]), last = s.last_key(rows[r]);
      row.n_q = 1;
      row.n_k = last - first + 1;
      row.heads = row.kv_heads = 1;
      row.mask = Mask::full;
      const Doubles one(q_head.begin() + rows[r] * d, q_head.begin() + (rows[r] + 1) * d);
      const Doubles keys(k_head.begin() + first * d, k_head.begin() + (last + 1) * d);
      const Doubles values(v_head.begin() + first * d, v_head.begin() + (last + 1) * d);
      const ReferenceForward ref = reference_forward(row, one, keys, values);
      std::copy(ref.o.begin(), ref.o.end(), expected.begin() + r * d);
      std::copy(o_head.begin() + rows[r] * d, o_head.begin() + (rows[r] + 1) * d, got.begin() + r * d);
      expected_lse[r] = ref.lse[0];
      actual_lse[r] = got_lse[h * s.n_q + rows[r]];
    });
    result = worst(result, worst(difference(got, expected, d),
                                 difference(actual_lse, expected_lse, static_cast<int64_t>(rows.size()))));
  }
  return result;
}

Difference check_backward(const AttentionShape& s, const void* q, const void* k, const void* v, const void* o,
                          const void* d_o, const void* lse, const void* dq, const void* dk, const void* dv) {
  const int64_t d = s.head_dim, group = s.heads / s.kv_heads;
  const Doubles row_lse = download_f32(lse, static_cast<size_t>(s.heads * s.n_q));
  auto load = [&](const void* p, int64_t n, int64_t heads) {
    return download_bf16(p, static_cast<size_t>(n * heads * d));
  };
  if (is_small(s)) {
    const ReferenceBackward ref =
        reference_backward(s, load(q, s.n_q, s.heads), load(k, s.n_k, s.kv_heads), load(v, s.n_k, s.kv_heads),
                           load(o, s.n_q, s.heads), load(d_o, s.n_q, s.heads), row_lse);
    return worst(
        difference(load(dq, s.n_q, s.heads), ref.dq, d),
        worst(difference(load(dk, s.n_k, s.kv_heads), ref.dk, d), difference(load(dv, s.n_k, s.kv_heads), ref.dv, d)));
  }

  // One key head; a few of its keys for dK and dV (summed over every query of the group), a few rows for dQ.
  const int64_t kv_head = s.kv_heads - 1;
  const Doubles k_head = download_head_bf16(k, s.n_k, s.kv_heads, kv_head, d);
  const Doubles v_head = download_head_bf16(v, s.n_k, s.kv_heads, kv_head, d);
  const Doubles dk_head = download_head_bf16(dk, s.n_k, s.kv_heads, kv_head, d);
  const Doubles dv_head = download_head_bf16(dv, s.n_k, s.kv_heads, kv_head, d);
  const std::vector<int64_t> rows = spread(s.n_q, 8), keys = spread(s.n_k, 4);
  const auto key_count = static_cast<int64_t>(keys.size());
  Doubles expected_dk(keys.size() * static_cast<size_t>(d)), expected_dv(expected_dk.size());
  Doubles got_dk(expected_dk.size()), got_dv(expected_dk.size());
  Difference result;
  std::vector<Doubles> partial_dk(static_cast<size_t>(group), Doubles(expected_dk.size())), partial_dv = partial_dk;
  for (int64_t g = 0; g < group; ++g) {
    const int64_t h = kv_head * group + g;
    const Doubles q_head = download_head_bf16(q, s.n_q, s.heads, h, d);
    const Doubles o_head = download_head_bf16(o, s.n_q, s.heads, h, d);
    const Doubles do_head = download_head_bf16(d_o, s.n_q, s.heads, h, d);
    auto ds_of = [&](int64_t i, int64_t j, double row_sum, double* p) {
      *p = std::exp(s.scale() * dot(&q_head[i * d], &k_head[j * d], d) - row_lse[h * s.n_q + i]);
      return s.scale() * *p * (dot(&do_head[i * d], &v_head[j * d], d) - row_sum);
    };
    parallel_for(key_count, [&](int64_t c) {
      for (int64_t i = 0; i < s.n_q; ++i) {
        if (keys[c] < s.first_key(i) || keys[c] > s.last_key(i)) continue;
        double p = 0;
        const double ds = ds_of(i, keys[c], dot(&do_head[i * d], &o_head[i * d], d), &p);
        for (int64_t x = 0; x < d; ++x) {
          partial_dk[g][c * d + x] += ds * q_head[i * d + x];
          partial_dv[g][c * d + x] += p * do_head[i * d + x];
        }
      }
    });
    if (g != group - 1) continue;
    const Doubles dq_head = download_head_bf16(dq, s.n_q, s.heads, h, d);
    Doubles expected(rows.size() * static_cast<size_t>(d)), got(expected.size());
    parallel_for(static_cast<int64_t>(rows.size()), [&](int64_t r) {
      const int64_t i = rows[r];
      const double row_sum = dot(&do_head[i * d], &o_head[i * d], d);
      for (int64_t j = s.first_key(i); j <= s.last_key(i); ++j) {
        double p = 0;
        const double ds = ds_of(i, j, row_sum, &p);
        for (int64_t x = 0; x < d; ++x) expected[r * d + x] += ds * k_head[j * d + x];
      }
      std::copy(dq_head.begin() + i * d, dq_head.begin() + (i + 1) * d, got.begin() + r * d);
    });
    result = difference(got, expected, d);
  }
  for (int64_t c = 0; c < key_count; ++c) {
    for (int64_t x = 0; x < d; ++x) {
      for (int64_t g = 0; g < group; ++g) {
        expected_dk[c * d + x] += partial_dk[g][c * d + x];
        expected_dv[c * d + x] += partial_dv[g][c * d + x];
      }
      got_dk[c * d + x] = dk_head[keys[c] * d + x];
      got_dv[c * d + x] = dv_head[keys[c] * d + x];
    }
  }
  return worst(result, worst(difference(got_dk, expected_dk, d), difference(got_dv, expected_dv, d)));
}

}  // namespace orrery
