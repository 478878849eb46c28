// Group `attention`: blocks as a ring step sees them, through cuDNN. The columns are those of a run that
// `orrery validate` reads, with schedule = kernel.
#include <algorithm>
#include <array>
#include <cmath>
#include <random>

#include "kernels/table.hpp"

#if ORRERY_HAVE_CUDNN
#include "kernels/attention_check.hpp"
#include "kernels/attention_op.hpp"
#endif

namespace orrery {
namespace {

std::vector<std::string> attention_columns() {
  return result_columns(
      "ms", {"implementation", "backend", "gpu", "link", "n_gpu", "seq_len", "heads", "kv_heads", "head_dim", "causal",
             "layout", "schedule", "pass", "time_ms", "n_q", "n_k", "mask", "window"});
}

#if ORRERY_HAVE_CUDNN

struct Buffers {
  DeviceBuffer q, k, v, o, lse, d_o, dq, dk, dv;

  Buffers(const AttentionShape& s, bool backward, uint64_t seed, cudaStream_t stream) {
    const auto q_count = static_cast<size_t>(s.n_q * s.heads * s.head_dim);
    const auto k_count = static_cast<size_t>(s.n_k * s.kv_heads * s.head_dim);
    auto random = [&](DeviceBuffer& b, size_t count, uint64_t salt) {
      b = DeviceBuffer(count * 2);
      fill_normal_bf16(b.get(), count, seed * 16 + salt, stream);
    };
    auto empty = [&](DeviceBuffer& b, size_t bytes) {
      b = DeviceBuffer(bytes);
      poison(b.get(), bytes, stream);
    };
    random(q, q_count, 1);
    random(k, k_count, 2);
    random(v, k_count, 3);
    empty(o, q_count * 2);
    empty(lse, static_cast<size_t>(s.n_q * s.heads) * 4);
    if (!backward) return;
    random(d_o, q_count, 4);
    empty(dq, q_count * 2);
    empty(dk, k_count * 2);
    empty(dv, k_count * 2);
  }
};

Outcome run_attention(Rig& rig, const AttentionShape& s, Pass pass, bool warm) {
  const bool backward = pass == Pass::backward;
  const double footprint = backward ? s.backward_bytes() : s.forward_bytes();
  const int sets = warm ? 1 : rotation_sets(rig, footprint);
  std::vector<std::unique_ptr<Buffers>> data;
  std::vector<std::unique_ptr<AttentionForward>> forward;
  std::vector<std::unique_ptr<AttentionBackward>> gradient;
  for (int i = 0; i < sets; ++i) {
    data.emplace_back(new Buffers(s, backward, static_cast<uint64_t>(i) + 1, rig.stream));
    Buffers& b = *data.back();
    forward.emplace_back(new AttentionForward(s, rig.device, b.q.get(), b.k.get(), b.v.get(), b.lse.get(), b.o.get()));
    forward.back()->run(rig.stream);
    if (!backward) continue;
    gradient.emplace_back(new AttentionBackward(s, rig.device, b.q.get(), b.k.get(), b.v.get(), b.o.get(), b.d_o.get(),
                                                b.lse.get(), b.dq.get(), b.dk.get(), b.dv.get()));
    gradient.back()->run(rig.stream);
  }
  rig.stream.sync();
  const Buffers& b = *data.front();
  Difference error = check_forward(s, b.q.get(), b.k.get(), b.v.get(), b.o.get(), b.lse.get());
  const auto q_count = static_cast<size_t>(s.n_q * s.heads * s.head_dim);
  const auto k_count = static_cast<size_t>(s.n_k * s.kv_heads * s.head_dim);
  size_t unwritten = count_nonfinite_bf16(b.o.get(), q_count, rig.stream) +
                     count_nonfinite_f32(b.lse.get(), static_cast<size_t>(s.n_q * s.heads), rig.stream);
  if (backward) {
    error = worst(error, check_backward(s, b.q.get(), b.k.get(), b.v.get(), b.o.get(), b.d_o.get(), b.lse.get(),
                                        b.dq.get(), b.dk.get(), b.dv.get()));
    unwritten += count_nonfinite_bf16(b.dq.get(), q_count, rig.stream) +
                 count_nonfinite_bf16(b.dk.get(), k_count, rig.stream) +
                 count_nonfinite_bf16(b.dv.get(), k_count, rig.stream);
  }
  if (unwritten) throw BenchError(std::to_string(unwritten) + " outputs were not written or are not finite");
  Work work;
  work.sets = sets;
  work.warm = warm;
  work.launch = [&](cudaStream_t stream, int set) {
    if (backward) {
      gradient[static_cast<size_t>(set)]->run(stream);
    } else {
      forward[static_cast<size_t>(set)]->run(stream);
    }
  };
  const double flops = backward ? s.backward_flops() : s.forward_flops();
  return both_regimes(
      rig, work, "ms", checked(error, kBf16Tolerance), [&](double us) { return flops / us * 1e-6; }, "TFLOP/s");
}

// Why a shape that an earlier list names is measured again.
struct Repeat {
  bool warm = false;   // with what it reads in L2
  bool again = false;  // beside others of its list
};

void add(Table& table, const AttentionShape& s, Pass pass, bool quick, Repeat repeat = {}) {
  const bool backward = pass == Pass::backward;
  Row row;
  row.group = "attention";
  row.name = std::string("attention/") + (backward ? "backward/" : "forward/") + to_string(s.mask) + "/h" +
             std::to_string(s.heads) + "x" + std::to_string(s.kv_heads) + "/d" + std::to_string(s.head_dim) + "/q" +
             std::to_string(s.n_q) + "/k" + std::to_string(s.n_k) +
             (s.mask == Mask::window ? "/w" + std::to_string(s.window) : "");
  for (const Row& other : table.rows) {
    if (!repeat.again && !repeat.warm && other.name == row.name) return;  // several lists of shapes below may name one
  }
  row.what = backward ? "gradients of one block from O, dO and LSE, bf16" : "one block with log-sum-exp, bf16";
  row.flops = backward ? s.backward_flops() : s.forward_flops();
  row.bytes = backward ? s.backward_bytes() : s.forward_bytes();
  row.quick = quick;
  row.expected_s = 0.86 + 20e-15 * row.flops;
  row.keys = {{"implementation", "orrery_bench"},
              {"backend", "cudnn"},
              {"gpu", table.gpu},
              {"link", "none"},
              {"n_gpu", "1"},
              {"seq_len", std::to_string(s.n_k)},
              {"heads", std::to_string(s.heads)},
              {"kv_heads", std::to_string(s.kv_heads)},
              {"head_dim", std::to_string(s.head_dim)},
              {"causal", s.mask == Mask::full ? "false" : "true"},
              {"layout", "contiguous"},
              {"schedule", "kernel"},
              {"pass", backward ? "backward" : "forward"},
              {"n_q", std::to_string(s.n_q)},
              {"n_k", std::to_string(s.n_k)},
              {"mask", to_string(s.mask)},
              {"window", s.mask == Mask::window ? std::to_string(s.window) : ""}};
  row.run = [s, pass, warm = repeat.warm](Rig& rig) { return run_attention(rig, s, pass, warm); };
  row.prepare = [s, pass](int device) {
    attention_plan({s, Pass::forward}, device);
    if (pass == Pass::backward) attention_plan({s, pass}, device);
  };
  table.rows.push_back(std::move(row));
}

AttentionShape shape(int64_t n_q, int64_t n_k, int64_t heads, int64_t kv_heads, int64_t d, Mask mask,
                     int64_t window = 0) {
  AttentionShape s;
  s.n_q = n_q;
  s.n_k = n_k;
  s.heads = heads;
  s.kv_heads = kv_heads;
  s.head_dim = d;
  s.mask = mask;
  s.window = window;
  return s;
}

void add_shapes(Table& table) {
  constexpr int64_t K = 1024;
  auto both = [&](const AttentionShape& s, bool quick = false) {
    add(table, s, Pass::forward, quick);
    add(table, s, Pass::backward, quick);
  };
  // Square blocks: the ring step of a layer with 32 heads of 128 (LLaMA-2 7B), and its diagonal.
  for (int64_t n : {K / 2, K, 2 * K, 4 * K, 8 * K, 16 * K, 32 * K}) {
    for (Mask mask : {Mask::full, Mask::causal}) both(shape(n, n, 32, 32, 128, mask), n == 2 * K || n == 8 * K);
  }
  // The shapes of the public cuDNN 9.19 runs on H200 (64 query heads, 8 key heads), for comparison.
  for (int64_t n : {2 * K, 4 * K, 8 * K, 16 * K, 32 * K}) {
    for (Mask mask : {Mask::full, Mask::causal}) both(shape(n, n, 64, 8, 128, mask), n == 8 * K);
  }
  // The FlashAttention-3 paper's 16K-token rows (hidden size 2048).
  for (Mask mask : {Mask::full, Mask::causal}) {
    both(shape(16 * K, 16 * K, 16, 16, 128, mask));
    both(shape(16 * K, 16 * K, 32, 32, 64, mask));
  }
  // Rectangular blocks of a grouped-query layer (Llama-3 8B), and the half blocks of the zigzag layout.
  for (int64_t n_q : {K / 2, 2 * K, 8 * K, 32 * K}) {
    for (int64_t n_k : {K / 2, 2 * K, 8 * K, 32 * K})
      both(shape(n_q, n_k, 32, 8, 128, Mask::full), n_q == 2 * K && n_k == 8 * K);
  }
  for (int64_t n_q : {K, 4 * K, 16 * K}) {
    for (int64_t n_k : {K, 4 * K, 16 * K}) both(shape(n_q, n_k, 32, 8, 128, Mask::full));
  }
  for (int64_t n : {K, 2 * K, 4 * K, 8 * K, 16 * K}) both(shape(n, n, 32, 8, 128, Mask::causal));
  for (int64_t n : {K, 4 * K, 16 * K}) {
    both(shape(n, n / 2, 32, 32, 128, Mask::full));
    both(shape(n / 2, n, 32, 32, 128, Mask::full));
  }
  // Few and many heads: grids of 32 to 2048 tiles of 128 rows. (A rank of Ulysses holds few heads.)
  for (int64_t heads : {4, 16, 64}) {
    for (int64_t n : {K, 4 * K}) both(shape(n, n, heads, heads, 128, Mask::full));
    both(shape(4 * K, 4 * K, heads, heads, 128, Mask::causal));
  }
  for (Mask mask : {Mask::full, Mask::causal}) both(shape(32 * K, 32 * K, 4, 1, 128, mask));
  // Whole waves of 128-row tiles on 132 SMs (33 heads of 2K tokens are 4 x 132), and one wave more.
  for (int64_t heads : {33, 34}) {
    for (int64_t n_k : {K / 2, 2 * K, 8 * K}) both(shape(2 * K, n_k, heads, heads, 128, Mask::full));
  }
  // d = 64.
  for (int64_t n : {K / 2, K, 2 * K, 4 * K, 8 * K}) {
    for (Mask mask : {Mask::full, Mask::causal}) both(shape(n, n, 32, 32, 64, mask), n == 4 * K);
  }
  for (int64_t n_q : {K / 2, 2 * K, 8 * K}) {
    for (int64_t n_k : {2 * K, 8 * K}) both(shape(n_q, n_k, 32, 8, 64, Mask::full));
  }
  // Windows: three radii, the public rows (window 1024; 64:8 heads), and with a halo (n_k = n_q + window).
  for (int64_t k : {256, 1024, 4096}) both(shape(16 * K, 16 * K, 32, 32, 128, Mask::window, k), k == 1024);
  both(shape(32 * K, 32 * K, 64, 8, 128, Mask::window, 1024));
  both(shape(32 * K, 32 * K, 128, 16, 64, Mask::window, 1024));
  both(shape(8 * K, 9 * K, 32, 32, 128, Mask::window, 1024));
  both(shape(128 * K, 128 * K, 32, 32, 128, Mask::window, 1024));
  // Lengths that are no multiple of a tile's 128 rows.
  const size_t in_full = table.rows.size();
  for (int64_t n : {1056, 1088, 1120, 1152, 4112, 4160, 4224}) {
    for (Mask mask : {Mask::full, Mask::causal}) both(shape(n, n, 32, 32, 128, mask));
  }
  // d = 96 (Phi-3, GPT-3 medium): nearer to 128 than halfway from 64.
  for (int64_t n : {K / 2, K, 2 * K, 4 * K, 8 * K, 16 * K}) {
    for (Mask mask : {Mask::full, Mask::causal}) both(shape(n, n, 32, 32, 96, mask));
  }
  for (int64_t n_q : {K / 2, 2 * K, 8 * K}) {
    for (int64_t n_k : {2 * K, 8 * K}) both(shape(n_q, n_k, 32, 8, 96, Mask::full));
  }
  for (Mask mask : {Mask::full, Mask::causal}) both(shape(8 * K, 8 * K, 28, 4, 96, mask));
  both(shape(32 * K, 32 * K, 64, 8, 96, Mask::window, 1024));
  for (size_t i = in_full; i < table.rows.size(); ++i) table.rows[i].in_full = false;
}

// Rows from `first` on are measured by their name only, which gets `prefix` behind the group's.
void only_by_name(Table& table, size_t first, const std::string& prefix) {
  for (size_t i = first; i < table.rows.size(); ++i) {
    table.rows[i].in_full = false;
    table.rows[i].name.insert(std::string("attention").size(), "/" + prefix);
  }
}

// Blocks that nobody chose: 512 to 16K tokens, 1 to 32 key heads, for each up to 8 query heads.
void add_any_shapes(Table& table, const std::string& prefix, uint64_t seed) {
  const size_t first = table.rows.size();
  std::mt19937_64 random(seed);
  const auto length = [&] {
    const double uniform = static_cast<double>(random() >> 11) * 0x1p-53;
    const int64_t multiple = std::array{32, 64, 128}[random() % 3];
    return static_cast<int64_t>(512 * std::pow(32, uniform)) / multiple * multiple;
  };
  for (int i = 0; i < 64; ++i) {
    const int64_t kv_heads = int64_t{1} << random() % 6;
    const int64_t group = std::array{1, 2, 3, 4, 5, 7, 8}[random() % 7];
    const int64_t heads = kv_heads * group > 128 ? kv_heads : kv_heads * group;
    const int64_t d = std::array{64, 96, 128, 128}[random() % 4];
    const Mask mask = std::array{Mask::full, Mask::causal, Mask::full, Mask::window}[static_cast<size_t>(i % 4)];
    const int64_t n_q = length(), n_k = length(), window = n_k / 4;
    for (Pass pass : {Pass::forward, Pass::backward}) {
      add(table, shape(n_q, mask == Mask::full ? n_k : n_q, heads, kv_heads, d, mask, window), pass, false);
    }
  }
  only_by_name(table, first, prefix);
}
// Windows of every width over 66 tiles of 128 rows and 32 heads, which are 16 whole waves on 132 SMs; over few lists;
// and where the keys end inside a tile.
void add_windows(Table& table) {
  constexpr int64_t K = 1024;
  const size_t first = table.rows.size();
  auto both = [&](int64_t n, int64_t heads, int64_t kv_heads, int64_t d, Mask mask, int64_t window = 0) {
    for (Pass pass : {Pass::forward, Pass::backward}) {
      add(table, shape(n, n, heads, kv_heads, d, mask, window), pass, false);
    }
  };
  for (int64_t d : {64, 96, 128}) {
    const int64_t n = 66 * 128;
    for (int64_t w : {64, 128, 160, 192, 256, 320, 384, 512, 640, 768}) both(n, 32, 32, d, Mask::window, w);
    for (int64_t w : {1, 2, 3, 4, 6}) both(n, 32, 32, d, Mask::window, w * K);
    for (int64_t w : {3 * K / 2, n, 2 * n}) both(n, 32, 32, d, Mask::window, w);
    for (Mask mask : {Mask::full, Mask::causal}) both(n, 32, 32, d, mask);
    for (int64_t odd : {8352, 8384, 8416}) {
      for (int64_t w : {128, 184, 512, 2048, 16384}) both(odd, 32, 32, d, Mask::window, w);
    }
    for (int64_t w : {128, 512, 2048}) {
      for (int64_t odd : {800, 1376}) both(odd, 16, 4, d, Mask::window, w);
      both(8384, 32, 8, d, Mask::window, w);
    }
  }
  for (int64_t n : {3 * K / 4, K, 3 * K / 2, 2 * K, 4 * K}) {
    for (int64_t w : {K / 8, K / 4, K / 2, K, 2 * n}) both(n, 16, 16, 128, Mask::window, w);
    for (int64_t w : {K / 8, K / 2, 2 * n}) both(n, 16, 4, 64, Mask::window, w);
    both(n, 16, 4, 96, Mask::window, 2 * n);
  }
  only_by_name(table, first, "windows");
}

// Blocks so short that launches and first loads count: from HBM, and from an L2 that the last launch left.
void add_short(Table& table, bool warm) {
  constexpr int64_t K = 1024;
  const size_t first = table.rows.size();
  for (int64_t d : {64, 128}) {
    for (int64_t n : {K / 2, 5 * K / 8, K, 2 * K}) {
      for (auto [heads, kv_heads] : {std::pair{4, 4}, {8, 2}, {24, 8}, {24, 24}}) {
        for (Mask mask : {Mask::full, Mask::causal}) {
          for (Pass pass : {Pass::forward, Pass::backward}) {
            add(table, shape(n, n, heads, kv_heads, d, mask), pass, false, Repeat{warm, false});
          }
        }
      }
    }
  }
  only_by_name(table, first, warm ? "warm" : "short");
}

// Backward blocks of many queries and few keys, and blocks that end inside a tile of keys or of queries.
void add_few_keys(Table& table) {
  constexpr int64_t K = 1024;
  const size_t first = table.rows.size();
  for (int64_t n_q : {2 * K, 8 * K}) {
    for (int64_t n_k : {K / 2, K, 2 * K}) {
      for (auto [heads, kv_heads] : {std::pair{16, 16}, {16, 4}, {64, 16}}) {
        add(table, shape(n_q, n_k, heads, kv_heads, 64, Mask::full), Pass::backward, false);
      }
      add(table, shape(n_q, n_k, 16, 4, 128, Mask::full), Pass::backward, false);
    }
  }
  for (int64_t d : {64, 96, 128}) {
    for (auto [n_q, n_k] :
         {std::pair{1056, 1056}, {1088, 1088}, {4112, 4112}, {4160, 4160}, {4112, 4096}, {4096, 4112}}) {
      for (Pass pass : {Pass::forward, Pass::backward}) {
        add(table, shape(n_q, n_k, 32, 32, d, Mask::full), pass, false, Repeat{false, true});
      }
    }
    for (int64_t n : {1056, 1088, 4112, 4160}) {
      add(table, shape(n, n, 32, 32, d, Mask::causal), Pass::backward, false, Repeat{false, true});
    }
  }
  only_by_name(table, first, "few_keys");
}

// Blocks of more keys than queries, as ranks have them that gathered keys (causal) or a halo before their own rows
// (a window): ends aligned. The last ones nobody chose.
void add_rectangles(Table& table) {
  constexpr int64_t K = 1024;
  const size_t first = table.rows.size();
  auto both = [&](const AttentionShape& s) {
    for (Pass pass : {Pass::forward, Pass::backward}) add(table, s, pass, false);
  };
  for (auto [heads, kv_heads, d] : {std::array{32, 32, 128}, {32, 8, 128}, {32, 8, 64}}) {
    for (int64_t n : {K, 4 * K}) {
      for (int64_t n_k : {n + n / 2, 2 * n, 4 * n}) both(shape(n, n_k, heads, kv_heads, d, Mask::causal));
    }
    for (int64_t n : {2 * K, 4 * K, 8 * K, 16 * K}) {
      for (int64_t w : {K / 4, K, 4 * K}) both(shape(n, n + w, heads, kv_heads, d, Mask::window, w));
    }
  }
  std::mt19937_64 random(3);
  const auto length = [&](double octaves) {
    const double uniform = static_cast<double>(random() >> 11) * 0x1p-53;
    return static_cast<int64_t>(512 * std::exp2(octaves * uniform)) / 64 * 64;
  };
  for (int i = 0; i < 32; ++i) {
    const int64_t kv_heads = int64_t{1} << random() % 6;
    const int64_t heads = std::min<int64_t>(128, kv_heads * std::array{1, 2, 4, 8}[random() % 4]);
    const int64_t d = std::array{64, 96, 128, 128}[random() % 4];
    const int64_t n = length(5), more = length(4);
    both(shape(n, n + more, heads, kv_heads, d, i % 2 == 0 ? Mask::causal : Mask::window, more));
  }
  only_by_name(table, first, "rectangles");
}
#endif

}  // namespace

void add_attention_rows(Table& table) {
  Group group{"attention", "attention blocks through cuDNN", attention_columns(), ""};
#if ORRERY_HAVE_CUDNN
  add_shapes(table);
  add_any_shapes(table, "any", 1);
  add_any_shapes(table, "any_again", 2);
  add_windows(table);
  for (bool warm : {false, true}) add_short(table, warm);
  add_few_keys(table);
  add_rectangles(table);
#else
  group.missing = "built without cuDNN; its rows of pi_attention, overlap and power as well";
#endif
  table.groups.push_back(std::move(group));
}

}  // namespace orrery
