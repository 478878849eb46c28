// What a rank queues for the steps of a ring, forward and backward: transfers, attention, merges, and the waits between
// them and the neighbours.
#include "kernels/ring_rank.hpp"
#if ORRERY_HAVE_NCCL
#include "kernels/nccl_world.hpp"
#endif

namespace orrery {

cudaEvent_t Ring::block_arrival(int r, int step) {
  Rank& k = rank(r);
  if (shape_.transport == Transport::nccl) return k.sent[k.base + step - 1];  // sends and receives are one operation
  Rank& from = rank(previous(r));
  from.sent_count.await(k.base + step, run_.pool());
  return from.sent[k.base + step - 1];
}

void Ring::send_block(int r, int step, bool after_forward) {
  Rank &k = rank(r), &to = rank(next(r));
  const cudaStream_t stream = k.copy;
  const size_t bytes = k.own.bytes();
  const int slot = (step + 1) & 1, base = k.base;
  const bool copies = shape_.transport == Transport::copy_engine;
  if (step > 0) wait(stream, block_arrival(r, step));
  // The buffer it goes to must be free: the block in it attended to, and sent on. Before step 0 of a backward pass
  // that follows a forward pass, that was the forward pass's last.
  Rank& target = copies ? to : k;
  const int last = step > 0 ? base + step - 1 : after_forward ? base - 1 : -1;
  if (last >= 0) {
    if (copies) target.consumed_count.await(last + 1, run_.pool());
    wait(stream, target.consumed[last]);
    const int last_sent = step > 0 ? last : last - 1;
    if (copies && last_sent >= 0) {
      target.sent_count.await(last_sent + 1, run_.pool());
      wait(stream, target.sent[last_sent]);
    }
  }
  k.on.stamped(stream, step, "kv_transfer", [&] {
    if (copies) {
      const auto size = static_cast<int64_t>(bytes);
      copy_between(to.buffer[slot].get(), to.on.device(), k.block(step), k.on.device(), size, stream);
      return;
    }
#if ORRERY_HAVE_NCCL
    const ncclComm_t comm = NcclWorld::with_channels(shape_.channels, 0).comm(r);
    NcclGroup group;
    ORRERY_NCCL(ncclSend(k.block(step), bytes / 2, ncclBfloat16, next(r), comm, stream));
    ORRERY_NCCL(ncclRecv(k.buffer[slot].get(), bytes / 2, ncclBfloat16, previous(r), comm, stream));
    group.end();
#endif
  });
  k.sent[base + step].record(stream);
  k.sent_count.advance_to(base + step + 1);
}

void Ring::queue_forward(int r) {
  Rank& k = rank(r);
  const cudaStream_t compute = k.compute;
  k.base = 0;
  for (int step = 0; step < steps(); ++step) {
    if (step + 1 < steps()) send_block(r, step, false);
    if (step > 0) wait(compute, block_arrival(r, step));
    const BlockWork w = work(r, step);
    if (w.any) k.on.stamped(compute, step, "attention", [&] { k.forward[step]->run(compute); });
    k.consumed[step].record(compute);
    k.consumed_count.advance_to(step + 1);
    if (!w.any) continue;
    MergeShape m;
    m.n_q = w.q_count;
    m.heads = shard_.heads;
    m.head_dim = shard_.head_dim;
    m.lse_stride = shard_.n;
    k.on.stamped(compute, step, "merge", [&] {
      merge_block(m, at<float>(k.o_sum, w.q_from * shard_.row()), at<float>(k.lse, w.q_from), k.o_block.get(),
                  k.lse_block.as<float>(), step == 0, compute);
    });
  }
  k.on.stamped(compute, steps() - 1, "cast",
               [&] { to_bf16(k.o.get(), k.o_sum.as<float>(), shard_.q_count(), compute); });
}

// The gradient sum of a block follows the block: it arrives, this rank's part is added, it goes on; after the last step
// it goes home.
void Ring::send_gradient(int r, int step) {
  Rank &k = rank(r), &to = rank(next(r));
  const cudaStream_t stream = k.gradient;
  const bool copies = shape_.transport == Transport::copy_engine, home = step + 1 == steps();
  const size_t bytes = k.dkv_home.bytes();
  void* from = k.dkv_sum[step & 1].get();
  wait(stream, k.gradient_added[step]);
  if (copies && step > 0) {  // the neighbour has sent on what lay there
    to.gradient_count.await(step, run_.pool());
    wait(stream, to.gradient_sent[step - 1]);
  }
  k.on.stamped(stream, step, "gradient_transfer", [&] {
    if (copies) {
      void* target = home ? to.dkv_home.get() : to.dkv_sum[(step + 1) & 1].get();
      copy_between(target, to.on.device(), from, k.on.device(), static_cast<int64_t>(bytes), stream);
      return;
    }
#if ORRERY_HAVE_NCCL
    void* target = home ? k.dkv_home.get() : k.dkv_sum[(step + 1) & 1].get();
    const ncclComm_t comm = NcclWorld::with_channels(shape_.channels, 1).comm(r);
    NcclGroup group;
    ORRERY_NCCL(ncclSend(from, bytes / 4, ncclFloat32, next(r), comm, stream));
    ORRERY_NCCL(ncclRecv(target, bytes / 4, ncclFloat32, previous(r), comm, stream));
    group.end();
#endif
  });
  k.gradient_sent[step].record(stream);
  k.gradient_count.advance_to(step + 1);
}

cudaEvent_t Ring::gradient_arrival(int r, int step) {
  Rank& k = rank(r);
  if (shape_.transport == Transport::nccl) return k.gradient_sent[step - 1];
  Rank& from = rank(previous(r));
  from.gradient_count.await(step, run_.pool());
  return from.gradient_sent[step - 1];
}

void Ring::queue_backward(int r, bool after_forward) {
  Rank& k = rank(r);
  const cudaStream_t compute = k.compute;
  const int64_t row = shard_.row(), kv_row = shard_.kv_row();
  k.base = steps();
  if (const BlockWork part = partial_queries(shape_); part.any) {  // their LSE, packed as the kernels read it
    const auto width = static_cast<size_t>(part.q_count) * 4, pitch = static_cast<size_t>(shard_.n) * 4;
    ORRERY_CUDA(cudaMemcpy2DAsync(k.lse_part.get(), width, at<float>(k.lse, part.q_from), pitch, width,
                                  static_cast<size_t>(shard_.heads), cudaMemcpyDeviceToDevice, compute));
  }
  for (int step = 0; step < steps(); ++step) {
    if (step + 1 < steps()) send_block(r, step, after_forward);
    if (step > 0) wait(compute, block_arrival(r, step));
    const BlockWork w = work(r, step);
    if (w.any) k.on.stamped(compute, step, "attention", [&] { k.backward[step]->run(compute); });
    k.consumed[k.base + step].record(compute);
    k.consumed_count.advance_to(k.base + step + 1);
    if (w.any) {
      k.on.stamped(compute, step, "accumulate", [&] {
        accumulate(at<float>(k.dq_sum, w.q_from * row), k.dq_part.get(), w.q_count * row, step == 0, compute);
      });
    }
    if (step > 0) wait(compute, gradient_arrival(r, step));
    if (w.any) {
      const DeviceBuffer& sum = k.dkv_sum[step & 1];
      const int64_t count = w.k_count * kv_row;
      k.on.stamped(compute, step, "accumulate", [&] {
        accumulate(sum.as<float>(), k.dkv_part.get(), count, step == 0, compute);
        accumulate(at<float>(sum, shard_.kv_count()), at<Bf16Bits>(k.dkv_part, count), count, step == 0, compute);
      });
    }
    k.gradient_added[step].record(compute);
    if (steps() > 1) send_gradient(r, step);
  }
  DeviceBuffer& home = steps() > 1 ? k.dkv_home : k.dkv_sum[0];
  if (steps() > 1) wait(compute, gradient_arrival(r, steps()));
  k.on.stamped(compute, steps() - 1, "cast", [&] {
    to_bf16(k.dq.get(), k.dq_sum.as<float>(), shard_.q_count(), compute);
    to_bf16(k.dkv.get(), home.as<float>(), 2 * shard_.kv_count(), compute);
  });
}

}  // namespace orrery
