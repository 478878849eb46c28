#include "kernels/ring.hpp"

#include "kernels/elementwise.hpp"
#if ORRERY_HAVE_NCCL
#include "kernels/nccl_world.hpp"
#endif

namespace orrery {

// Keys and values of a block lie together, [2][n][kv_heads][head_dim], so that one copy moves both. The rank's own
// block is never overwritten; received blocks alternate between two buffers: the block of step s lies in buffer s & 1.
struct Ring::Rank {
  int device = 0;
  std::unique_ptr<Stream> compute, copy, gradient;
  DeviceBuffer q, own, buffer[2], o_block, lse_block, o_sum, lse, o;
  DeviceBuffer d_o, lse_half, dq_part, dkv_part, dq_sum, dq, dkv_sum[2], dkv_home, dkv;
  std::vector<std::unique_ptr<AttentionForward>> forward;  // by step; null where a step has no work
  std::vector<std::unique_ptr<AttentionBackward>> backward;
  // By step, forward's steps first and then backward's.
  std::vector<Event> sent, consumed, gradient_sent, gradient_added;
  Recorded sent_count, consumed_count, gradient_count;
  int base = 0;  // 0 in the forward pass, the number of ranks in the backward pass
  std::unique_ptr<Event> start, end;
  std::vector<Span> spans;

  void* block(int step) const { return step == 0 ? own.get() : buffer[step & 1].get(); }

