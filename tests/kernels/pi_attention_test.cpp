// On a Hopper GPU: the pi-attention kernels against double precision on the CPU (sampled rows) and against the simple
// kernel (all rows), on fixed and on random shapes. ORRERY_PI_SHAPES sets how many random ones (300).
#include <cstdlib>
#include <cstring>
#include <random>

#include "../catch.hpp"
#include "kernels/device.hpp"
#include "kernels/pi_attention.hpp"
#include "kernels/pi_attention_reference.hpp"

using namespace orrery;

namespace {

constexpr double kNorm = 1e-2, kRow = 3e-2, kLse = 2e-3;

struct Problem {
  PiAttentionShape s;
  size_t q_count, k_count, rows;
  DeviceBuffer q, k, v, gate, o, lse, lse_skips, o_window;
  Stream stream;

  Problem(const PiAttentionShape& shape, uint64_t seed)
      : s(shape),
        q_count(static_cast<size_t>(s.n * s.heads * s.head_dim)),
        k_count(static_cast<size_t>(s.n * s.kv_heads * s.head_dim)),
        rows(static_cast<size_t>(s.n * s.heads)),
        q(q_count * 2),
        k(k_count * 2),
        v(k_count * 2),
        gate(rows * 4),
        o(q_count * 2),
        lse(rows * 4),
        lse_skips(rows * 4),
        o_window(q_count * 2) {
    fill_normal_bf16(q.get(), q_count, seed * 8 + 1, stream);
    fill_normal_bf16(k.get(), k_count, seed * 8 + 2, stream);
    fill_normal_bf16(v.get(), k_count, seed * 8 + 3, stream);
    fill_normal_f32(gate.get(), rows, seed * 8 + 4, stream);
    for (const DeviceBuffer* b : {&o, &lse, &lse_skips, &o_window}) poison(b->get(), b->bytes(), stream);
  }
  PiAttentionForward tensors() const {
    PiAttentionForward t;
    t.q = q.get();
    t.k = k.get();
    t.v = v.get();
    t.gate_logit = gate.as<float>();
    t.o = o.get();
    t.lse = lse.as<float>();
    t.lse_skips = lse_skips.as<float>();
    t.o_window = o_window.get();
    return t;
  }
};

// The largest difference; -inf (a row without keys) must meet -inf.
double largest_difference(const Doubles& got, const Doubles& expected) {
  double largest = 0;
  for (size_t i = 0; i < expected.size(); ++i) {
    if (got[i] == expected[i]) continue;
    const double d = std::fabs(got[i] - expected[i]);
    if (!(d <= largest)) largest = d;
  }
  return largest;
}

void check(const PiAttentionShape& s, uint64_t seed) {
  INFO("n " << s.n << " heads " << s.heads << ":" << s.kv_heads << " d " << s.head_dim << " window " << s.window
            << " period " << s.period << " skips " << s.skips << (s.fusion == Fusion::joint ? " joint" : " gated")
            << " seed " << seed);
  const Problem p(s, seed);
  pi_attention_forward(s, p.tensors(), p.stream);
  const DeviceBuffer simple_o(p.q_count * 4), simple_lse(p.rows * 4), simple_lse_skips(p.rows * 4);
  PiAttentionForward t = p.tensors();
  t.lse = simple_lse.as<float>();
  t.lse_skips = simple_lse_skips.as<float>();
  pi_attention_simple(s, t, simple_o.as<float>(), p.stream);
  p.stream.sync();

  const Doubles o = download_bf16(p.o.get(), p.q_count), lse = download_f32(p.lse.get(), p.rows);
  const Difference all = difference(o, download_f32(simple_o.get(), p.q_count), s.head_dim);
  CHECK(all.norm < kNorm);
  CHECK(all.row_max < kRow);
  CHECK(largest_difference(lse, download_f32(simple_lse.get(), p.rows)) < kLse);
  if (s.has_skips() && s.skips > 1 && s.fusion == Fusion::gated) {
    CHECK(largest_difference(download_f32(p.lse_skips.get(), p.rows), download_f32(simple_lse_skips.get(), p.rows)) <
          kLse);
  }

  const Doubles q = download_bf16(p.q.get(), p.q_count), k = download_bf16(p.k.get(), p.k_count);
  const Doubles v = download_bf16(p.v.get(), p.k_count), gate = download_f32(p.gate.get(), p.rows);
  std::mt19937_64 random(seed);
  const int64_t keys = std::min(s.n, s.window + s.skips);
  const int64_t samples = std::clamp<int64_t>(10'000'000 / (keys * s.head_dim), 8, 200);  // rows
  for (int64_t i = 0; i < samples; ++i) {
    const auto head = static_cast<int64_t>(random() % static_cast<uint64_t>(s.heads));
    const int64_t token = i == 0 ? 0 : i == 1 ? s.n - 1 : static_cast<int64_t>(random() % static_cast<uint64_t>(s.n));
    const PiRow expected = reference_pi_row(s, q, k, v, gate, head, token);
    const auto row = o.begin() + (token * s.heads + head) * s.head_dim;
    INFO("head " << head << " token " << token);
    CHECK(difference(Doubles(row, row + s.head_dim), expected.o, s.head_dim).norm < kRow);
    CHECK_THAT(lse[static_cast<size_t>(head * s.n + token)], WithinAbs(expected.lse, kLse));
  }
}

PiAttentionShape shape(int64_t n, int64_t heads, int64_t kv_heads, int64_t d, int64_t window, int64_t period = 0,
                       int64_t skips = 0, Fusion fusion = Fusion::gated) {
  PiAttentionShape s;
  s.n = n;
  s.heads = heads;
  s.kv_heads = kv_heads;
  s.head_dim = d;
  s.window = window;
  s.period = period;
  s.skips = skips;
  s.fusion = fusion;
  return s;
}

// The gradients of a problem, poisoned until they are computed.
struct Gradients {
  const Problem& p;
  DeviceBuffer d_o, dq, dk, dv, d_gate, workspace;

