// A thin layer over cuDNN's backend C API: tensors and operations are added to a graph, the graph becomes a plan, a
// plan is executed with a binding (the pointers of its tensors). Everything owns its descriptors; every call is
// checked.
//
// Nothing here knows attention; cudnn_attention.cpp builds that graph.
#pragma once
#include <cudnn.h>

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "kernels/check.hpp"

namespace orrery {

void check_cudnn(cudnnStatus_t status, const char* call, const char* file, int line);
#define ORRERY_CUDNN(call) ::orrery::check_cudnn((call), #call, __FILE__, __LINE__)

class CudnnDescriptor {
 public:
  CudnnDescriptor() = default;
  explicit CudnnDescriptor(cudnnBackendDescriptorType_t type);
  CudnnDescriptor(CudnnDescriptor&& other) noexcept : raw_(std::exchange(other.raw_, nullptr)) {}
  CudnnDescriptor& operator=(CudnnDescriptor&& other) noexcept {
    std::swap(raw_, other.raw_);
    return *this;
  }
  ~CudnnDescriptor() {
    if (raw_) cudnnBackendDestroyDescriptor(raw_);
  }

  void set(cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type, int64_t count, const void* values);
  void set(cudnnBackendAttributeName_t name, const CudnnDescriptor& other) {
    set(name, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &other.raw_);
  }
  void finalize();
  cudnnBackendDescriptor_t raw() const { return raw_; }

 private:
  cudnnBackendDescriptor_t raw_ = nullptr;
};

// The pointers of one execution.
class CudnnBinding {
 public:
  CudnnBinding(const std::vector<int64_t>& ids, const std::vector<void*>& pointers, void* workspace);
  cudnnBackendDescriptor_t raw() const { return pack_.raw(); }

 private:
  CudnnDescriptor pack_;
};

class CudnnPlan {
 public:
  int64_t workspace_bytes() const { return workspace_bytes_; }
  // `pointers` in the order in which the graph's real tensors were added; scalars are bound to the graph's own values.
  CudnnBinding bind(const std::vector<void*>& pointers, void* workspace) const;
  void execute(cudnnHandle_t handle, const CudnnBinding& binding) const;

 private:
  friend class CudnnGraph;
  CudnnDescriptor plan_;
  std::vector<CudnnDescriptor> keep_;  // what the plan was made from
  std::vector<int64_t> tensor_ids_, scalar_ids_;
  std::shared_ptr<std::vector<float>> scalars_;
  std::shared_ptr<std::vector<int32_t>> integers_;
  std::vector<void*> scalar_pointers_;
  int64_t workspace_bytes_ = 0;
};

class CudnnGraph {
 public:
  using Tensor = int;
  using Shape = std::vector<int64_t>;

  CudnnGraph();
  Tensor tensor(cudnnDataType_t type, const Shape& dims, const Shape& strides);
  Tensor internal(cudnnDataType_t type, const Shape& dims, const Shape& strides);
  Tensor internal(cudnnDataType_t type, const Shape& dims);  // packed, last dimension fastest
  Tensor scalar(float value);
  Tensor scalar(int32_t value);

  void matmul(Tensor a, Tensor b, Tensor c);
  void pointwise(cudnnPointwiseMode_t mode, cudnnDataType_t compute, Tensor x, Tensor y);
  void pointwise(cudnnPointwiseMode_t mode, cudnnDataType_t compute, Tensor x, Tensor b, Tensor y);
  void index(int64_t axis, Tensor x, Tensor y);
  void select(Tensor if_true, Tensor if_false, Tensor condition, Tensor y);
  void reduce(cudnnReduceTensorOp_t op, Tensor x, Tensor y);
  void reshape(Tensor x, Tensor y);

  const Shape& dims(Tensor t) const { return tensors_[t].dims; }

  // The first engine the heuristics name that accepts the graph. Throws with cuDNN's reason if there is none.
  CudnnPlan build(cudnnHandle_t handle) &&;

 private:
  struct Entry {
    CudnnDescriptor descriptor;
    Shape dims;
  };
  Tensor add(cudnnDataType_t type, const Shape& dims, const Shape& strides, bool is_virtual, bool by_value);

  std::vector<Entry> tensors_;
  std::vector<CudnnDescriptor> operations_, parts_;
  std::vector<int64_t> tensor_ids_, scalar_ids_;
  std::vector<std::pair<bool, size_t>> scalar_slots_;  // (is an integer, index)
  std::vector<float> scalars_;
  std::vector<int32_t> integers_;
};

}  // namespace orrery
