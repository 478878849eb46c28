#include "kernels/pi_halo.hpp"

#include "kernels/elementwise.hpp"
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

// Keys and values each lie behind room for the halo: row 0 of the rank is row `halo` of the buffer.
struct PiHalo::Rank {
  int device = 0;
  std::unique_ptr<Stream> compute, copy;
  DeviceBuffer q, keys, values, gate, lse, o;
  std::unique_ptr<AttentionForward> attention;
  std::unique_ptr<Event> start, end, sent;
  Recorded sent_count;
  std::vector<std::pair<const char*, std::pair<Event, Event>>> spans;

  template <class F>
  void stamped(bool stamp, cudaStream_t stream, const char* op, F&& launch) {
    if (!stamp) return launch();
    std::pair<Event, Event> span;
    span.first.record(stream);
    launch();
    span.second.record(stream);
    spans.emplace_back(op, std::move(span));
  }
};

PiHalo::PiHalo(const PiShape& shape) : shape_(shape), devices_(shape.ranks), pool_(shape.ranks) {
  if (shape.value_halo() > shape.n)
    throw BenchError("the halo must come from one neighbour: window and period up to n");
  enable_peer_access();
  if (shape.transport == Transport::nccl) {
#if ORRERY_HAVE_NCCL
    if (devices_.is_virtual() || shape.ranks != devices_.gpus)
      throw BenchError("NCCL runs over all GPUs, one rank each");
    NcclWorld::with_channels(shape.channels);
#else
    throw BenchError("built without NCCL");
#endif
  }
  for (int r = 0; r < shape.ranks; ++r) ranks_.emplace_back(new Rank);
  pool_.run([&](int r) { make_rank(r); });
}

PiHalo::~PiHalo() = default;

void PiHalo::make_rank(int r) {
  Rank& k = *ranks_[static_cast<size_t>(r)];
  k.device = devices_.device(r);
  ORRERY_CUDA(cudaSetDevice(k.device));
  k.compute.reset(new Stream);
  k.copy.reset(new Stream(true));
  k.start.reset(new Event);
  k.end.reset(new Event);
  k.sent.reset(new Event(false));
  const int64_t kv_row = shape_.kv_heads * shape_.head_dim;
  const auto q = static_cast<size_t>(shape_.n * shape_.heads * shape_.head_dim);
  const auto rows = static_cast<size_t>(shape_.n * shape_.heads);
  k.q = DeviceBuffer(q * 2);
  k.keys = DeviceBuffer(static_cast<size_t>((shape_.key_halo() + shape_.n) * kv_row) * 2);
  k.values = DeviceBuffer(static_cast<size_t>((shape_.value_halo() + shape_.n) * kv_row) * 2);
  k.gate = DeviceBuffer(rows * 4);
  k.lse = DeviceBuffer(rows * 4);
  k.o = DeviceBuffer(q * 2);
  const bool first = r == 0;
  auto* keys = k.keys.as<uint16_t>() + (first ? shape_.key_halo() * kv_row : 0);
  auto* values = k.values.as<uint16_t>() + (shape_.value_halo() - (first ? 0 : shape_.key_halo())) * kv_row;
  k.attention.reset(
      new AttentionForward(shape_.attention(first), k.device, k.q.get(), keys, values, k.lse.get(), k.o.get()));
  ORRERY_CUDA(cudaDeviceSynchronize());
}

void PiHalo::fill_random(uint64_t seed) {
  for (int r = 0; r < shape_.ranks; ++r) {
    Rank& k = *ranks_[static_cast<size_t>(r)];
    OnDevice on(k.device);
    const uint64_t s = seed * 64 + static_cast<uint64_t>(r) * 4;
    fill_normal_bf16(k.q.get(), k.q.bytes() / 2, s, *k.compute);
    fill_normal_bf16(k.keys.get(), k.keys.bytes() / 2, s + 1, *k.compute);
    fill_normal_bf16(k.values.get(), k.values.bytes() / 2, s + 2, *k.compute);
    fill_uniform_f32(k.gate.get(), k.gate.bytes() / 4, s + 3, *k.compute);
    k.compute->sync();
  }
}

void PiHalo::upload(int r, const std::vector<uint16_t>& q, const std::vector<uint16_t>& keys,
                    const std::vector<uint16_t>& values, const std::vector<float>& gate) {
  Rank& k = *ranks_[static_cast<size_t>(r)];
  OnDevice on(k.device);
  const int64_t kv_row = shape_.kv_heads * shape_.head_dim;
  for (DeviceBuffer* b : {&k.keys, &k.values, &k.o, &k.lse}) poison(b->get(), b->bytes(), *k.compute);
  k.compute->sync();
  ORRERY_CUDA(cudaMemcpy(k.q.get(), q.data(), q.size() * 2, cudaMemcpyHostToDevice));
  ORRERY_CUDA(cudaMemcpy(k.keys.as<uint16_t>() + shape_.key_halo() * kv_row, keys.data(), keys.size() * 2,
                         cudaMemcpyHostToDevice));
  ORRERY_CUDA(cudaMemcpy(k.values.as<uint16_t>() + shape_.value_halo() * kv_row, values.data(), values.size() * 2,
                         cudaMemcpyHostToDevice));
  ORRERY_CUDA(cudaMemcpy(k.gate.get(), gate.data(), gate.size() * 4, cudaMemcpyHostToDevice));
}

