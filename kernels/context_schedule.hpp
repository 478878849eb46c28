// Schedules of exact attention over a sequence that lies on several ranks, and the table of them.
#pragma once
#include "kernels/attention_op.hpp"
#include "kernels/rank_run.hpp"

namespace orrery {

// Where a rank's tensors lie (own or attended shard of the shape, see context_shape.hpp), bf16; keys and values in one
// buffer, so are their gradients. Without a backward pass the last three are null.
struct ShardTensors {
  void *q = nullptr, *kv = nullptr, *o = nullptr;
  float* lse = nullptr;  // [heads][n]; null where the rank has it in parts or of other heads
  void *d_o = nullptr, *dq = nullptr, *dkv = nullptr;
};

class ContextSchedule : public Schedule {
 public:
  explicit ContextSchedule(const ContextShape& shape) : shape_(shape) {}
  const ContextShape& shape() const { return shape_; }
  virtual ShardTensors tensors(int rank) const = 0;

 protected:
  const ContextShape shape_;
};

void fill_random(RankRun& run, const ContextSchedule& schedule, uint64_t seed);
// Host data in bf16 bits, token-major, in the rank's own token order.
void upload(RankRun& run, const ContextSchedule& schedule, int rank, const std::vector<uint16_t>& q,
            const std::vector<uint16_t>& k, const std::vector<uint16_t>& v, const std::vector<uint16_t>& d_o);
struct ShardResult {
  std::vector<double> o, lse, dq, dk, dv;
};
ShardResult download(RankRun& run, const ContextSchedule& schedule, int rank, bool backward);

// A row of the table of schedules. `name` as in `orrery list schedules`, `implementation` as `orrery validate` reads
// it.
struct ContextScheduleKind {
  const char *name, *implementation, *what;
  std::unique_ptr<ContextSchedule> (*make)(RankRun& run, const ContextShape& shape, bool backward);
  // All plans it needs, so that they can be compiled beforehand.
  std::vector<AttentionPlanKey> (*plans)(const ContextShape& shape, bool backward);
};
const std::vector<ContextScheduleKind>& context_schedules();
const ContextScheduleKind& context_schedule(const std::string& name);

std::unique_ptr<ContextSchedule> make_ring(RankRun& run, const ContextShape& shape, bool backward);
std::unique_ptr<ContextSchedule> make_all_gather(RankRun& run, const ContextShape& shape, bool backward);
// Heads exchanged between the members of a group, around one kernel (a single group) or a ring of the groups.
std::unique_ptr<ContextSchedule> make_head_exchange(RankRun& run, const ContextShape& shape, bool backward);
std::vector<AttentionPlanKey> ring_plans(const ContextShape& shape, bool backward);
std::vector<AttentionPlanKey> whole_sequence_plans(const ContextShape& shape, bool backward);

// --- For the files of the schedules ---

using Bf16Bits = uint16_t;

template <class T>
T* at(const DeviceBuffer& buffer, int64_t count) {
  return buffer.as<T>() + count;
}
inline void* bf16_at(void* tensor, int64_t count) {
  return static_cast<Bf16Bits*>(tensor) + count;
}
// NaN throughout, so that what nobody writes shows in the result.
DeviceBuffer poisoned(int64_t bytes);

}  // namespace orrery