  explicit Gradients(const Problem& problem, uint64_t seed)
      : p(problem),
        d_o(p.q_count * 2),
        dq(p.q_count * 2),
        dk(p.k_count * 2),
        dv(p.k_count * 2),
        d_gate(p.rows * 4),
        workspace(pi_attention_workspace(p.s)) {
    fill_normal_bf16(d_o.get(), p.q_count, seed * 8 + 5, p.stream);
  }
  void run() const {
    for (const DeviceBuffer* b : {&dq, &dk, &dv, &d_gate, &workspace}) poison(b->get(), b->bytes(), p.stream);
    PiAttentionBackward t;
    t.q = p.q.get();
    t.k = p.k.get();
    t.v = p.v.get();
    t.o = p.o.get();
    t.d_o = d_o.get();
    t.gate_logit = p.gate.as<float>();
    t.lse = p.lse.as<float>();
    t.lse_skips = p.lse_skips.as<float>();
    t.o_window = p.o_window.get();
    t.dq = dq.get();
    t.dk = dk.get();
    t.dv = dv.get();
    t.d_gate_logit = d_gate.as<float>();
    t.workspace = workspace.get();
    pi_attention_forward(p.s, p.tensors(), p.stream);
    pi_attention_backward(p.s, t, p.stream);
    p.stream.sync();
  }
};

void check_backward(const PiAttentionShape& s, uint64_t seed) {
  INFO("n " << s.n << " heads " << s.heads << ":" << s.kv_heads << " d " << s.head_dim << " window " << s.window
            << " period " << s.period << " skips " << s.skips << (s.fusion == Fusion::joint ? " joint" : " gated")
            << " seed " << seed);
  const Problem p(s, seed);
  const Gradients g(p, seed);
  g.run();
  const PiGradients expected = reference_pi_backward(
      s, download_bf16(p.q.get(), p.q_count), download_bf16(p.k.get(), p.k_count), download_bf16(p.v.get(), p.k_count),
      download_f32(p.gate.get(), p.rows), download_bf16(g.d_o.get(), p.q_count));
  const Difference dq = difference(download_bf16(g.dq.get(), p.q_count), expected.dq, s.head_dim);
  const Difference dk = difference(download_bf16(g.dk.get(), p.k_count), expected.dk, s.head_dim);
  const Difference dv = difference(download_bf16(g.dv.get(), p.k_count), expected.dv, s.head_dim);
  INFO("rows: dq " << dq.row_max << " dk " << dk.row_max << " dv " << dv.row_max);
  // The softmax over one key is constant: the gradients of its score are 0, and what comes out is rounding.
  const bool scored_skips = s.has_skips() && (s.skips > 1 || s.fusion == Fusion::joint);
  if ((s.window == 1 || s.n == 1) && !scored_skips) {
    for (const Doubles& zero : {download_bf16(g.dq.get(), p.q_count), download_bf16(g.dk.get(), p.k_count)}) {
      CHECK(largest_difference(zero, Doubles(zero.size())) < 0.1);
    }
  } else {
    CHECK(dq.norm < kNorm);
    CHECK(dk.norm < kNorm);
  }
  CHECK(dv.norm < kNorm);
  CHECK(dv.row_max < kRow);
  if (s.fusion == Fusion::gated && s.has_skips()) {
    CHECK(difference(download_f32(g.d_gate.get(), p.rows), expected.d_gate_logit, 1).norm < kNorm);
  }
}

// Windows and periods in every relation to each other and to n; grouped-query ratios 1 to 8.
PiAttentionShape random_shape(std::mt19937_64& random) {
  auto uniform = [&](int64_t low, int64_t high) {
    return low + static_cast<int64_t>(random() % static_cast<uint64_t>(high - low + 1));
  };
  const int64_t size = uniform(0, 3);
  const int64_t n = size == 0   ? uniform(1, 70)
                    : size == 1 ? uniform(1, 400)
                    : size == 2 ? uniform(100, 1500)
                                : uniform(1500, 5000);
  const int64_t kv_heads = uniform(1, 2), ratio = n > 1500 ? uniform(1, 3) : uniform(1, 8);
  const int64_t windows[] = {
      1, uniform(1, 64), 128 * uniform(1, 4), uniform(1, n), n + uniform(0, 10), uniform(100, 1100)};
  const int64_t k = windows[uniform(0, 5)];
  const int64_t periods[] = {k,
                             std::max<int64_t>(1, k - 1),
                             k + 1,
                             n + uniform(0, 5),
                             uniform(1, 16),
                             uniform(1, n),
                             std::max<int64_t>(1, k / uniform(1, 5))};
  const int64_t skips[] = {0, 1, 1, uniform(2, 12), 10000};
  return shape(n, kv_heads * ratio, kv_heads, uniform(0, 1) ? 128 : 64, k, periods[uniform(0, 6)], skips[uniform(0, 4)],
               uniform(0, 1) ? Fusion::joint : Fusion::gated);
}

}  // namespace

