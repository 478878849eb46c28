// Group `pi_attention`: our kernels for pi-Attention and for the dense blocks of a ring with the merge inside, and
// beside them what cuDNN and a kernel of its own for the gate or the merge take.
#include <cmath>

#include "kernels/merge.hpp"
#include "kernels/pi_attention.hpp"
#include "kernels/pi_attention_reference.hpp"
#include "kernels/table.hpp"
#if ORRERY_HAVE_CUDNN
#include "kernels/attention_op.hpp"
#include "kernels/gate_skip.hpp"
#endif

namespace orrery {
namespace {

constexpr int64_t K = 1024;

size_t bytes_of(int64_t tokens, int64_t heads, int64_t head_dim) {
  return static_cast<size_t>(tokens * heads * head_dim) * 2;
}

struct PiBuffers {
  DeviceBuffer q, k, v, gate, o, lse, lse_skips, o_window, d_o, dq, dk, dv, d_gate, workspace;
  PiAttentionForward forward;
  PiAttentionBackward backward;

  PiBuffers(const PiAttentionShape& s, bool with_backward, uint64_t seed, cudaStream_t stream) {
    const size_t q_bytes = bytes_of(s.n, s.heads, s.head_dim), k_bytes = bytes_of(s.n, s.kv_heads, s.head_dim);
    const auto row_bytes = static_cast<size_t>(s.n * s.heads) * 4;
    auto random = [&](DeviceBuffer& b, size_t bytes, uint64_t salt) {
      b = DeviceBuffer(bytes);
      fill_normal_bf16(b.get(), bytes / 2, seed * 16 + salt, stream);
    };
    auto empty = [&](DeviceBuffer& b, size_t bytes) {
      b = DeviceBuffer(bytes);
      poison(b.get(), bytes, stream);
    };
    random(q, q_bytes, 1);
    random(k, k_bytes, 2);
    random(v, k_bytes, 3);
    gate = DeviceBuffer(row_bytes);
    fill_normal_f32(gate.get(), row_bytes / 4, seed * 16 + 4, stream);
    empty(o, q_bytes);
    empty(lse, row_bytes);
    empty(lse_skips, row_bytes);
    forward.q = q.get();
    forward.k = k.get();
    forward.v = v.get();
    forward.gate_logit = gate.as<float>();
    forward.o = o.get();
    forward.lse = lse.as<float>();
    forward.lse_skips = lse_skips.as<float>();
    if (!with_backward) return;
    random(d_o, q_bytes, 5);
    empty(o_window, q_bytes);
    empty(dq, q_bytes);
    empty(dk, k_bytes);
    empty(dv, k_bytes);
    empty(d_gate, row_bytes);
    workspace = DeviceBuffer(pi_attention_workspace(s));
    forward.o_window = o_window.get();
    backward.q = q.get();
    backward.k = k.get();
    backward.v = v.get();
    backward.o = o.get();
    backward.d_o = d_o.get();
    backward.gate_logit = gate.as<float>();
    backward.lse = lse.as<float>();
    backward.lse_skips = lse_skips.as<float>();
    backward.o_window = o_window.get();
    backward.dq = dq.get();
    backward.dk = dk.get();
    backward.dv = dv.get();
    backward.d_gate_logit = d_gate.as<float>();
    backward.workspace = workspace.get();
  }
};

// What forward left in o, against the simple kernel on every row.
Difference against_simple(const PiAttentionShape& s, const PiBuffers& b, cudaStream_t stream) {
  const auto count = static_cast<size_t>(s.n * s.heads * s.head_dim);
  const DeviceBuffer o(count * 4), lse(b.lse.bytes()), lse_skips(b.lse.bytes());
  PiAttentionForward t = b.forward;
  t.lse = lse.as<float>();
  t.lse_skips = lse_skips.as<float>();
  pi_attention_simple(s, t, o.as<float>(), stream);
  ORRERY_CUDA(cudaStreamSynchronize(stream));
  return difference(download_bf16(b.o.get(), count), download_f32(o.get(), count), s.head_dim);
}

// The same window and skips at a size that can be checked: forward against the simple kernel on every row, backward
// against double precision.
Difference check_pi(PiAttentionShape s, bool backward, cudaStream_t stream) {
  s.n = std::min<int64_t>(s.n, backward ? 1100 : 8192);
  s.kv_heads = s.kv_heads * 8 / s.heads;  // heads do not meet: 8 of them tell as much as all
  s.heads = 8;
  if (backward) {
    s.kv_heads = 1;
    s.heads = 1;
    s.period = std::min<int64_t>(s.period, 1024);  // the window, or inside the sequence
  }
  const PiBuffers b(s, backward, 9, stream);
  pi_attention_forward(s, b.forward, stream);
  if (!backward) return against_simple(s, b, stream);
  const auto count = static_cast<size_t>(s.n * s.heads * s.head_dim);
  pi_attention_backward(s, b.backward, stream);
  ORRERY_CUDA(cudaStreamSynchronize(stream));
  const PiGradients expected = reference_pi_backward(
      s, download_bf16(b.q.get(), count), download_bf16(b.k.get(), count), download_bf16(b.v.get(), count),
      download_f32(b.gate.get(), static_cast<size_t>(s.n)), download_bf16(b.d_o.get(), count));
  Difference worst;
  const std::pair<const DeviceBuffer*, const Doubles*> gradients[] = {
      {&b.dq, &expected.dq}, {&b.dk, &expected.dk}, {&b.dv, &expected.dv}};
  for (const auto& [got, want] : gradients) {
    const Difference d = difference(download_bf16(got->get(), count), *want, s.head_dim);
    worst.norm = std::max(worst.norm, d.norm);
    worst.row_max = std::max(worst.row_max, d.row_max);
  }
  return worst;
}

Outcome timed(Rig& rig, const std::function<void(cudaStream_t)>& launch, double flops, const Difference& error) {
  Work work;
  work.launch = [&](cudaStream_t stream, int) { launch(stream); };
  return both_regimes(
      rig, work, "ms", checked(error, kBf16Tolerance), [&](double us) { return flops / us * 1e-6; }, "TFLOP/s");
}

Outcome run_pi(Rig& rig, const PiAttentionShape& s, bool backward) {
  const Difference error = check_pi(s, backward, rig.stream);
  const PiBuffers b(s, backward, 1, rig.stream);
  pi_attention_forward(s, b.forward, rig.stream);
  if (backward) pi_attention_backward(s, b.backward, rig.stream);
  rig.stream.sync();
  size_t unwritten = count_nonfinite_bf16(b.o.get(), b.o.bytes() / 2, rig.stream);
  for (const DeviceBuffer* g : {&b.dq, &b.dk, &b.dv}) {
    if (backward) unwritten += count_nonfinite_bf16(g->get(), g->bytes() / 2, rig.stream);
  }
  if (unwritten) throw BenchError(std::to_string(unwritten) + " outputs were not written or are not finite");
  return timed(
      rig,
      [&](cudaStream_t stream) {
        backward ? pi_attention_backward(s, b.backward, stream) : pi_attention_forward(s, b.forward, stream);
      },
      backward ? s.backward_flops() : s.forward_flops(), error);
}

AttentionShape block_shape(int64_t n, bool causal) {
  AttentionShape s;
  s.n_q = s.n_k = n;
  s.heads = s.kv_heads = 32;
  s.mask = causal ? Mask::causal : Mask::full;
  return s;
}

struct BlockBuffers {
  DeviceBuffer q, k, v, o, lse, block, block_lse;