std::vector<double> PiHalo::download(int r) {
  Rank& k = *ranks_[static_cast<size_t>(r)];
  OnDevice on(k.device);
  return download_bf16(k.o.get(), k.o.bytes() / 2);
}

void PiHalo::queue(int r, bool hold, bool stamp) {
  Rank& k = *ranks_[static_cast<size_t>(r)];
  const cudaStream_t compute = *k.compute, copy = *k.copy;
  ORRERY_CUDA(cudaSetDevice(k.device));
  k.spans.clear();
  const int64_t kv_row = shape_.kv_heads * shape_.head_dim;
  if (hold) {
    start_.hold(compute);
    start_.hold(copy);
  }
  k.start->record(compute);
  const bool last = r + 1 == shape_.ranks;
  const size_t key_bytes = static_cast<size_t>(shape_.key_halo() * kv_row) * 2;
  const size_t value_bytes = static_cast<size_t>(shape_.value_halo() * kv_row) * 2;
  // The last rows of this rank: its keys start at row halo, so they are rows n .. n + halo of the buffer.
  auto* keys = k.keys.as<uint16_t>() + shape_.n * kv_row;
  auto* values = k.values.as<uint16_t>() + shape_.n * kv_row;
  if (shape_.transport == Transport::copy_engine) {
    if (!last) {
      Rank& to = *ranks_[static_cast<size_t>(r + 1)];
      k.stamped(stamp, copy, "halo", [&] {
        auto push = [&](void* target, const void* source, size_t bytes) {
          if (k.device == to.device) {
            ORRERY_CUDA(cudaMemcpyAsync(target, source, bytes, cudaMemcpyDeviceToDevice, copy));
          } else {
            ORRERY_CUDA(cudaMemcpyPeerAsync(target, to.device, source, k.device, bytes, copy));
          }
        };
        push(to.keys.get(), keys, key_bytes);
        push(to.values.get(), values, value_bytes);
      });
    }
    k.sent->record(copy);
    k.sent_count.advance_to(1);
    if (r > 0) {
      Rank& from = *ranks_[static_cast<size_t>(r - 1)];
      from.sent_count.await(1, pool_);
      ORRERY_CUDA(cudaStreamWaitEvent(compute, *from.sent, 0));
    }
  } else {
#if ORRERY_HAVE_NCCL
    const ncclComm_t comm = NcclWorld::with_channels(shape_.channels).comm(r);
    k.stamped(stamp, copy, "halo", [&] {
      ORRERY_NCCL(ncclGroupStart());
      if (!last) {
        ORRERY_NCCL(ncclSend(keys, key_bytes / 2, ncclBfloat16, r + 1, comm, copy));
        ORRERY_NCCL(ncclSend(values, value_bytes / 2, ncclBfloat16, r + 1, comm, copy));
      }
      if (r > 0) {
        ORRERY_NCCL(ncclRecv(k.keys.get(), key_bytes / 2, ncclBfloat16, r - 1, comm, copy));
        ORRERY_NCCL(ncclRecv(k.values.get(), value_bytes / 2, ncclBfloat16, r - 1, comm, copy));
      }
      ORRERY_NCCL(ncclGroupEnd());
    });
    k.sent->record(copy);
    ORRERY_CUDA(cudaStreamWaitEvent(compute, *k.sent, 0));
#endif
  }
  k.stamped(stamp, compute, "attention", [&] { k.attention->run(compute); });
  k.stamped(stamp, compute, "gate", [&] {
    gate_skip(k.o.get(), k.values.as<uint16_t>() + shape_.value_halo() * kv_row, k.gate.as<float>(), shape_.n,
              shape_.heads, shape_.kv_heads, shape_.head_dim, shape_.period, r == 0 ? shape_.period : 0, compute);
  });
  k.end->record(compute);
}

double PiHalo::execute(bool hold, std::vector<RingSpan>* spans) {
  for (auto& k : ranks_) k->sent_count.reset();
  start_.reset();
  try {
    pool_.run([&](int r) { queue(r, hold, spans != nullptr); });
  } catch (...) {
    start_.release();
    cudaDeviceSynchronize();
    throw;
  }
  start_.release();
  double slowest = 0;
  for (int r = 0; r < shape_.ranks; ++r) {
    Rank& k = *ranks_[static_cast<size_t>(r)];
    OnDevice on(k.device);
    k.compute->sync();
    k.copy->sync();
    slowest = std::max(slowest, elapsed_us(*k.start, *k.end));
    if (!spans) continue;
    for (const auto& [op, span] : k.spans) {
      spans->push_back({r, 0, op, elapsed_us(*k.start, span.first), elapsed_us(*k.start, span.second)});
    }
  }
  return slowest;
}

double PiHalo::run(std::vector<RingSpan>* spans) {
  return execute(true, spans);
}
void PiHalo::warm_up() {
  execute(false, nullptr);
}

}  // namespace orrery