TEST_CASE("pi-attention at the edges of its tiles") {
  for (int64_t d : {64, 128}) {
    for (int64_t n : {1, 64, 65, 128, 129, 300}) {
      for (int64_t k : {1, 64, 128, 129, 256}) check(shape(n, 2, 1, d, k), 1);
    }
    for (Fusion fusion : {Fusion::gated, Fusion::joint}) {
      for (int64_t period : {1, 63, 64, 99, 100, 128, 299}) {
        for (int64_t skips : {1, 2, 1000}) check(shape(300, 2, 1, d, 100, period, skips, fusion), 2);
      }
    }
  }
}

TEST_CASE("pi-attention on random shapes") {
  const char* count = std::getenv("ORRERY_PI_SHAPES");
  std::mt19937_64 random(7);
  for (int i = 0; i < (count ? std::atoi(count) : 300); ++i)
    check(random_shape(random), 100 + static_cast<uint64_t>(i));
}

TEST_CASE("the gradients of pi-attention at the edges of its tiles") {
  for (int64_t d : {64, 128}) {
    for (int64_t n : {1, 64, 65, 129, 300}) {
      for (int64_t k : {1, 64, 129, 256}) check_backward(shape(n, 2, 1, d, k), 1);
    }
    for (Fusion fusion : {Fusion::gated, Fusion::joint}) {
      for (int64_t period : {1, 63, 100, 128, 299}) {
        for (int64_t skips : {1, 2, 1000}) check_backward(shape(300, 2, 1, d, 100, period, skips, fusion), 2);
      }
    }
  }
}