  BlockBuffers(const AttentionShape& s, cudaStream_t stream) {
    const auto count = static_cast<size_t>(s.n_q * s.heads * s.head_dim);
    const auto rows = static_cast<size_t>(s.n_q * s.heads);
    uint64_t seed = 30;
    for (DeviceBuffer* b : {&q, &k, &v}) {
      *b = DeviceBuffer(count * 2);
      fill_normal_bf16(b->get(), count, ++seed, stream);
    }
    o = DeviceBuffer(count * 4);
    lse = DeviceBuffer(rows * 4);
    fill_normal_f32(o.get(), count, ++seed, stream);
    fill_normal_f32(lse.get(), rows, ++seed, stream);
    block = DeviceBuffer(count * 2);
    block_lse = DeviceBuffer(rows * 4);
  }
};

RingBlockShape ring_block(const AttentionShape& s) {
  RingBlockShape r;
  r.n_q = s.n_q;
  r.n_k = s.n_k;
  r.heads = s.heads;
  r.kv_heads = s.kv_heads;
  r.head_dim = s.head_dim;
  r.causal = s.mask == Mask::causal;
  return r;
}

AttentionShape small_block(bool causal) {
  AttentionShape s = block_shape(500, causal);
  s.heads = s.kv_heads = 2;
  return s;
}

// A block merged into random (O, LSE), against double precision.
Difference check_block(const AttentionShape& s, const BlockBuffers& b, bool first,
                       const std::function<void(cudaStream_t)>& run, cudaStream_t stream) {
  const auto count = static_cast<size_t>(s.n_q * s.heads * s.head_dim), rows = static_cast<size_t>(s.n_q * s.heads);
  ORRERY_CUDA(cudaStreamSynchronize(stream));
  Doubles o = download_f32(b.o.get(), count), lse = download_f32(b.lse.get(), rows);
  ReferenceForward expected = reference_forward(s, download_bf16(b.q.get(), count), download_bf16(b.k.get(), count),
                                                download_bf16(b.v.get(), count));
  if (!first) reference_merge(expected.o, expected.lse, o, lse, s.head_dim, s.n_q, s.heads);
  run(stream);
  ORRERY_CUDA(cudaStreamSynchronize(stream));
  return difference(download_f32(b.o.get(), count), expected.o, s.head_dim);
}

Outcome run_block(Rig& rig, int64_t n, bool causal, bool first) {
  const auto run = [first](const AttentionShape& s, const BlockBuffers& b, cudaStream_t stream) {
    ring_block_forward(ring_block(s), b.q.get(), b.k.get(), b.v.get(), b.o.as<float>(), b.lse.as<float>(), first,
                       stream);
  };
  const AttentionShape small = small_block(causal), s = block_shape(n, causal);
  const BlockBuffers few(small, rig.stream), b(s, rig.stream);
  const Difference error = check_block(
      small, few, first, [&](cudaStream_t stream) { run(small, few, stream); }, rig.stream);
  return timed(
      rig, [&](cudaStream_t stream) { run(s, b, stream); }, s.forward_flops(), error);
}

#if ORRERY_HAVE_CUDNN
// cuDNN's block, then the merge kernel.
struct CudnnBlock {
  AttentionShape s;
  BlockBuffers b;
  AttentionForward forward;

