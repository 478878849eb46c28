// What a rank of pi-Attention queues: the halo, attention and the gate; backward, their gradients and the halo's way
// home.
#include "kernels/elementwise.hpp"
#include "kernels/pi_halo_rank.hpp"
#if ORRERY_HAVE_NCCL
#include "kernels/nccl_world.hpp"
#endif

namespace orrery {

void PiHalo::queue_forward(int r) {
  Rank& k = rank(r);
  const cudaStream_t compute = k.compute, copy = k.copy;
  const bool first = r == 0, last = r + 1 == shape_.ranks;
  const int64_t kv_row = shape_.kv_heads * shape_.head_dim;
  const int64_t key_bytes = shape_.key_halo() * kv_row * 2, value_bytes = shape_.value_halo() * kv_row * 2;
  // The last rows of this rank: its keys start at row halo, so they are rows n .. n + halo of the buffer.
  const auto *keys = k.keys.as<Bf16Bits>() + shape_.n * kv_row, *values = k.values.as<Bf16Bits>() + shape_.n * kv_row;
  if (shape_.transport == Transport::copy_engine) {
    if (!last) {
      Rank& to = rank(r + 1);
      k.on.stamped(copy, 0, "halo", [&] {
        copy_between(to.keys.get(), to.on.device(), keys, k.on.device(), key_bytes, copy);
        copy_between(to.values.get(), to.on.device(), values, k.on.device(), value_bytes, copy);
      });
    }
    k.sent.record(copy);
    k.sent_count.advance_to(1);
    if (!first) {
      Rank& from = rank(r - 1);
      from.sent_count.await(1, run_.pool());
      wait(compute, from.sent);
    }
  } else {
#if ORRERY_HAVE_NCCL
    const ncclComm_t comm = NcclWorld::with_channels(shape_.channels).comm(r);
    const auto key_count = static_cast<size_t>(key_bytes / 2), value_count = static_cast<size_t>(value_bytes / 2);
    k.on.stamped(copy, 0, "halo", [&] {
      NcclGroup group;
      if (!last) {
        ORRERY_NCCL(ncclSend(keys, key_count, ncclBfloat16, r + 1, comm, copy));
        ORRERY_NCCL(ncclSend(values, value_count, ncclBfloat16, r + 1, comm, copy));
      }
      if (!first) {
        ORRERY_NCCL(ncclRecv(k.keys.get(), key_count, ncclBfloat16, r - 1, comm, copy));
        ORRERY_NCCL(ncclRecv(k.values.get(), value_count, ncclBfloat16, r - 1, comm, copy));
      }
      group.end();
    });
    k.sent.record(copy);
    wait(compute, k.sent);
#endif
  }
  k.on.stamped(compute, 0, "attention", [&] { k.attention->run(compute); });
  if (!k.gated) return;
  k.on.stamped(compute, 0, "gate", [&] {
    gate_skip(shape_.gate(first), k.out.get(), k.o.get(), k.values.as<Bf16Bits>() + shape_.value_halo() * kv_row,
              k.gate.as<float>(), compute);
  });
}

void PiHalo::queue_backward(int r, bool) {
  Rank& k = rank(r);
  const cudaStream_t compute = k.compute, copy = k.copy;
  const bool first = r == 0, last = r + 1 == shape_.ranks;
  const int64_t kv_row = shape_.kv_heads * shape_.head_dim;
  const int64_t key_bytes = shape_.key_halo() * kv_row * 2, value_bytes = shape_.value_halo() * kv_row * 2;
  const GateSkip gate = shape_.gate(first);
  if (k.gated) {
    k.on.stamped(compute, 0, "gate_gradient", [&] {
      gate_skip_backward(gate, k.d_o.get(), k.d_gate.as<float>(), k.d_out.get(), k.o.get(),
                         k.values.as<Bf16Bits>() + shape_.value_halo() * kv_row, k.gate.as<float>(), compute);
    });
  }
  k.on.stamped(compute, 0, "attention_gradient", [&] { k.gradient->run(compute); });
  if (k.gated) {
    k.on.stamped(compute, 0, "skip_gradient", [&] {
      gate_skip_values(gate, k.d_values.as<Bf16Bits>() + shape_.value_halo() * kv_row, k.d_out.get(),
                       k.gate.as<float>(), first ? 0 : -shape_.key_halo(), compute);
    });
  }
  k.computed.record(compute);
  wait(copy, k.computed);
  if (shape_.transport == Transport::copy_engine) {
    if (!first) {
      Rank& to = rank(r - 1);
      k.on.stamped(copy, 0, "halo_gradient", [&] {
        copy_between(to.returned_keys.get(), to.on.device(), k.d_keys.get(), k.on.device(), key_bytes, copy);
        copy_between(to.returned_values.get(), to.on.device(), k.d_values.get(), k.on.device(), value_bytes, copy);
      });
    }
    k.returned.record(copy);
    k.returned_count.advance_to(1);
    if (!last) {
      Rank& from = rank(r + 1);
      from.returned_count.await(1, run_.pool());
      wait(compute, from.returned);
    }
  } else {
#if ORRERY_HAVE_NCCL
    const ncclComm_t comm = NcclWorld::with_channels(shape_.channels).comm(r);
    const auto key_count = static_cast<size_t>(key_bytes / 2), value_count = static_cast<size_t>(value_bytes / 2);
    k.on.stamped(copy, 0, "halo_gradient", [&] {
      NcclGroup group;
      if (!first) {
        ORRERY_NCCL(ncclSend(k.d_keys.get(), key_count, ncclBfloat16, r - 1, comm, copy));
        ORRERY_NCCL(ncclSend(k.d_values.get(), value_count, ncclBfloat16, r - 1, comm, copy));
      }
      if (!last) {
        ORRERY_NCCL(ncclRecv(k.returned_keys.get(), key_count, ncclBfloat16, r + 1, comm, copy));
        ORRERY_NCCL(ncclRecv(k.returned_values.get(), value_count, ncclBfloat16, r + 1, comm, copy));
      }
      group.end();
    });
    k.returned.record(copy);
    wait(compute, k.returned);
#endif
  }
  if (last) return;
  k.on.stamped(compute, 0, "accumulate", [&] {
    auto *d_keys = k.d_keys.as<Bf16Bits>() + shape_.n * kv_row,
         *d_values = k.d_values.as<Bf16Bits>() + shape_.n * kv_row;
    add(d_keys, d_keys, k.returned_keys.get(), key_bytes / 2, compute);
    add(d_values, d_values, k.returned_values.get(), value_bytes / 2, compute);
  });
}

}  // namespace orrery
