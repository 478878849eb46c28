#include "kernels/ring_check.hpp"

#include <cstring>
#include <random>

#include "kernels/attention_check.hpp"

namespace orrery {
namespace {

uint16_t to_bits(double x) {
  const auto value = static_cast<float>(x);
  uint32_t word;
  std::memcpy(&word, &value, sizeof word);
  return static_cast<uint16_t>((word + 0x7fff + ((word >> 16) & 1)) >> 16);
}
double from_bits(uint16_t bits) {
  const uint32_t word = static_cast<uint32_t>(bits) << 16;
  float value;
  std::memcpy(&value, &word, sizeof value);
  return value;
}

// A tensor over the whole sequence: bits for the GPU, doubles for the reference.
struct Tensor {
  std::vector<uint16_t> bits;
  Doubles values;
  int64_t row;
  Tensor(int64_t tokens, int64_t row_size, uint64_t seed) : row(row_size) {
    std::mt19937_64 random(seed);
    std::normal_distribution<double> normal;
    for (int64_t i = 0; i < tokens * row; ++i) {
      bits.push_back(to_bits(normal(random)));
      values.push_back(from_bits(bits.back()));
    }
  }
  template <class Token>
  std::vector<uint16_t> shard(int64_t n, Token&& token) const {
    std::vector<uint16_t> out;
    for (int64_t i = 0; i < n; ++i) {
      const auto at = bits.begin() + token(i) * row;
      out.insert(out.end(), at, at + row);
    }
    return out;
  }
};

void place(Doubles& whole, const Doubles& part, int64_t row, int64_t i, int64_t token) {
  std::copy(part.begin() + i * row, part.begin() + (i + 1) * row, whole.begin() + token * row);
}

}  // namespace

// 128 tokens a rank, 2 query heads on 1 key head; so many for each rank that exchanges heads, and then 64 tokens.
ContextShape small(ContextShape s) {
  s.n = s.members > 1 ? 64 : 128;
  s.heads = 2 * s.members;
  s.kv_heads = s.members;
  return s;
}

PiShape small(PiShape s) {
  s.n = 256;
  s.heads = 2;
  s.kv_heads = 1;
  s.window = 64;
  if (s.gated()) s.period = 192;
  return s;
}

Difference check_schedule(const ContextScheduleKind& kind, const ContextShape& shape) {
  const ContextShape s = small(shape);
  const int64_t total = s.n * s.ranks, row = s.own().row(), kv_row = s.own().kv_row();
  const Tensor q(total, row, 1), k(total, kv_row, 2), v(total, kv_row, 3), d_o(total, row, 4);
  const AttentionShape a = s.whole();
  const ReferenceForward expected = reference_forward(a, q.values, k.values, v.values);
  const ReferenceBackward gradient =
      reference_backward(a, q.values, k.values, v.values, expected.o, d_o.values, expected.lse);

  RankRun run(s.ranks, s.transport);
  const auto schedule = kind.make(run, s, true);
  for (int r = 0; r < s.ranks; ++r) {
    auto token = [&](int64_t i) { return global_token(s, r, i); };
    upload(run, *schedule, r, q.shard(s.n, token), k.shard(s.n, token), v.shard(s.n, token), d_o.shard(s.n, token));
  }
  run.warm_up(*schedule, true, true);
  run.run(*schedule, true, true);  // twice: the second run meets the first one's buffers
  Doubles o(q.values.size()), dq = o, dk(k.values.size()), dv = dk, lse = expected.lse;
  for (int r = 0; r < s.ranks; ++r) {
    const ShardResult got = download(run, *schedule, r, true);
    for (int64_t i = 0; i < s.n; ++i) {
      const int64_t token = global_token(s, r, i);
      place(o, got.o, row, i, token);
      place(dq, got.dq, row, i, token);
      place(dk, got.dk, kv_row, i, token);
      place(dv, got.dv, kv_row, i, token);
      for (int64_t h = 0; h < s.heads && !got.lse.empty(); ++h) lse[h * total + token] = got.lse[h * s.n + i];
    }
  }
  Difference result = worst(difference(o, expected.o, s.head_dim), difference(lse, expected.lse, total));
  result = worst(result, difference(dq, gradient.dq, s.head_dim));
  result = worst(result, difference(dk, gradient.dk, s.head_dim));
  return worst(result, difference(dv, gradient.dv, s.head_dim));
}

Difference check_pi(PiShape shape) {
  const PiShape s = small(shape);
  const int64_t total = s.n * s.ranks, d = s.head_dim, row = s.heads * d, kv_row = s.kv_heads * d;
  const Tensor q(total, row, 1), k(total, kv_row, 2), v(total, kv_row, 3), d_out(total, row, 4);
  std::mt19937_64 random(5);
  std::uniform_real_distribution<float> uniform;
  std::vector<float> gate(static_cast<size_t>(s.heads * total));
  for (float& g : gate) g = uniform(random);

  AttentionShape a = s.attention(true);
  a.n_q = a.n_k = total;
  const ReferenceForward attention = reference_forward(a, q.values, k.values, v.values);
  Doubles out = attention.o, d_o = d_out.values, d_gate(gate.size()), dv_skip(v.values.size());
  for (int64_t t = s.gated() ? s.period : total; t < total; ++t) {
    for (int64_t h = 0; h < s.heads; ++h) {
      const double g = gate[h * total + t];
      const int64_t skipped = (t - s.period) * kv_row + (h * s.kv_heads / s.heads) * d;
      for (int64_t c = 0; c < d; ++c) {
        const int64_t at = t * row + h * d + c;
        out[at] = g * attention.o[at] + (1 - g) * v.values[skipped + c];
        d_o[at] = g * d_out.values[at];
        d_gate[h * total + t] += d_out.values[at] * (attention.o[at] - v.values[skipped + c]);
        dv_skip[skipped + c] += (1 - g) * d_out.values[at];
      }
    }
  }
  ReferenceBackward gradient = reference_backward(a, q.values, k.values, v.values, attention.o, d_o, attention.lse);
  for (size_t i = 0; i < dv_skip.size(); ++i) gradient.dv[i] += dv_skip[i];

  RankRun run(s.ranks, s.transport);
  PiHalo pi(run, s, true);
  for (int r = 0; r < s.ranks; ++r) {
    auto token = [&](int64_t i) { return r * s.n + i; };
    std::vector<float> part;
    for (int64_t h = 0; h < s.heads; ++h) {
      part.insert(part.end(), gate.begin() + h * total + r * s.n, gate.begin() + h * total + (r + 1) * s.n);
    }
    pi.upload(r, q.shard(s.n, token), k.shard(s.n, token), v.shard(s.n, token), part, d_out.shard(s.n, token));
  }
  run.warm_up(pi, true, true);
  run.run(pi, true, true);  // twice: the second run meets the first one's buffers
  Doubles got_out(out.size()), dq = got_out, dk(k.values.size()), dv = dk, got_gate(d_gate.size());
  for (int r = 0; r < s.ranks; ++r) {
    const PiHalo::Result got = pi.download(r, true);
    for (int64_t i = 0; i < s.n; ++i) {
      const int64_t token = r * s.n + i;
      place(got_out, got.out, row, i, token);
      place(dq, got.dq, row, i, token);
      place(dk, got.dk, kv_row, i, token);
      place(dv, got.dv, kv_row, i, token);
      for (int64_t h = 0; h < s.heads; ++h) got_gate[h * total + token] = got.d_gate[h * s.n + i];
    }
  }
  Difference result = worst(difference(got_out, out, d), difference(dq, gradient.dq, d));
  result = worst(result, worst(difference(dk, gradient.dk, d), difference(dv, gradient.dv, d)));
  return s.gated() ? worst(result, difference(got_gate, d_gate, total)) : result;
}

}  // namespace orrery
