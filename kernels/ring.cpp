#include "kernels/ring_rank.hpp"
#if ORRERY_HAVE_NCCL
#include "kernels/nccl_world.hpp"
#endif

namespace orrery {

Ring::Ring(const RingShape& shape, bool backward) : shape_(shape), devices_(shape.ranks), pool_(shape.ranks) {
  enable_peer_access();
#if !ORRERY_HAVE_NCCL
  if (shape.transport == Transport::nccl) throw BenchError("built without NCCL");
#endif
  if (shape.transport == Transport::nccl && devices_.is_virtual()) {
    throw BenchError("NCCL refuses two ranks on one GPU");
  }
  if (shape.transport == Transport::nccl && shape.ranks != devices_.gpus) {
    throw BenchError("the NCCL ring runs over all GPUs");
  }
#if ORRERY_HAVE_NCCL
  if (shape.transport == Transport::nccl) {
    for (int lane : {0, 1}) NcclWorld::with_channels(shape.channels, lane);
  }
#endif
  for (int r = 0; r < shape.ranks; ++r) ranks_.emplace_back(new Rank);
  pool_.run([&](int r) { make_rank(r, backward); });
}

Ring::~Ring() = default;

void Ring::make_rank(int r, bool with_backward) {
  Rank& k = *ranks_[static_cast<size_t>(r)];
  k.device = devices_.device(r);
  ORRERY_CUDA(cudaSetDevice(k.device));
  k.compute.reset(new Stream);
  k.copy.reset(new Stream(true));
  k.gradient.reset(new Stream(true));
  k.start.reset(new Event);
  k.end.reset(new Event);
  for (int i = 0; i < 2 * shape_.ranks; ++i) {
    for (auto* events : {&k.sent, &k.consumed, &k.gradient_sent, &k.gradient_added}) events->emplace_back(false);
  }
  const auto q = static_cast<size_t>(shape_.q_count()), kv = static_cast<size_t>(shape_.kv_count());
  const auto rows = static_cast<size_t>(shape_.n * shape_.heads);
  k.q = DeviceBuffer(q * 2);
  k.own = DeviceBuffer(kv * 4);
  for (DeviceBuffer& b : k.buffer) b = DeviceBuffer(kv * 4);
  k.o_block = DeviceBuffer(q * 2);
  k.lse_block = DeviceBuffer(rows * 4);
  k.o_sum = DeviceBuffer(q * 4);
  k.lse = DeviceBuffer(rows * 4);
  k.o = DeviceBuffer(q * 2);
  if (with_backward) {
    k.d_o = DeviceBuffer(q * 2);
    k.lse_part = DeviceBuffer(rows * 4);
    k.dq_part = DeviceBuffer(q * 2);
    k.dkv_part = DeviceBuffer(kv * 4);
    k.dq_sum = DeviceBuffer(q * 4);
    k.dq = DeviceBuffer(q * 2);
    for (DeviceBuffer& b : k.dkv_sum) b = DeviceBuffer(kv * 8);
    k.dkv_home = DeviceBuffer(kv * 8);
    k.dkv = DeviceBuffer(kv * 4);
  }
  const auto token = static_cast<int64_t>(shape_.heads * shape_.head_dim);
  for (int step = 0; step < shape_.ranks; ++step) {
    const int owner = (r - step + shape_.ranks) % shape_.ranks;
    const BlockWork w = block_work(shape_, r, owner);
    k.forward.emplace_back();
    k.backward.emplace_back();
    if (!w.any) continue;
    AttentionShape a;
    a.n_q = w.q_count;
    a.n_k = w.k_count;
    a.heads = shape_.heads;
    a.kv_heads = shape_.kv_heads;
    a.head_dim = shape_.head_dim;
    a.mask = w.mask;
    auto* keys = static_cast<Bf16Bits*>(k.block(step));
    auto* values = keys + shape_.kv_count();
    const int64_t q_at = w.q_from * token;
    k.forward.back().reset(
        new AttentionForward(a, k.device, at<Bf16Bits>(k.q, q_at), keys, values, k.lse_block.get(), k.o_block.get()));
    if (!with_backward) continue;
    k.backward.back().reset(new AttentionBackward(
        a, k.device, at<Bf16Bits>(k.q, q_at), keys, values, at<Bf16Bits>(k.o, q_at), at<Bf16Bits>(k.d_o, q_at),
        w.q_from ? k.lse_part.get() : k.lse.get(), k.dq_part.get(), k.dkv_part.get(),
        at<Bf16Bits>(k.dkv_part, w.k_count * shape_.kv_heads * shape_.head_dim)));
  }
  ORRERY_CUDA(cudaDeviceSynchronize());
}

void Ring::fill_random(uint64_t seed) {
  for (int r = 0; r < shape_.ranks; ++r) {
    Rank& k = *ranks_[static_cast<size_t>(r)];
    OnDevice on(k.device);
    const uint64_t s = seed * 64 + static_cast<uint64_t>(r) * 4;
    fill_normal_bf16(k.q.get(), k.q.bytes() / 2, s + 1, *k.compute);
    fill_normal_bf16(k.own.get(), k.own.bytes() / 2, s + 2, *k.compute);
    if (k.d_o.bytes()) fill_normal_bf16(k.d_o.get(), k.d_o.bytes() / 2, s + 3, *k.compute);
    k.compute->sync();
  }
}

void Ring::upload(int r, const std::vector<uint16_t>& q, const std::vector<uint16_t>& keys,
                  const std::vector<uint16_t>& values, const std::vector<uint16_t>& d_o) {
  Rank& k = *ranks_[static_cast<size_t>(r)];
  OnDevice on(k.device);
  ORRERY_CUDA(cudaMemcpy(k.q.get(), q.data(), k.q.bytes(), cudaMemcpyHostToDevice));
  ORRERY_CUDA(cudaMemcpy(k.own.get(), keys.data(), keys.size() * 2, cudaMemcpyHostToDevice));
  ORRERY_CUDA(
      cudaMemcpy(at<Bf16Bits>(k.own, shape_.kv_count()), values.data(), values.size() * 2, cudaMemcpyHostToDevice));
  if (k.d_o.bytes()) ORRERY_CUDA(cudaMemcpy(k.d_o.get(), d_o.data(), k.d_o.bytes(), cudaMemcpyHostToDevice));
  for (DeviceBuffer* b : {&k.o, &k.lse, &k.o_sum, &k.dq, &k.dkv, &k.dq_sum, &k.dkv_home}) {
    if (b->bytes()) poison(b->get(), b->bytes(), *k.compute);
  }
  k.compute->sync();
}

Ring::Result Ring::download(int r, bool backward) {
  Rank& k = *ranks_[static_cast<size_t>(r)];
  OnDevice on(k.device);
  Result out;
  out.o = download_bf16(k.o.get(), k.o.bytes() / 2);
  out.lse = download_f32(k.lse.get(), k.lse.bytes() / 4);
  if (!backward) return out;
  out.dq = download_bf16(k.dq.get(), k.dq.bytes() / 2);
  out.dk = download_bf16(k.dkv.get(), static_cast<size_t>(shape_.kv_count()));
  out.dv = download_bf16(at<Bf16Bits>(k.dkv, shape_.kv_count()), static_cast<size_t>(shape_.kv_count()));
  return out;
}

void Ring::queue(int r, bool forward, bool backward, bool hold, bool stamp) {
  Rank& k = *ranks_[static_cast<size_t>(r)];
  ORRERY_CUDA(cudaSetDevice(k.device));
  k.spans.clear();
  if (hold) {
    for (Stream* stream : {k.compute.get(), k.copy.get(), k.gradient.get()}) gate_.hold(*stream);
  }
  k.start->record(*k.compute);
  if (forward) queue_forward(r, stamp);
  if (backward) queue_backward(r, forward, stamp);
  k.end->record(*k.compute);
}

double Ring::execute(bool forward, bool backward, bool hold, std::vector<RingSpan>* spans) {
  for (auto& k : ranks_) {
    k->sent_count.reset();
    k->consumed_count.reset();
    k->gradient_count.reset();
  }
  gate_.reset();
  try {
    pool_.run([&](int r) { queue(r, forward, backward, hold, spans != nullptr); });
  } catch (...) {
    gate_.release();
    for (auto& k : ranks_) {
      OnDevice on(k->device);
      cudaDeviceSynchronize();
    }
    throw;
  }
  gate_.release();
  double slowest = 0;
  for (int r = 0; r < shape_.ranks; ++r) {
    Rank& k = *ranks_[static_cast<size_t>(r)];
    OnDevice on(k.device);
    for (Stream* stream : {k.compute.get(), k.copy.get(), k.gradient.get()}) stream->sync();
    slowest = std::max(slowest, elapsed_us(*k.start, *k.end));
    if (!spans) continue;
    for (const Span& s : k.spans) {
      spans->push_back({r, s.step, s.op, elapsed_us(*k.start, s.start), elapsed_us(*k.start, s.end)});
    }
  }
  return slowest;
}

double Ring::run(bool forward, bool backward, std::vector<RingSpan>* spans) {
  return execute(forward, backward, true, spans);
}

void Ring::warm_up(bool forward, bool backward) {
  execute(forward, backward, false, nullptr);
}

}  // namespace orrery