  CudnnBlock(const AttentionShape& shape, int device, cudaStream_t stream)
      : s(shape),
        b(shape, stream),
        forward(shape, device, b.q.get(), b.k.get(), b.v.get(), b.block_lse.get(), b.block.get()) {}
  void run(cudaStream_t stream) const {
    MergeShape m;
    m.n_q = s.n_q;
    m.heads = s.heads;
    forward.run(stream);
    merge_block(m, b.o.as<float>(), b.lse.as<float>(), b.block.get(), b.block_lse.as<float>(), false, stream);
  }
};

Outcome run_cudnn_block(Rig& rig, int64_t n, bool causal) {
  const CudnnBlock small(small_block(causal), rig.device, rig.stream);
  const Difference error = check_block(
      small.s, small.b, false, [&](cudaStream_t stream) { small.run(stream); }, rig.stream);
  const CudnnBlock block(block_shape(n, causal), rig.device, rig.stream);
  return timed(
      rig, [&](cudaStream_t stream) { block.run(stream); }, block.s.forward_flops(), error);
}

AttentionShape window_shape(const PiAttentionShape& s) {
  AttentionShape a = block_shape(s.n, true);
  a.heads = s.heads;
  a.kv_heads = s.kv_heads;
  a.mask = Mask::window;
  a.window = s.window;
  return a;
}

// cuDNN's window, then the gate as a kernel of its own (it takes the gate itself, not its logit).
struct CudnnPi {
  PiBuffers b;
  GateSkip shape;
  DeviceBuffer gate;
  AttentionForward forward;

