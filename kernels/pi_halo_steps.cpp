// What a rank of pi-Attention queues: the halo, attention and the gate; backward, their gradients and the halo's way
// home.
#include "kernels/elementwise.hpp"
#include "kernels/pi_halo_rank.hpp"
#if ORRERY_HAVE_NCCL
#include "kernels/nccl_world.hpp"
#endif

namespace orrery {
namespace {

// Rows of one rank that go into a buffer of another.
struct Piece {
  const void* from;
  void* to;
  int64_t bytes;
};

void push(const Piece& p, int from_device, int to_device, cudaStream_t stream) {
  const auto bytes = static_cast<size_t>(p.bytes);
  if (from_device == to_device) {
    ORRERY_CUDA(cudaMemcpyAsync(p.to, p.from, bytes, cudaMemcpyDeviceToDevice, stream));
  } else {
    ORRERY_CUDA(cudaMemcpyPeerAsync(p.to, to_device, p.from, from_device, bytes, stream));
  }
}

}  // namespace

void PiHalo::queue(int r, bool forward, bool backward, bool hold, bool stamp) {
  Rank& k = *ranks_[static_cast<size_t>(r)];
  ORRERY_CUDA(cudaSetDevice(k.device));
  k.spans.clear();
  if (hold) {
    start_.hold(*k.compute);
    start_.hold(*k.copy);
  }
  k.start->record(*k.compute);
  if (forward) queue_forward(r, stamp);
  if (backward) queue_backward(r, stamp);
  k.end->record(*k.compute);
}

void PiHalo::queue_forward(int r, bool stamp) {
  Rank& k = *ranks_[static_cast<size_t>(r)];
  const cudaStream_t compute = *k.compute, copy = *k.copy;
  const bool first = r == 0, last = r + 1 == shape_.ranks;
  const int64_t kv_row = shape_.kv_heads * shape_.head_dim;
  const int64_t key_bytes = shape_.key_halo() * kv_row * 2, value_bytes = shape_.value_halo() * kv_row * 2;
  // The last rows of this rank: its keys start at row halo, so they are rows n .. n + halo of the buffer.
  const auto *keys = k.keys.as<Bf16Bits>() + shape_.n * kv_row, *values = k.values.as<Bf16Bits>() + shape_.n * kv_row;
  if (shape_.transport == Transport::copy_engine) {
    if (!last) {
      Rank& to = *ranks_[static_cast<size_t>(r + 1)];
      k.stamped(stamp, copy, "halo", [&] {
        push({keys, to.keys.get(), key_bytes}, k.device, to.device, copy);
        push({values, to.values.get(), value_bytes}, k.device, to.device, copy);
      });
    }
    k.sent->record(copy);
    k.sent_count.advance_to(1);
    if (!first) {
      Rank& from = *ranks_[static_cast<size_t>(r - 1)];
      from.sent_count.await(1, pool_);
      ORRERY_CUDA(cudaStreamWaitEvent(compute, *from.sent, 0));
    }
  } else {
#if ORRERY_HAVE_NCCL
    const ncclComm_t comm = NcclWorld::with_channels(shape_.channels).comm(r);
    const auto key_count = static_cast<size_t>(key_bytes / 2), value_count = static_cast<size_t>(value_bytes / 2);
    k.stamped(stamp, copy, "halo", [&] {
      ORRERY_NCCL(ncclGroupStart());
      if (!last) {
        ORRERY_NCCL(ncclSend(keys, key_count, ncclBfloat16, r + 1, comm, copy));
        ORRERY_NCCL(ncclSend(values, value_count, ncclBfloat16, r + 1, comm, copy));
      }
      if (!first) {
        ORRERY_NCCL(ncclRecv(k.keys.get(), key_count, ncclBfloat16, r - 1, comm, copy));
        ORRERY_NCCL(ncclRecv(k.values.get(), value_count, ncclBfloat16, r - 1, comm, copy));
      }
      ORRERY_NCCL(ncclGroupEnd());
    });
    k.sent->record(copy);
    ORRERY_CUDA(cudaStreamWaitEvent(compute, *k.sent, 0));
#endif
  }
  k.stamped(stamp, compute, "attention", [&] { k.attention->run(compute); });
  if (!k.gated) return;
  k.stamped(stamp, compute, "gate", [&] {
    gate_skip(shape_.gate(first), k.out.get(), k.o.get(), k.values.as<Bf16Bits>() + shape_.value_halo() * kv_row,
              k.gate.as<float>(), compute);
  });
}

void PiHalo::queue_backward(int r, bool stamp) {
  Rank& k = *ranks_[static_cast<size_t>(r)];
  const cudaStream_t compute = *k.compute, copy = *k.copy;
  const bool first = r == 0, last = r + 1 == shape_.ranks;
  const int64_t kv_row = shape_.kv_heads * shape_.head_dim;
  const int64_t key_bytes = shape_.key_halo() * kv_row * 2, value_bytes = shape_.value_halo() * kv_row * 2;
  const GateSkip gate = shape_.gate(first);
  if (k.gated) {
    k.stamped(stamp, compute, "gate_gradient", [&] {
      gate_skip_backward(gate, k.d_o.get(), k.d_gate.as<float>(), k.d_out.get(), k.o.get(),
                         k.values.as<Bf16Bits>() + shape_.value_halo() * kv_row, k.gate.as<float>(), compute);
    });
  }
  k.stamped(stamp, compute, "attention_gradient", [&] { k.gradient->run(compute); });
  if (k.gated) {
    k.stamped(stamp, compute, "skip_gradient", [&] {
      gate_skip_values(gate, k.d_values.as<Bf16Bits>() + shape_.value_halo() * kv_row, k.d_out.get(),
                       k.gate.as<float>(), first ? 0 : -shape_.key_halo(), compute);
    });
  }
  k.computed->record(compute);
  ORRERY_CUDA(cudaStreamWaitEvent(copy, *k.computed, 0));
  if (shape_.transport == Transport::copy_engine) {
    if (!first) {
      Rank& to = *ranks_[static_cast<size_t>(r - 1)];
      k.stamped(stamp, copy, "halo_gradient", [&] {
        push({k.d_keys.get(), to.returned_keys.get(), key_bytes}, k.device, to.device, copy);
        push({k.d_values.get(), to.returned_values.get(), value_bytes}, k.device, to.device, copy);
      });
    }
    k.returned->record(copy);
    k.returned_count.advance_to(1);
    if (!last) {
      Rank& from = *ranks_[static_cast<size_t>(r + 1)];
      from.returned_count.await(1, pool_);
      ORRERY_CUDA(cudaStreamWaitEvent(compute, *from.returned, 0));
    }
  } else {
#if ORRERY_HAVE_NCCL
    const ncclComm_t comm = NcclWorld::with_channels(shape_.channels).comm(r);
    const auto key_count = static_cast<size_t>(key_bytes / 2), value_count = static_cast<size_t>(value_bytes / 2);
    k.stamped(stamp, copy, "halo_gradient", [&] {
      ORRERY_NCCL(ncclGroupStart());
      if (!first) {
        ORRERY_NCCL(ncclSend(k.d_keys.get(), key_count, ncclBfloat16, r - 1, comm, copy));
        ORRERY_NCCL(ncclSend(k.d_values.get(), value_count, ncclBfloat16, r - 1, comm, copy));
      }
      if (!last) {
        ORRERY_NCCL(ncclRecv(k.returned_keys.get(), key_count, ncclBfloat16, r + 1, comm, copy));
        ORRERY_NCCL(ncclRecv(k.returned_values.get(), value_count, ncclBfloat16, r + 1, comm, copy));
      }
      ORRERY_NCCL(ncclGroupEnd());
    });
    k.returned->record(copy);
    ORRERY_CUDA(cudaStreamWaitEvent(compute, *k.returned, 0));
#endif
  }
  if (last) return;
  k.stamped(stamp, compute, "accumulate", [&] {
    auto *d_keys = k.d_keys.as<Bf16Bits>() + shape_.n * kv_row,
         *d_values = k.d_values.as<Bf16Bits>() + shape_.n * kv_row;
    add(d_keys, d_keys, k.returned_keys.get(), key_bytes / 2, compute);
    add(d_values, d_values, k.returned_values.get(), value_bytes / 2, compute);
  });
}

}  // namespace orrery
