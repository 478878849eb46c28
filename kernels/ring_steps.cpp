// What a rank queues for the steps of a ring, forward and backward: transfers, attention, merges, and the waits between
// them and the neighbours.
#include "kernels/ring_rank.hpp"
#if ORRERY_HAVE_NCCL
#include "kernels/nccl_world.hpp"
#endif

namespace orrery {
namespace {
void wait(cudaStream_t stream, cudaEvent_t event) {
  ORRERY_CUDA(cudaStreamWaitEvent(stream, event, 0));
}
}  // namespace

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
  if (const BlockWork part = partial_queries(shape_); part.any) {  // their LSE, packed as the kernels read it
    const auto width = static_cast<size_t>(part.q_count) * 4, pitch = static_cast<size_t>(shape_.n) * 4;
    ORRERY_CUDA(cudaMemcpy2DAsync(k.lse_part.get(), width, at<float>(k.lse, part.q_from), pitch, width,
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

}  // namespace orrery