  CudnnPi(const PiAttentionShape& s, int device, cudaStream_t stream)
      : b(s, false, 1, stream),
        gate(b.gate.bytes()),
        forward(window_shape(s), device, b.q.get(), b.k.get(), b.v.get(), b.lse.get(), b.o.get()) {
    shape.n = s.n;
    shape.heads = s.heads;
    shape.kv_heads = s.kv_heads;
    shape.head_dim = s.head_dim;
    shape.period = shape.first_row = s.period;
    ORRERY_CUDA(cudaStreamSynchronize(stream));
    std::vector<float> gates;
    for (const double logit : download_f32(b.gate.get(), b.gate.bytes() / 4))
      gates.push_back(static_cast<float>(1 / (1 + std::exp(-logit))));
    ORRERY_CUDA(cudaMemcpy(gate.get(), gates.data(), gate.bytes(), cudaMemcpyHostToDevice));
  }
  void run(cudaStream_t stream) const {
    forward.run(stream);
    gate_skip(shape, b.o.get(), b.o.get(), b.v.get(), gate.as<float>(), stream);
  }
};

PiAttentionShape small_pi(PiAttentionShape s) {
  s.n = 2 * s.period;
  s.heads = s.kv_heads = 2;
  return s;
}

Outcome run_cudnn_pi(Rig& rig, const PiAttentionShape& s) {
  const CudnnPi small(small_pi(s), rig.device, rig.stream);
  small.run(rig.stream);
  const Difference error = against_simple(small_pi(s), small.b, rig.stream);
  const CudnnPi pi(s, rig.device, rig.stream);
  return timed(
      rig, [&](cudaStream_t stream) { pi.run(stream); }, s.forward_flops(), error);
}
#endif

Row& add(Table& table, const std::string& name, const std::string& what, const std::string& kernel, double flops,
         std::function<Outcome(Rig&)> run) {
  Row row;
  row.group = "pi_attention";
  row.name = "pi_attention/" + name;
  row.what = what;
  row.keys = {{"kernel", kernel}};
  row.flops = flops;
  row.expected_s = 1.2 + 20e-15 * flops;
  row.run = std::move(run);
  table.rows.push_back(std::move(row));
  return table.rows.back();
}

PiAttentionShape pi_shape(int64_t n, int64_t window, int64_t period = 0, int64_t skips = 0,
                          Fusion fusion = Fusion::gated) {
  PiAttentionShape s;
  s.n = n;
  s.heads = s.kv_heads = 32;
  s.window = window;
  s.period = period;
  s.skips = skips;
  s.fusion = fusion;
  return s;
}

void set_pi_keys(Row& row, const PiAttentionShape& s, bool backward) {
  const Fields keys = {{"pass", backward ? "backward" : "forward"},
                       {"n", std::to_string(s.n)},
                       {"heads", std::to_string(s.heads)},
                       {"kv_heads", std::to_string(s.kv_heads)},
                       {"head_dim", std::to_string(s.head_dim)},
                       {"window", std::to_string(s.window)},
                       {"period", std::to_string(s.period)},
                       {"skips", std::to_string(s.skips)},
                       {"fusion", s.skips == 0                ? ""
                                  : s.fusion == Fusion::joint ? "joint"
                                                              : "gated"}};
  row.keys.insert(row.keys.end(), keys.begin(), keys.end());
  row.bytes = backward ? 0 : s.forward_bytes();
}

void add_pi(Table& table, const PiAttentionShape& s, bool backward, bool quick = false) {
  const std::string name = std::string(backward ? "backward" : "forward") + "/h" + std::to_string(s.heads) + "x" +
                           std::to_string(s.kv_heads) + "/d" + std::to_string(s.head_dim) + "/n" + std::to_string(s.n) +
                           "/w" + std::to_string(s.window) +
                           (s.skips ? "/p" + std::to_string(s.period) + "x" + std::to_string(s.skips) +
                                          (s.fusion == Fusion::joint ? "/joint" : "/gated")
                                    : "");
  Row& row =
      add(table, name, "window and skips, Orrery's kernel", "orrery", backward ? s.backward_flops() : s.forward_flops(),
          [s, backward](Rig& rig) { return run_pi(rig, s, backward); });
  set_pi_keys(row, s, backward);
  row.quick = quick;
}

void add_blocks(Table& table) {
  for (bool causal : {false, true}) {
    const int64_t n = 8 * K;
    const std::string mask = causal ? "causal" : "full";
    auto keys = [&](Row& row) {
      const Fields fields = {{"pass", "forward"}, {"n", std::to_string(n)}, {"heads", "32"},
                             {"kv_heads", "32"},  {"head_dim", "128"},      {"mask", mask}};
      row.keys.insert(row.keys.end(), fields.begin(), fields.end());
    };
    const double flops = block_shape(n, causal).forward_flops();
    for (bool first : {true, false}) {
      keys(add(table, "ring_block/" + mask + (first ? "/first" : "/merged"),
               first ? "a dense block, O in fp32" : "a dense block merged in place with fp32 (O, LSE)",
               first ? "orrery_first" : "orrery_merged", flops,
               [n, causal, first](Rig& rig) { return run_block(rig, n, causal, first); }));
    }
#if ORRERY_HAVE_CUDNN
    Row& row = add(table, "ring_block/" + mask + "/cudnn", "cuDNN's block, then the merge kernel", "cudnn_and_merge",
                   flops, [n, causal](Rig& rig) { return run_cudnn_block(rig, n, causal); });
    keys(row);
    row.prepare = [n, causal](int device) {
      for (const AttentionShape& s : {small_block(causal), block_shape(n, causal)})
        attention_plan({s, Pass::forward}, device);
    };
#endif
  }
}

}  // namespace

void add_pi_attention_rows(Table& table) {
  table.groups.push_back({"pi_attention", "pi-Attention and dense ring blocks by Orrery's own Hopper kernels",
                          result_columns("ms", {"kernel", "pass", "n", "heads", "kv_heads", "head_dim", "mask",
                                                "window", "period", "skips", "fusion"}),
                          ""});
  for (int64_t n : {32 * K, 128 * K, 512 * K, 1024 * K}) add_pi(table, pi_shape(n, K, 4 * K, 1), false, n == 128 * K);
  for (int64_t k : {256, 4096}) add_pi(table, pi_shape(128 * K, k, 8 * K, 1), false);
  add_pi(table, pi_shape(128 * K, K), false);
  add_pi(table, pi_shape(128 * K, K, 4 * K, 1, Fusion::joint), false);
  add_pi(table, pi_shape(128 * K, K, 256, 128 * K), false);
  for (int64_t d : {64, 128}) {
    PiAttentionShape s = pi_shape(128 * K, K, 4 * K, 1);
    s.head_dim = d;
    s.kv_heads = d == 128 ? 8 : 32;
    add_pi(table, s, false);
  }
  add_pi(table, pi_shape(128 * K, K, 4 * K, 1), true);
  add_pi(table, pi_shape(128 * K, K), true);
  add_blocks(table);
#if ORRERY_HAVE_CUDNN
  const PiAttentionShape s = pi_shape(128 * K, K, 4 * K, 1);
  Row& row = add(table, "cudnn/n131072/w1024/p4096x1", "cuDNN's window, then the gate kernel", "cudnn_and_gate",
                 s.forward_flops(), [s](Rig& rig) { return run_cudnn_pi(rig, s); });
  set_pi_keys(row, s, false);
  row.prepare = [s](int device) {
    for (const PiAttentionShape& shape : {small_pi(s), s}) attention_plan({window_shape(shape), Pass::forward}, device);
  };
#endif
}

}  // namespace orrery
