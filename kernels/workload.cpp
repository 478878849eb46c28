#include "kernels/workload.hpp"

#include "kernels/elementwise.hpp"
#include "kernels/gemm.hpp"
#include "kernels/merge.hpp"
#if ORRERY_HAVE_CUDNN
#include "kernels/attention_op.hpp"
#endif

namespace orrery {
namespace {

DeviceBuffer random_bf16(size_t count, uint64_t seed, cudaStream_t stream) {
  DeviceBuffer b(count * 2);
  fill_normal_bf16(b.get(), count, seed, stream);
  return b;
}

#if ORRERY_HAVE_CUDNN
AttentionShape attention_shape(bool backward) {
  AttentionShape s;
  s.n_q = s.n_k = backward ? 4096 : 8192;
  s.heads = s.kv_heads = 32;
  return s;
}

std::shared_ptr<Workload> make_attention(bool backward, int device, cudaStream_t stream) {
  struct State : Workload {
    DeviceBuffer q, k, v, o, lse, d_o, dq, dk, dv;
    std::unique_ptr<AttentionForward> forward;
    std::unique_ptr<AttentionBackward> gradient;
  };
  const AttentionShape s = attention_shape(backward);
  const auto n = static_cast<size_t>(s.n_q * s.heads * s.head_dim);
  auto w = std::make_shared<State>();
  w->q = random_bf16(n, 1, stream);
  w->k = random_bf16(n, 2, stream);
  w->v = random_bf16(n, 3, stream);
  w->o = DeviceBuffer(n * 2);
  w->lse = DeviceBuffer(static_cast<size_t>(s.n_q * s.heads) * 4);
  w->forward.reset(new AttentionForward(s, device, w->q.get(), w->k.get(), w->v.get(), w->lse.get(), w->o.get()));
  w->forward->run(stream);
  w->shape = "n_q=" + std::to_string(s.n_q) + " n_k=" + std::to_string(s.n_k) + " heads=32 head_dim=128";
  State* state = w.get();
  if (!backward) {
    w->flops = s.forward_flops();
    w->bytes = s.forward_bytes();
    w->launch = [state](cudaStream_t on) { state->forward->run(on); };
    return w;
  }
  w->d_o = random_bf16(n, 4, stream);
  w->dq = DeviceBuffer(n * 2);
  w->dk = DeviceBuffer(n * 2);
  w->dv = DeviceBuffer(n * 2);
  w->gradient.reset(new AttentionBackward(s, device, w->q.get(), w->k.get(), w->v.get(), w->o.get(), w->d_o.get(),
                                          w->lse.get(), w->dq.get(), w->dk.get(), w->dv.get()));
  w->flops = s.backward_flops();
  w->bytes = s.backward_bytes();
  w->launch = [state](cudaStream_t on) { state->gradient->run(on); };
  return w;
}
#endif

}  // namespace

const std::vector<std::string>& workload_names() {
  static const std::vector<std::string> names = {
#if ORRERY_HAVE_CUDNN
    "attention_forward",
    "attention_backward",
#endif
    "gemm",
    "merge",
    "copy"
  };
  return names;
}

std::shared_ptr<Workload> make_workload(const std::string& name, int device, cudaStream_t stream) {
#if ORRERY_HAVE_CUDNN
  if (name == "attention_forward" || name == "attention_backward") {
    return make_attention(name == "attention_backward", device, stream);
  }
#else
  (void)device;
#endif
  if (name == "gemm") {
    struct State : Workload {
      DeviceBuffer a, b, c;
      std::unique_ptr<Gemm> gemm;
    };
    const GemmShape s{8192, 8192, 8192, GemmPass::forward};
    auto w = std::make_shared<State>();
    w->a = random_bf16(static_cast<size_t>(s.a_count()), 1, stream);
    w->b = random_bf16(static_cast<size_t>(s.b_count()), 2, stream);
    w->c = DeviceBuffer(static_cast<size_t>(s.c_count()) * 2);
    w->gemm.reset(new Gemm(s));
    w->flops = s.flops();
    w->bytes = s.bytes();
    w->shape = "8192 x 8192 x 8192";
    State* state = w.get();
    w->launch = [state](cudaStream_t on) { state->gemm->run(state->a.get(), state->b.get(), state->c.get(), on); };
    return w;
  }
  if (name == "merge") {
    struct State : Workload {
      DeviceBuffer o, lse, block, lse2;
      MergeShape s;
    };
    auto w = std::make_shared<State>();
    w->s.n_q = 65536;
    w->s.heads = 32;
    const auto n = static_cast<size_t>(w->s.elements()), rows = static_cast<size_t>(w->s.n_q * w->s.heads);
    w->o = DeviceBuffer(n * 4);
    w->lse = DeviceBuffer(rows * 4);
    w->lse2 = DeviceBuffer(rows * 4);
    w->block = random_bf16(n, 5, stream);
    fill_normal_f32(w->o.get(), n, 6, stream);
    fill_normal_f32(w->lse.get(), rows, 7, stream);
    fill_normal_f32(w->lse2.get(), rows, 8, stream);
    w->bytes = 10.0 * static_cast<double>(n) + 12.0 * static_cast<double>(rows);
    w->shape = "n_q=65536 heads=32 head_dim=128";
    State* state = w.get();
    w->launch = [state](cudaStream_t on) {
      merge_block(state->s, state->o.as<float>(), state->lse.as<float>(), state->block.get(), state->lse2.as<float>(),
                  false, on);
    };
    return w;
  }
  if (name == "copy") {
    struct State : Workload {
      DeviceBuffer a, b;
    };
    constexpr int64_t kBytes = int64_t{2} << 30;
    auto w = std::make_shared<State>();
    w->a = random_bf16(static_cast<size_t>(kBytes) / 2, 9, stream);
    w->b = DeviceBuffer(static_cast<size_t>(kBytes));
    w->bytes = 2.0 * kBytes;
    w->shape = "2 GiB by a kernel";
    State* state = w.get();
    w->launch = [state](cudaStream_t on) { copy_kernel(state->b.get(), state->a.get(), kBytes, on); };
    return w;
  }
  throw BenchError("no workload is called " + name);
}

void prepare_workload(const std::string& name, int device) {
#if ORRERY_HAVE_CUDNN
  if (name != "attention_forward" && name != "attention_backward") return;
  const bool backward = name == "attention_backward";
  attention_plan({attention_shape(backward), Pass::forward}, device);
  if (backward) attention_plan({attention_shape(backward), Pass::backward}, device);
#else
  (void)name;
  (void)device;
#endif
}

}  // namespace orrery