  template <class F>
  void stamped(bool stamp, cudaStream_t stream, int step, const char* op, F&& launch) {
    if (!stamp) return launch();
    Span span{Event(), Event(), step, op};
    span.start.record(stream);
    launch();
    span.end.record(stream);
    spans.push_back(std::move(span));
  }
};

namespace {
void wait(cudaStream_t stream, cudaEvent_t event) {
  ORRERY_CUDA(cudaStreamWaitEvent(stream, event, 0));
}

template <class T>
T* at(const DeviceBuffer& buffer, int64_t count) {
  return buffer.as<T>() + count;
}
using Bf16Bits = uint16_t;
}  // namespace

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
    k.lse_half = DeviceBuffer(rows * 2);
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
        w.q_from ? k.lse_half.get() : k.lse.get(), k.dq_part.get(), k.dkv_part.get(),
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

// Waits on the host until the event that announces the block of this step is in its stream, and returns the event.
cudaEvent_t Ring::block_arrival(int r, int step) {
  Rank& k = *ranks_[static_cast<size_t>(r)];
  if (shape_.transport == Transport::nccl) return k.sent[k.base + step - 1];  // sends and receives are one operation
  Rank& from = *ranks_[static_cast<size_t>(previous(r))];
  from.sent_count.await(k.base + step, pool_);
  return from.sent[k.base + step - 1];
}

void Ring::send_block(int r, int step, bool after_forward, bool stamp) {
  Rank &k = *ranks_[static_cast<size_t>(r)], &to = *ranks_[static_cast<size_t>(next(r))];
  const cudaStream_t stream = *k.copy;
  const size_t bytes = k.own.bytes();
  const int slot = (step + 1) & 1, base = k.base;
  const bool copies = shape_.transport == Transport::copy_engine;
  if (step > 0) wait(stream, block_arrival(r, step));
  // The buffer it goes to must be free: the block in it attended to, and sent on. Before step 0 of a backward pass
  // that follows a forward pass, that was the forward pass's last.
  Rank& target = copies ? to : k;
  const int last = step > 0 ? base + step - 1 : after_forward ? base - 1 : -1;
  if (last >= 0) {
    if (copies) target.consumed_count.await(last + 1, pool_);
    wait(stream, target.consumed[last]);
    const int last_sent = step > 0 ? last : last - 1;
    if (copies && last_sent >= 0) {
      target.sent_count.await(last_sent + 1, pool_);
      wait(stream, target.sent[last_sent]);
    }
  }
  k.stamped(stamp, stream, step, "kv_transfer", [&] {
    if (copies) {
      if (k.device == to.device) {
        ORRERY_CUDA(cudaMemcpyAsync(to.buffer[slot].get(), k.block(step), bytes, cudaMemcpyDeviceToDevice, stream));
      } else {
        ORRERY_CUDA(cudaMemcpyPeerAsync(to.buffer[slot].get(), to.device, k.block(step), k.device, bytes, stream));
      }
      return;
    }
#if ORRERY_HAVE_NCCL
    const ncclComm_t comm = NcclWorld::with_channels(shape_.channels, 0).comm(r);
    ORRERY_NCCL(ncclGroupStart());
    ORRERY_NCCL(ncclSend(k.block(step), bytes / 2, ncclBfloat16, next(r), comm, stream));
    ORRERY_NCCL(ncclRecv(k.buffer[slot].get(), bytes / 2, ncclBfloat16, previous(r), comm, stream));
    ORRERY_NCCL(ncclGroupEnd());
#endif
  });
  k.sent[base + step].record(stream);
  k.sent_count.advance_to(base + step + 1);
}

void Ring::queue_forward(int r, bool stamp) {
  Rank& k = *ranks_[static_cast<size_t>(r)];
  const cudaStream_t compute = *k.compute;
  k.base = 0;
  for (int step = 0; step < shape_.ranks; ++step) {
    if (step + 1 < shape_.ranks) send_block(r, step, false, stamp);
    if (step > 0) wait(compute, block_arrival(r, step));
    const BlockWork w = block_work(shape_, r, (r - step + shape_.ranks) % shape_.ranks);
    if (w.any) k.stamped(stamp, compute, step, "attention", [&] { k.forward[step]->run(compute); });
    k.consumed[step].record(compute);
    k.consumed_count.advance_to(step + 1);
    if (!w.any) continue;
    MergeShape m;
    m.n_q = w.q_count;
    m.heads = shape_.heads;
    m.head_dim = shape_.head_dim;
    m.lse_stride = shape_.n;
    k.stamped(stamp, compute, step, "merge", [&] {
      merge_block(m, at<float>(k.o_sum, w.q_from * shape_.heads * shape_.head_dim), at<float>(k.lse, w.q_from),
                  k.o_block.get(), k.lse_block.as<float>(), step == 0, compute);
    });
  }
  k.stamped(stamp, compute, shape_.ranks - 1, "cast",
            [&] { to_bf16(k.o.get(), k.o_sum.as<float>(), shape_.q_count(), compute); });
}

// The gradient sum of a block follows the block: it arrives, this rank's part is added, it goes on; after the last step
// it goes home.
void Ring::send_gradient(int r, int step, bool stamp) {
  Rank &k = *ranks_[static_cast<size_t>(r)], &to = *ranks_[static_cast<size_t>(next(r))];
  const cudaStream_t stream = *k.gradient;
  const bool copies = shape_.transport == Transport::copy_engine, home = step + 1 == shape_.ranks;
  const size_t bytes = k.dkv_home.bytes();
  void* from = k.dkv_sum[step & 1].get();
  wait(stream, k.gradient_added[step]);
  if (copies && step > 0) {  // the neighbour has sent on what lay there
    to.gradient_count.await(step, pool_);
    wait(stream, to.gradient_sent[step - 1]);
  }
  k.stamped(stamp, stream, step, "gradient_transfer", [&] {
    if (copies) {
      void* target = home ? to.dkv_home.get() : to.dkv_sum[(step + 1) & 1].get();
      if (k.device == to.device) {
        ORRERY_CUDA(cudaMemcpyAsync(target, from, bytes, cudaMemcpyDeviceToDevice, stream));
      } else {
        ORRERY_CUDA(cudaMemcpyPeerAsync(target, to.device, from, k.device, bytes, stream));
      }
      return;
    }
#if ORRERY_HAVE_NCCL
    void* target = home ? k.dkv_home.get() : k.dkv_sum[(step + 1) & 1].get();
    const ncclComm_t comm = NcclWorld::with_channels(shape_.channels, 1).comm(r);
    ORRERY_NCCL(ncclGroupStart());
    ORRERY_NCCL(ncclSend(from, bytes / 4, ncclFloat32, next(r), comm, stream));
    ORRERY_NCCL(ncclRecv(target, bytes / 4, ncclFloat32, previous(r), comm, stream));
    ORRERY_NCCL(ncclGroupEnd());
#endif
  });
  k.gradient_sent[step].record(stream);
  k.gradient_count.advance_to(step + 1);
}

cudaEvent_t Ring::gradient_arrival(int r, int step) {
  Rank& k = *ranks_[static_cast<size_t>(r)];
  if (shape_.transport == Transport::nccl) return k.gradient_sent[step - 1];
  Rank& from = *ranks_[static_cast<size_t>(previous(r))];
  from.gradient_count.await(step, pool_);
  return from.gradient_sent[step - 1];
}

void Ring::queue_backward(int r, bool after_forward, bool stamp) {
  Rank& k = *ranks_[static_cast<size_t>(r)];
  const cudaStream_t compute = *k.compute;
  const int64_t row = shape_.heads * shape_.head_dim, kv_row = shape_.kv_heads * shape_.head_dim;
  k.base = shape_.ranks;
  if (shape_.causal && shape_.layout == Layout::zigzag) {  // LSE of the late half, packed as the kernels read it
    const auto half = static_cast<size_t>(shape_.n / 2) * 4;
    ORRERY_CUDA(cudaMemcpy2DAsync(k.lse_half.get(), half, at<float>(k.lse, shape_.n / 2), 2 * half, half,
                                  static_cast<size_t>(shape_.heads), cudaMemcpyDeviceToDevice, compute));
  }
  for (int step = 0; step < shape_.ranks; ++step) {
    if (step + 1 < shape_.ranks) send_block(r, step, after_forward, stamp);
    if (step > 0) wait(compute, block_arrival(r, step));
    const BlockWork w = block_work(shape_, r, (r - step + shape_.ranks) % shape_.ranks);
    if (w.any) k.stamped(stamp, compute, step, "attention", [&] { k.backward[step]->run(compute); });
    k.consumed[k.base + step].record(compute);
    k.consumed_count.advance_to(k.base + step + 1);
    if (w.any) {
      k.stamped(stamp, compute, step, "accumulate", [&] {
        accumulate(at<float>(k.dq_sum, w.q_from * row), k.dq_part.get(), w.q_count * row, step == 0, compute);
      });
    }
    if (step > 0) wait(compute, gradient_arrival(r, step));
    if (w.any) {
      const DeviceBuffer& sum = k.dkv_sum[step & 1];
      const int64_t count = w.k_count * kv_row;
      k.stamped(stamp, compute, step, "accumulate", [&] {
        accumulate(sum.as<float>(), k.dkv_part.get(), count, step == 0, compute);
        accumulate(at<float>(sum, shape_.kv_count()), at<Bf16Bits>(k.dkv_part, count), count, step == 0, compute);
      });
    }
    k.gradient_added[step].record(compute);
    if (shape_.ranks > 1) send_gradient(r, step, stamp);
  }
  DeviceBuffer& home = shape_.ranks > 1 ? k.dkv_home : k.dkv_sum[0];
  if (shape_.ranks > 1) wait(compute, gradient_arrival(r, shape_.ranks));
  k.stamped(stamp, compute, shape_.ranks - 1, "cast", [&] {
    to_bf16(k.dq.get(), k.dq_sum.as<float>(), shape_.q_count(), compute);
    to_bf16(k.dkv.get(), home.as<float>(), 2 * shape_.kv_count(), compute);
  });
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
