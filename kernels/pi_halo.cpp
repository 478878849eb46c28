#include "kernels/pi_halo_rank.hpp"
#if ORRERY_HAVE_NCCL
#include "kernels/nccl_world.hpp"
#endif

namespace orrery {

AttentionShape PiShape::attention(bool first_rank) const {
  AttentionShape a;
  a.n_q = n;
  a.n_k = first_rank ? n : n + key_halo();
  a.heads = heads;
  a.kv_heads = kv_heads;
  a.head_dim = head_dim;
  a.mask = Mask::window;
  a.window = window;
  return a;
}

GateSkip PiShape::gate(bool first_rank) const {
  return {n, heads, kv_heads, head_dim, period, first_rank ? period : 0};
}

PiHalo::PiHalo(RankRun& run, const PiShape& shape, bool backward)
    : shape_(shape), run_(run), ranks_(static_cast<size_t>(run.size())) {
  if (shape.value_halo() > shape.n)
    throw BenchError("the halo must come from one neighbour: window and period up to n");
#if ORRERY_HAVE_NCCL
  if (shape.transport == Transport::nccl) NcclWorld::with_channels(shape.channels);
#endif
  run.on_all([&](int r) { make_rank(r, backward); });
}

PiHalo::~PiHalo() = default;

void PiHalo::make_rank(int r, bool with_backward) {
  ranks_[static_cast<size_t>(r)].reset(new Rank(run_[r]));
  Rank& k = rank(r);
  const int device = k.on.device();
  const int64_t kv_row = shape_.kv_heads * shape_.head_dim;
  k.gated = shape_.gated();
  const auto q = static_cast<size_t>(shape_.n * shape_.heads * shape_.head_dim);
  const auto rows = static_cast<size_t>(shape_.n * shape_.heads);
  const auto key_halo = static_cast<size_t>(shape_.key_halo() * kv_row);
  const auto value_halo = static_cast<size_t>(shape_.value_halo() * kv_row);
  const auto own = static_cast<size_t>(shape_.n * kv_row);
  for (DeviceBuffer* b : {&k.q, &k.o, &k.out}) *b = DeviceBuffer(q * 2);
  k.keys = DeviceBuffer((key_halo + own) * 2);
  k.values = DeviceBuffer((value_halo + own) * 2);
  for (DeviceBuffer* b : {&k.gate, &k.lse}) *b = DeviceBuffer(rows * 4);
  // The first rank attends to its own rows, the others to the halo's as well.
  const bool first = r == 0;
  const size_t key_from = first ? key_halo : 0, value_from = value_halo - (first ? 0 : key_halo);
  auto *keys = k.keys.as<Bf16Bits>() + key_from, *values = k.values.as<Bf16Bits>() + value_from;
  k.attention.reset(
      new AttentionForward(shape_.attention(first), device, k.q.get(), keys, values, k.lse.get(), k.window_o()));
  if (with_backward) {
    for (DeviceBuffer* b : {&k.d_out, &k.d_o, &k.dq}) *b = DeviceBuffer(q * 2);
    k.d_gate = DeviceBuffer(rows * 4);
    k.d_keys = DeviceBuffer(k.keys.bytes());
    k.d_values = DeviceBuffer(k.values.bytes());
    k.returned_keys = DeviceBuffer(key_halo * 2);
    k.returned_values = DeviceBuffer(value_halo * 2);
    k.gradient.reset(new AttentionBackward(shape_.attention(first), device, k.q.get(), keys, values, k.window_o(),
                                           k.window_d_o(), k.lse.get(), k.dq.get(), k.d_keys.as<Bf16Bits>() + key_from,
                                           k.d_values.as<Bf16Bits>() + value_from));
  }
  ORRERY_CUDA(cudaDeviceSynchronize());
}

void PiHalo::fill_random(uint64_t seed) {
  for (int r = 0; r < run_.size(); ++r) {
    Rank& k = rank(r);
    OnDevice on(k.on.device());
    uint64_t s = seed * 64 + static_cast<uint64_t>(r) * 8;
    for (DeviceBuffer* b : {&k.q, &k.keys, &k.values, &k.d_out}) {
      if (b->bytes()) fill_normal_bf16(b->get(), b->bytes() / 2, ++s, k.compute);
    }
    fill_uniform_f32(k.gate.get(), k.gate.bytes() / 4, ++s, k.compute);
    ORRERY_CUDA(cudaStreamSynchronize(k.compute));
  }
}

void PiHalo::upload(int r, const std::vector<uint16_t>& q, const std::vector<uint16_t>& keys,
                    const std::vector<uint16_t>& values, const std::vector<float>& gate,
                    const std::vector<uint16_t>& d_out) {
  Rank& k = rank(r);
  OnDevice on(k.on.device());
  for (DeviceBuffer* b : {&k.keys, &k.values, &k.o, &k.out, &k.lse, &k.d_o, &k.d_gate, &k.dq, &k.d_keys, &k.d_values,
                          &k.returned_keys, &k.returned_values}) {
    if (b->bytes()) poison(b->get(), b->bytes(), k.compute);
  }
  ORRERY_CUDA(cudaStreamSynchronize(k.compute));
  const int64_t kv_row = shape_.kv_heads * shape_.head_dim;
  auto copy = [](void* to, const auto& from) {
    ORRERY_CUDA(cudaMemcpy(to, from.data(), from.size() * sizeof from[0], cudaMemcpyHostToDevice));
  };
  copy(k.q.get(), q);
  copy(k.keys.as<Bf16Bits>() + shape_.key_halo() * kv_row, keys);
  copy(k.values.as<Bf16Bits>() + shape_.value_halo() * kv_row, values);
  copy(k.gate.get(), gate);
  if (k.d_out.bytes()) copy(k.d_out.get(), d_out);
}

PiHalo::Result PiHalo::download(int r, bool backward) {
  Rank& k = rank(r);
  OnDevice on(k.on.device());
  Result result;
  result.out = download_bf16(k.out.get(), k.out.bytes() / 2);
  if (!backward) return result;
  const int64_t kv_row = shape_.kv_heads * shape_.head_dim;
  const auto own = static_cast<size_t>(shape_.n * kv_row);
  result.dq = download_bf16(k.dq.get(), k.dq.bytes() / 2);
  result.dk = download_bf16(k.d_keys.as<Bf16Bits>() + shape_.key_halo() * kv_row, own);
  result.dv = download_bf16(k.d_values.as<Bf16Bits>() + shape_.value_halo() * kv_row, own);
  result.d_gate = download_f32(k.d_gate.get(), k.d_gate.bytes() / 4);
  return result;
}

void PiHalo::begin() {
  for (auto& k : ranks_) {
    k->sent_count.reset();
    k->returned_count.reset();
  }
}

}  // namespace orrery
