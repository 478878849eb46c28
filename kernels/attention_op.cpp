#include "kernels/attention_op.hpp"

#include <future>
#include <map>
#include <mutex>
#include <tuple>

namespace orrery {
namespace {

using CacheKey = std::tuple<int, Pass, int64_t, int64_t, int64_t, int64_t, int64_t, Mask, int64_t>;
CacheKey cache_key(const AttentionPlanKey& key, int device) {
  const AttentionShape& s = key.shape;
  return {device, key.pass, s.n_q, s.n_k, s.heads, s.kv_heads, s.head_dim, s.mask, s.window};
}

using PlanPointer = std::shared_ptr<const CudnnPlan>;
std::mutex cache_mutex;
std::map<CacheKey, std::shared_future<PlanPointer>> cache;

void* mutable_pointer(const void* p) {
  return const_cast<void*>(p);
}

}  // namespace

cudnnHandle_t cudnn_handle(int device) {
  struct Handles {
    std::map<int, cudnnHandle_t> by_device;
    ~Handles() {
      for (auto& [device_index, handle] : by_device) cudnnDestroy(handle);
    }
  };
  thread_local Handles handles;
  cudnnHandle_t& handle = handles.by_device[device];
  if (!handle) {
    ORRERY_CUDA(cudaSetDevice(device));
    ORRERY_CUDNN(cudnnCreate(&handle));
  }
  return handle;
}

std::shared_ptr<const CudnnPlan> attention_plan(const AttentionPlanKey& key, int device) {
  std::promise<PlanPointer> promise;
  std::shared_future<PlanPointer> future;
  bool mine = false;
  {
    std::lock_guard<std::mutex> lock(cache_mutex);
    auto [at, added] = cache.emplace(cache_key(key, device), std::shared_future<PlanPointer>());
    if (added) at->second = promise.get_future().share();
    future = at->second;
    mine = added;
  }
  if (mine) {
    try {
      const cudnnHandle_t handle = cudnn_handle(device);
      promise.set_value(std::make_shared<CudnnPlan>(key.pass == Pass::forward
                                                        ? attention_forward_plan(key.shape, handle)
                                                        : attention_backward_plan(key.shape, handle)));
    } catch (...) {
      promise.set_exception(std::current_exception());
    }
  }
  return future.get();
}

AttentionForward::AttentionForward(const AttentionShape& s, int device, const void* q, const void* k, const void* v,
                                   void* lse, void* o)
    : device_(device), plan_(attention_plan({s, Pass::forward}, device)) {
  workspace_ = DeviceBuffer(static_cast<size_t>(plan_->workspace_bytes()));
  binding_.reset(new CudnnBinding(
      plan_->bind({mutable_pointer(q), mutable_pointer(k), mutable_pointer(v), lse, o}, workspace_.get())));
}

void AttentionForward::run(cudaStream_t stream) const {
  const cudnnHandle_t handle = cudnn_handle(device_);
  ORRERY_CUDNN(cudnnSetStream(handle, stream));
  plan_->execute(handle, *binding_);
}

AttentionBackward::AttentionBackward(const AttentionShape& s, int device, const void* q, const void* k, const void* v,
                                     const void* o, const void* d_o, const void* lse, void* dq, void* dk, void* dv)
    : device_(device), plan_(attention_plan({s, Pass::backward}, device)) {
  workspace_ = DeviceBuffer(static_cast<size_t>(plan_->workspace_bytes()));
  row_sum_ = DeviceBuffer(static_cast<size_t>(s.heads * s.n_q) * 4);
  dq_sum_ = DeviceBuffer(static_cast<size_t>(s.heads * s.n_q * s.head_dim) * 4);
  binding_.reset(new CudnnBinding(
      plan_->bind({mutable_pointer(q), mutable_pointer(k), mutable_pointer(v), mutable_pointer(o), mutable_pointer(d_o),
                   mutable_pointer(lse), dq, dk, dv, row_sum_.get(), dq_sum_.get()},
                  workspace_.get())));
}

void AttentionBackward::run(cudaStream_t stream) const {
  const cudnnHandle_t handle = cudnn_handle(device_);
  ORRERY_CUDNN(cudnnSetStream(handle, stream));
  plan_->execute(handle, *binding_);
}

}  // namespace orrery
