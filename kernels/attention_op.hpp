// Attention blocks ready to run on a GPU: compiled cuDNN plans are cached and shared, bindings belong to the caller.
#pragma once
#include <memory>

#include "kernels/cudnn_attention.hpp"
#include "kernels/device.hpp"

namespace orrery {

enum class Pass { forward, backward };

struct AttentionPlanKey {
  AttentionShape shape;
  Pass pass;
};

// The calling thread's handle on a GPU.
cudnnHandle_t cudnn_handle(int device);
// Compiling takes about a second a plan, so the rows' plans are compiled by many threads before anything is timed. Two
// threads that ask for one plan share the work. Throws with cuDNN's reason if it refuses the shape.
std::shared_ptr<const CudnnPlan> attention_plan(const AttentionPlanKey& key, int device);

// Pointers as in cudnn_attention.hpp; half blocks are passed as pointers into the whole.
class AttentionForward {
 public:
  AttentionForward(const AttentionShape& shape, int device, const void* q, const void* k, const void* v, void* lse,
                   void* o);
  void run(cudaStream_t stream) const;

 private:
  int device_;
  std::shared_ptr<const CudnnPlan> plan_;
  DeviceBuffer workspace_;
  std::unique_ptr<CudnnBinding> binding_;
};

class AttentionBackward {
 public:
  AttentionBackward(const AttentionShape& shape, int device, const void* q, const void* k, const void* v, const void* o,
                    const void* d_o, const void* lse, void* dq, void* dk, void* dv);
  void run(cudaStream_t stream) const;

 private:
  int device_;
  std::shared_ptr<const CudnnPlan> plan_;
  DeviceBuffer workspace_, row_sum_, dq_sum_;
  std::unique_ptr<CudnnBinding> binding_;
};

}  // namespace orrery
