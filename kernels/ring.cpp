#include "kernels/ring_rank.hpp"
#if ORRERY_HAVE_NCCL
#include "kernels/nccl_world.hpp"
#endif

namespace orrery {

std::unique_ptr<ContextSchedule> make_ring(RankRun& run, const ContextShape& shape, bool backward) {
  return std::make_unique<Ring>(run, shape, backward);
}

std::vector<AttentionPlanKey> ring_plans(const ContextShape& s, bool backward) {
  std::vector<AttentionPlanKey> keys;
  for (int group = 0; group < s.groups(); ++group) {
    for (int owner = 0; owner < s.groups(); ++owner) {
      const BlockWork w = block_work(s, group, owner);
      if (!w.any) continue;
      keys.push_back({attention_shape(s, w), Pass::forward});
      if (backward) keys.push_back({attention_shape(s, w), Pass::backward});
    }
  }
  return keys;
}

Ring::Ring(RankRun& run, const ContextShape& shape, bool backward)
    : ContextSchedule(shape), run_(run), shard_(shape.attended()), ranks_(static_cast<size_t>(run.size())) {
  require_even(shape);
#if ORRERY_HAVE_NCCL
  if (shape.transport == Transport::nccl) {
    for (int lane : {0, 1}) NcclWorld::with_channels(shape.channels, lane);
  }
#endif
  run.on_all([&](int r) { make_rank(r, backward); });
}

Ring::~Ring() = default;

void Ring::make_rank(int r, bool with_backward) {
  ranks_[static_cast<size_t>(r)].reset(new Rank(run_[r]));
  Rank& k = rank(r);
  for (int i = 0; i < 2 * steps(); ++i) {
    for (auto* events : {&k.sent, &k.consumed, &k.gradient_sent, &k.gradient_added}) events->emplace_back(false);
  }
  const int64_t q = shard_.q_count(), kv = shard_.kv_count(), rows = shard_.n * shard_.heads;
  k.q = poisoned(q * 2);
  k.own = poisoned(kv * 4);
  for (DeviceBuffer& b : k.buffer) b = poisoned(kv * 4);
  k.o_block = poisoned(q * 2);
  k.lse_block = poisoned(rows * 4);
  k.o_sum = poisoned(q * 4);
  k.lse = poisoned(rows * 4);
  k.o = poisoned(q * 2);
  if (with_backward) {
    k.d_o = poisoned(q * 2);
    k.lse_part = poisoned(rows * 4);
    k.dq_part = poisoned(q * 2);
    k.dkv_part = poisoned(kv * 4);
    k.dq_sum = poisoned(q * 4);
    k.dq = poisoned(q * 2);
    for (DeviceBuffer& b : k.dkv_sum) b = poisoned(kv * 8);
    k.dkv_home = poisoned(kv * 8);
    k.dkv = poisoned(kv * 4);
  }
  for (int step = 0; step < steps(); ++step) make_step(r, step, with_backward);
  ORRERY_CUDA(cudaDeviceSynchronize());
}

void Ring::make_step(int r, int step, bool with_backward) {
  Rank& k = rank(r);
  k.forward.emplace_back();
  k.backward.emplace_back();
  const BlockWork w = work(r, step);
  if (!w.any) return;
  const AttentionShape a = attention_shape(shape_, w);
  const int device = k.on.device();
  void *keys = k.block(step), *values = bf16_at(keys, shard_.kv_count());
  const int64_t q_at = w.q_from * shard_.row();
  k.forward.back().reset(
      new AttentionForward(a, device, at<Bf16Bits>(k.q, q_at), keys, values, k.lse_block.get(), k.o_block.get()));
  if (!with_backward) return;
  k.backward.back().reset(
      new AttentionBackward(a, device, at<Bf16Bits>(k.q, q_at), keys, values, at<Bf16Bits>(k.o, q_at),
                            at<Bf16Bits>(k.d_o, q_at), w.q_from ? k.lse_part.get() : k.lse.get(), k.dq_part.get(),
                            k.dkv_part.get(), at<Bf16Bits>(k.dkv_part, w.k_count * shard_.kv_row())));
}

BlockWork Ring::work(int r, int step) const {
  return block_work(shape_, shape_.group_of(r), shape_.group_of(shape_.neighbour(r, -step)));
}

ShardTensors Ring::tensors(int r) const {
  const Rank& k = rank(r);
  return {k.q.get(), k.own.get(), k.o.get(), k.lse.as<float>(), k.d_o.get(), k.dq.get(), k.dkv.get()};
}

void Ring::begin() {
  for (auto& k : ranks_) {
    k->sent_count.reset();
    k->consumed_count.reset();
    k->gradient_count.reset();
  }
}

}  // namespace orrery