TEST_CASE("the gradients of pi-attention on random shapes") {
  const char* count = std::getenv("ORRERY_PI_SHAPES");
  std::mt19937_64 random(8);
  for (int i = 0; i < (count ? std::atoi(count) : 100);) {
    const PiAttentionShape s = random_shape(random);
    if (s.n > 700) continue;  // the reference takes seconds
    check_backward(s, 500 + static_cast<uint64_t>(i++));
  }
  if (!count) check_backward(shape(3000, 2, 1, 128, 700, 900, 1), 9);
}

TEST_CASE("scores far above and far below one another keep their softmax") {
  // Keys that grow with their index by a factor of 100 overall: the reference of the softmax must move within a row.
  const PiAttentionShape s = shape(600, 1, 1, 128, 500);
  Problem p(s, 3);
  Doubles k = download_bf16(p.k.get(), p.k_count);
  std::vector<uint16_t> scaled(p.k_count);
  for (int64_t descending : {0, 1}) {
    for (size_t i = 0; i < p.k_count; ++i) {
      const double token = static_cast<double>(i / 128);
      const auto x = static_cast<float>(k[i] * 0.1 * std::exp2((descending ? 600 - token : token) / 90));
      uint32_t bits;
      std::memcpy(&bits, &x, 4);
      scaled[i] = static_cast<uint16_t>(bits >> 16);
    }
    ORRERY_CUDA(cudaMemcpy(p.k.get(), scaled.data(), scaled.size() * 2, cudaMemcpyHostToDevice));
    const DeviceBuffer simple_o(p.q_count * 4), simple_lse(p.rows * 4);
    PiAttentionForward t = p.tensors();
    pi_attention_forward(s, t, p.stream);
    t.lse = simple_lse.as<float>();
    t.lse_skips = nullptr;
    pi_attention_simple(s, t, simple_o.as<float>(), p.stream);
    p.stream.sync();
    const Difference d =
        difference(download_bf16(p.o.get(), p.q_count), download_f32(simple_o.get(), p.q_count), s.head_dim);
    CHECK(d.norm < kNorm);
    CHECK(d.row_max < kRow);
  }
}

TEST_CASE("a hundred runs of pi-attention give the same bits") {
  for (Fusion fusion : {Fusion::gated, Fusion::joint}) {
    for (int64_t skips : {1, 1000}) {
      const Problem p(shape(3000, 4, 2, 128, 700, 800, skips, fusion), 4);
      pi_attention_forward(p.s, p.tensors(), p.stream);
      p.stream.sync();
      std::vector<uint16_t> first(p.q_count), again(p.q_count);
      ORRERY_CUDA(cudaMemcpy(first.data(), p.o.get(), p.q_count * 2, cudaMemcpyDeviceToHost));
      int different = 0;
      for (int i = 0; i < 100; ++i) {
        poison(p.o.get(), p.o.bytes(), p.stream);
        pi_attention_forward(p.s, p.tensors(), p.stream);
        p.stream.sync();
        ORRERY_CUDA(cudaMemcpy(again.data(), p.o.get(), p.q_count * 2, cudaMemcpyDeviceToHost));
        different += again != first;
      }
      CHECK(different == 0);

      const Gradients g(p, 4);
      std::vector<char> gradients, gradients_again;
      different = 0;
      for (int i = 0; i < 100; ++i) {
        g.run();
        gradients_again.clear();
        for (const DeviceBuffer* b : {&g.dq, &g.dk, &g.dv}) {
          const size_t from = gradients_again.size();
          gradients_again.resize(from + b->bytes());
          ORRERY_CUDA(cudaMemcpy(&gradients_again[from], b->get(), b->bytes(), cudaMemcpyDeviceToHost));
        }
        if (i == 0) gradients = gradients_again;
        different += gradients_again != gradients;
      }
      CHECK(different == 0);
    }
  }
}

