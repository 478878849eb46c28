#include "kernels/context_schedule.hpp"

#include <algorithm>

namespace orrery {

const std::vector<ContextScheduleKind>& context_schedules() {
  static const std::vector<ContextScheduleKind> table{
      {"ring", "orrery_ring", "exact ring attention, blocks by cuDNN", make_ring, ring_plans},
      {"all_gather", "orrery_all_gather", "keys and values of all ranks gathered, then attention by cuDNN",
       make_all_gather, whole_sequence_plans},
      {"ulysses", "orrery_ulysses", "tokens for heads by an all-to-all, then attention by cuDNN", make_head_exchange,
       whole_sequence_plans},
      {"usp", "orrery_usp", "tokens for heads inside groups, a ring of the groups", make_head_exchange, ring_plans},
  };
  return table;
}

const ContextScheduleKind& context_schedule(const std::string& name) {
  const auto& all = context_schedules();
  const auto found = std::find_if(all.begin(), all.end(), [&](const ContextScheduleKind& k) { return k.name == name; });
  if (found == all.end()) throw BenchError("no schedule " + name);
  return *found;
}

DeviceBuffer poisoned(int64_t bytes) {
  DeviceBuffer buffer(static_cast<size_t>(bytes));
  if (bytes > 0) ORRERY_CUDA(cudaMemset(buffer.get(), 0xff, buffer.bytes()));
  return buffer;
}

void fill_random(RankRun& run, const ContextSchedule& schedule, uint64_t seed) {
  const Shard shard = schedule.shape().own();
  const auto q_count = static_cast<size_t>(shard.q_count()), kv_count = static_cast<size_t>(2 * shard.kv_count());
  run.on_all([&](int r) {
    const ShardTensors t = schedule.tensors(r);
    const cudaStream_t stream = run[r].compute();
    const uint64_t s = seed * 64 + static_cast<uint64_t>(r) * 4;
    fill_normal_bf16(t.q, q_count, s + 1, stream);
    fill_normal_bf16(t.kv, kv_count, s + 2, stream);
    if (t.d_o) fill_normal_bf16(t.d_o, q_count, s + 3, stream);
    ORRERY_CUDA(cudaStreamSynchronize(stream));
  });
}

void upload(RankRun& run, const ContextSchedule& schedule, int r, const std::vector<uint16_t>& q,
            const std::vector<uint16_t>& keys, const std::vector<uint16_t>& values, const std::vector<uint16_t>& d_o) {
  OnDevice on(run[r].device());
  const ShardTensors t = schedule.tensors(r);
  auto copy = [](void* to, const std::vector<uint16_t>& from) {
    ORRERY_CUDA(cudaMemcpy(to, from.data(), from.size() * 2, cudaMemcpyHostToDevice));
  };
  copy(t.q, q);
  copy(t.kv, keys);
  copy(bf16_at(t.kv, schedule.shape().own().kv_count()), values);
  if (t.d_o) copy(t.d_o, d_o);
}

ShardResult download(RankRun& run, const ContextSchedule& schedule, int r, bool backward) {
  OnDevice on(run[r].device());
  const ShardTensors t = schedule.tensors(r);
  const Shard shard = schedule.shape().own();
  const auto q_count = static_cast<size_t>(shard.q_count()), kv_count = static_cast<size_t>(shard.kv_count());
  ShardResult out;
  out.o = download_bf16(t.o, q_count);
  if (t.lse) out.lse = download_f32(t.lse, static_cast<size_t>(shard.n * shard.heads));
  if (!backward) return out;
  out.dq = download_bf16(t.dq, q_count);
  out.dk = download_bf16(t.dkv, kv_count);
  out.dv = download_bf16(bf16_at(t.dkv, shard.kv_count()), kv_count);
  return out;
}

}  // namespace orrery