TEST_CASE("ring blocks merge in place into what one block over all keys gives") {
  for (int64_t d : {64, 128}) {
    for (bool causal : {false, true}) {
      for (int64_t n : {100, 256, 1000}) {
        // Two blocks of keys: all of the first are visible, of the second all or those of a causal diagonal.
        AttentionShape whole;
        whole.n_q = n;
        whole.n_k = 2 * n;
        whole.heads = 4;
        whole.kv_heads = 2;
        whole.head_dim = d;
        whole.mask = causal ? Mask::causal : Mask::full;
        const auto q_count = static_cast<size_t>(n * 4 * d), k_count = static_cast<size_t>(2 * n * 2 * d);
        const DeviceBuffer q(q_count * 2), k(k_count * 2), v(k_count * 2), o(q_count * 4),
            lse(static_cast<size_t>(n) * 16);
        const Stream stream;
        fill_normal_bf16(q.get(), q_count, 1, stream);
        fill_normal_bf16(k.get(), k_count, 2, stream);
        fill_normal_bf16(v.get(), k_count, 3, stream);
        poison(o.get(), o.bytes(), stream);
        poison(lse.get(), lse.bytes(), stream);
        RingBlockShape block;
        block.n_q = block.n_k = n;
        block.heads = 4;
        block.kv_heads = 2;
        block.head_dim = d;
        const auto half = static_cast<size_t>(k_count);  // bytes of one block of keys
        ring_block_forward(block, q.get(), k.get(), v.get(), o.as<float>(), lse.as<float>(), true, stream);
        block.causal = causal;
        ring_block_forward(block, q.get(), k.as<char>() + half, v.as<char>() + half, o.as<float>(), lse.as<float>(),
                           false, stream);
        stream.sync();
        const ReferenceForward expected = reference_forward(
            whole, download_bf16(q.get(), q_count), download_bf16(k.get(), k_count), download_bf16(v.get(), k_count));
        INFO("n " << n << " d " << d << " causal " << causal);
        const Difference e = difference(download_f32(o.get(), q_count), expected.o, d);
        CHECK(e.norm < kNorm);
        CHECK(e.row_max < kRow);
        CHECK(largest_difference(download_f32(lse.get(), static_cast<size_t>(n) * 4), expected.lse) < kLse);
      }
    }
  }
}

TEST_CASE("what the pi-attention kernels cannot take is refused with its limit before anything is launched") {
  const Problem p(shape(64, 2, 1, 128, 32, 40, 1), 5);
  auto refused = [&](auto change, const char* message) {
    PiAttentionShape s = p.s;
    PiAttentionForward t = p.tensors();
    change(s, t);
    CHECK_THROWS_WITH(pi_attention_forward(s, t, p.stream), ContainsSubstring(message));
  };
  refused([](auto& s, auto&) { s.head_dim = 96; }, "64 or 128");
  refused([](auto& s, auto&) { s.heads = 3, s.kv_heads = 2; }, "multiple of kv_heads");
  refused([](auto& s, auto&) { s.n = int64_t{1} << 30; }, "2^29");
  refused([](auto& s, auto&) { s.window = 0; }, "at least 1");
  refused([](auto& s, auto&) { s.period = 0; }, "period");
  refused([](auto&, auto& t) { t.q = static_cast<const char*>(t.q) + 2; }, "16 bytes");
  refused([](auto&, auto& t) { t.gate_logit = nullptr; }, "gate_logit");
  refused([](auto& s, auto& t) { s.skips = 2, s.period = 20, t.lse_skips = nullptr; }, "lse_skips");
  ORRERY_CUDA(cudaDeviceSynchronize());
  CHECK(count_nonfinite_bf16(p.o.get(), p.q_count, p.stream) == p.q_count);  // still poisoned
}
