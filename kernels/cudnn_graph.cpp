#include "kernels/cudnn_graph.hpp"

namespace orrery {

void check_cudnn(cudnnStatus_t status, const char* call, const char* file, int line) {
  if (status == CUDNN_STATUS_SUCCESS) return;
  char reason[1024] = "";
  cudnnGetLastErrorString(reason, sizeof reason);
  std::string text = std::string(call) + ": " + cudnnGetErrorString(status);
  if (reason[0]) text += std::string(": ") + reason;
  for (char& c : text) {
    if (c == '\n') c = ' ';
  }
  throw BenchError(text + " (" + file + ":" + std::to_string(line) + ")");
}

CudnnDescriptor::CudnnDescriptor(cudnnBackendDescriptorType_t type) {
  ORRERY_CUDNN(cudnnBackendCreateDescriptor(type, &raw_));
}

void CudnnDescriptor::set(cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type, int64_t count,
                          const void* values) {
  ORRERY_CUDNN(cudnnBackendSetAttribute(raw_, name, type, count, values));
}

void CudnnDescriptor::finalize() {
  ORRERY_CUDNN(cudnnBackendFinalize(raw_));
}

CudnnBinding::CudnnBinding(const std::vector<int64_t>& ids, const std::vector<void*>& pointers, void* workspace)
    : pack_(CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR) {
  if (ids.size() != pointers.size()) throw BenchError("a cuDNN binding needs one pointer for every tensor");
  const auto count = static_cast<int64_t>(ids.size());
  pack_.set(CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, CUDNN_TYPE_INT64, count, ids.data());
  pack_.set(CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, CUDNN_TYPE_VOID_PTR, count, pointers.data());
  pack_.set(CUDNN_ATTR_VARIANT_PACK_WORKSPACE, CUDNN_TYPE_VOID_PTR, 1, &workspace);
  pack_.finalize();
}

CudnnBinding CudnnPlan::bind(const std::vector<void*>& pointers, void* workspace) const {
  std::vector<int64_t> ids = tensor_ids_;
  std::vector<void*> all = pointers;
  ids.insert(ids.end(), scalar_ids_.begin(), scalar_ids_.end());
  all.insert(all.end(), scalar_pointers_.begin(), scalar_pointers_.end());
  return CudnnBinding(ids, all, workspace);
}

void CudnnPlan::execute(cudnnHandle_t handle, const CudnnBinding& binding) const {
  ORRERY_CUDNN(cudnnBackendExecute(handle, plan_.raw(), binding.raw()));
}

CudnnGraph::CudnnGraph() = default;

CudnnGraph::Tensor CudnnGraph::add(cudnnDataType_t type, const Shape& dims, const Shape& strides, bool is_virtual,
                                   bool by_value) {
  const auto id = static_cast<int64_t>(tensors_.size()) + 1;
  const int64_t alignment = 16;
  CudnnDescriptor t(CUDNN_BACKEND_TENSOR_DESCRIPTOR);
  t.set(CUDNN_ATTR_TENSOR_DATA_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &type);
  t.set(CUDNN_ATTR_TENSOR_DIMENSIONS, CUDNN_TYPE_INT64, static_cast<int64_t>(dims.size()), dims.data());
  t.set(CUDNN_ATTR_TENSOR_STRIDES, CUDNN_TYPE_INT64, static_cast<int64_t>(strides.size()), strides.data());
  t.set(CUDNN_ATTR_TENSOR_UNIQUE_ID, CUDNN_TYPE_INT64, 1, &id);
  t.set(CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, CUDNN_TYPE_INT64, 1, &alignment);
  t.set(CUDNN_ATTR_TENSOR_IS_VIRTUAL, CUDNN_TYPE_BOOLEAN, 1, &is_virtual);
  t.set(CUDNN_ATTR_TENSOR_IS_BY_VALUE, CUDNN_TYPE_BOOLEAN, 1, &by_value);
  t.finalize();
  if (by_value) {
    scalar_ids_.push_back(id);
  } else if (!is_virtual) {
    tensor_ids_.push_back(id);
  }
  tensors_.push_back({std::move(t), dims});
  return static_cast<Tensor>(tensors_.size()) - 1;
}

CudnnGraph::Tensor CudnnGraph::tensor(cudnnDataType_t type, const Shape& dims, const Shape& strides) {
  return add(type, dims, strides, false, false);
}

CudnnGraph::Tensor CudnnGraph::internal(cudnnDataType_t type, const Shape& dims, const Shape& strides) {
  return add(type, dims, strides, true, false);
}

CudnnGraph::Tensor CudnnGraph::internal(cudnnDataType_t type, const Shape& dims) {
  Shape strides(dims.size(), 1);
  for (size_t i = dims.size() - 1; i > 0; --i) strides[i - 1] = strides[i] * dims[i];
  return add(type, dims, strides, true, false);
}

CudnnGraph::Tensor CudnnGraph::scalar(float value) {
  scalar_slots_.push_back({false, scalars_.size()});
  scalars_.push_back(value);
  return add(CUDNN_DATA_FLOAT, {1, 1, 1, 1}, {1, 1, 1, 1}, false, true);
}

CudnnGraph::Tensor CudnnGraph::scalar(int32_t value) {
  scalar_slots_.push_back({true, integers_.size()});
  integers_.push_back(value);
  return add(CUDNN_DATA_INT32, {1, 1, 1, 1}, {1, 1, 1, 1}, false, true);
}

void CudnnGraph::matmul(Tensor a, Tensor b, Tensor c) {
  const cudnnDataType_t compute = CUDNN_DATA_FLOAT;
  CudnnDescriptor desc(CUDNN_BACKEND_MATMUL_DESCRIPTOR);
  desc.set(CUDNN_ATTR_MATMUL_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &compute);
  desc.finalize();
  CudnnDescriptor op(CUDNN_BACKEND_OPERATION_MATMUL_DESCRIPTOR);
  op.set(CUDNN_ATTR_OPERATION_MATMUL_ADESC, tensors_[a].descriptor);
  op.set(CUDNN_ATTR_OPERATION_MATMUL_BDESC, tensors_[b].descriptor);
  op.set(CUDNN_ATTR_OPERATION_MATMUL_CDESC, tensors_[c].descriptor);
  op.set(CUDNN_ATTR_OPERATION_MATMUL_DESC, desc);
  op.finalize();
  parts_.push_back(std::move(desc));
  operations_.push_back(std::move(op));
}

namespace {
CudnnDescriptor pointwise_descriptor(cudnnPointwiseMode_t mode, cudnnDataType_t compute) {
  CudnnDescriptor desc(CUDNN_BACKEND_POINTWISE_DESCRIPTOR);
  desc.set(CUDNN_ATTR_POINTWISE_MODE, CUDNN_TYPE_POINTWISE_MODE, 1, &mode);
  desc.set(CUDNN_ATTR_POINTWISE_MATH_PREC, CUDNN_TYPE_DATA_TYPE, 1, &compute);
  return desc;
}
}  // namespace

void CudnnGraph::pointwise(cudnnPointwiseMode_t mode, cudnnDataType_t compute, Tensor x, Tensor y) {
  CudnnDescriptor desc = pointwise_descriptor(mode, compute);
  desc.finalize();
  CudnnDescriptor op(CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR);
  op.set(CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, desc);
  op.set(CUDNN_ATTR_OPERATION_POINTWISE_XDESC, tensors_[x].descriptor);
  op.set(CUDNN_ATTR_OPERATION_POINTWISE_YDESC, tensors_[y].descriptor);
  op.finalize();
  parts_.push_back(std::move(desc));
  operations_.push_back(std::move(op));
}

void CudnnGraph::pointwise(cudnnPointwiseMode_t mode, cudnnDataType_t compute, Tensor x, Tensor b, Tensor y) {
  CudnnDescriptor desc = pointwise_descriptor(mode, compute);
  desc.finalize();
  CudnnDescriptor op(CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR);
  op.set(CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, desc);
  op.set(CUDNN_ATTR_OPERATION_POINTWISE_XDESC, tensors_[x].descriptor);
  op.set(CUDNN_ATTR_OPERATION_POINTWISE_BDESC, tensors_[b].descriptor);
  op.set(CUDNN_ATTR_OPERATION_POINTWISE_YDESC, tensors_[y].descriptor);
  op.finalize();
  parts_.push_back(std::move(desc));
  operations_.push_back(std::move(op));
}

void CudnnGraph::index(int64_t axis, Tensor x, Tensor y) {
  CudnnDescriptor desc = pointwise_descriptor(CUDNN_POINTWISE_GEN_INDEX, CUDNN_DATA_FLOAT);
  desc.set(CUDNN_ATTR_POINTWISE_AXIS, CUDNN_TYPE_INT64, 1, &axis);
  desc.finalize();
  CudnnDescriptor op(CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR);
  op.set(CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, desc);
  op.set(CUDNN_ATTR_OPERATION_POINTWISE_XDESC, tensors_[x].descriptor);
  op.set(CUDNN_ATTR_OPERATION_POINTWISE_YDESC, tensors_[y].descriptor);
  op.finalize();
  parts_.push_back(std::move(desc));
  operations_.push_back(std::move(op));
}

void CudnnGraph::select(Tensor if_true, Tensor if_false, Tensor condition, Tensor y) {
  CudnnDescriptor desc = pointwise_descriptor(CUDNN_POINTWISE_BINARY_SELECT, CUDNN_DATA_FLOAT);
  desc.finalize();
  CudnnDescriptor op(CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR);
  op.set(CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, desc);
  op.set(CUDNN_ATTR_OPERATION_POINTWISE_XDESC, tensors_[if_true].descriptor);
  op.set(CUDNN_ATTR_OPERATION_POINTWISE_BDESC, tensors_[if_false].descriptor);
  op.set(CUDNN_ATTR_OPERATION_POINTWISE_TDESC, tensors_[condition].descriptor);
  op.set(CUDNN_ATTR_OPERATION_POINTWISE_YDESC, tensors_[y].descriptor);
  op.finalize();
  parts_.push_back(std::move(desc));
  operations_.push_back(std::move(op));
}

void CudnnGraph::reduce(cudnnReduceTensorOp_t reduction, Tensor x, Tensor y) {
  const cudnnDataType_t compute = CUDNN_DATA_FLOAT;
  CudnnDescriptor desc(CUDNN_BACKEND_REDUCTION_DESCRIPTOR);
  desc.set(CUDNN_ATTR_REDUCTION_OPERATOR, CUDNN_TYPE_REDUCTION_OPERATOR_TYPE, 1, &reduction);
  desc.set(CUDNN_ATTR_REDUCTION_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &compute);
  desc.finalize();
  CudnnDescriptor op(CUDNN_BACKEND_OPERATION_REDUCTION_DESCRIPTOR);
  op.set(CUDNN_ATTR_OPERATION_REDUCTION_DESC, desc);
  op.set(CUDNN_ATTR_OPERATION_REDUCTION_XDESC, tensors_[x].descriptor);
  op.set(CUDNN_ATTR_OPERATION_REDUCTION_YDESC, tensors_[y].descriptor);
  op.finalize();
  parts_.push_back(std::move(desc));
  operations_.push_back(std::move(op));
}

void CudnnGraph::reshape(Tensor x, Tensor y) {
  CudnnDescriptor op(CUDNN_BACKEND_OPERATION_RESHAPE_DESCRIPTOR);
  op.set(CUDNN_ATTR_OPERATION_RESHAPE_XDESC, tensors_[x].descriptor);
  op.set(CUDNN_ATTR_OPERATION_RESHAPE_YDESC, tensors_[y].descriptor);
  op.finalize();
  operations_.push_back(std::move(op));
}

CudnnPlan CudnnGraph::build(cudnnHandle_t handle) && {
  std::vector<cudnnBackendDescriptor_t> raw;
  for (const CudnnDescriptor& op : operations_) raw.push_back(op.raw());
  CudnnDescriptor graph(CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR);
  graph.set(CUDNN_ATTR_OPERATIONGRAPH_OPS, CUDNN_TYPE_BACKEND_DESCRIPTOR, static_cast<int64_t>(raw.size()), raw.data());
  graph.set(CUDNN_ATTR_OPERATIONGRAPH_HANDLE, CUDNN_TYPE_HANDLE, 1, &handle);
  graph.finalize();

  std::string last_reason = "the heuristics named no engine";
  for (cudnnBackendHeurMode_t mode : {CUDNN_HEUR_MODE_A, CUDNN_HEUR_MODE_FALLBACK}) {
    CudnnDescriptor heuristics(CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR);
    heuristics.set(CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, graph);
    heuristics.set(CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE, 1, &mode);
    int64_t count = 0;
    try {
      heuristics.finalize();
      ORRERY_CUDNN(cudnnBackendGetAttribute(heuristics.raw(), CUDNN_ATTR_ENGINEHEUR_RESULTS,
                                            CUDNN_TYPE_BACKEND_DESCRIPTOR, 0, &count, nullptr));
    } catch (const BenchError& error) {
      last_reason = error.what();
      continue;
    }
    std::vector<CudnnDescriptor> configs;
    std::vector<cudnnBackendDescriptor_t> slots;
    for (int64_t i = 0; i < count; ++i) {
      configs.emplace_back(CUDNN_BACKEND_ENGINECFG_DESCRIPTOR);
      slots.push_back(configs.back().raw());
    }
    ORRERY_CUDNN(cudnnBackendGetAttribute(heuristics.raw(), CUDNN_ATTR_ENGINEHEUR_RESULTS,
                                          CUDNN_TYPE_BACKEND_DESCRIPTOR, count, &count, slots.data()));
    for (int64_t i = 0; i < count; ++i) {
      try {
        CudnnDescriptor plan(CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR);
        plan.set(CUDNN_ATTR_EXECUTION_PLAN_HANDLE, CUDNN_TYPE_HANDLE, 1, &handle);
        plan.set(CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, configs[i]);
        plan.finalize();

        CudnnPlan result;
        int64_t got = 0;
        ORRERY_CUDNN(cudnnBackendGetAttribute(plan.raw(), CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE, CUDNN_TYPE_INT64, 1,
                                              &got, &result.workspace_bytes_));
        result.plan_ = std::move(plan);
        result.keep_.push_back(std::move(configs[i]));
        result.keep_.push_back(std::move(graph));
        result.tensor_ids_ = tensor_ids_;
        result.scalar_ids_ = scalar_ids_;
        result.scalars_ = std::make_shared<std::vector<float>>(scalars_);
        result.integers_ = std::make_shared<std::vector<int32_t>>(integers_);
        for (auto [is_integer, slot] : scalar_slots_) {
          result.scalar_pointers_.push_back(is_integer ? static_cast<void*>(result.integers_->data() + slot)
                                                       : static_cast<void*>(result.scalars_->data() + slot));
        }
        for (Entry& t : tensors_) result.keep_.push_back(std::move(t.descriptor));
        for (CudnnDescriptor& d : parts_) result.keep_.push_back(std::move(d));
        for (CudnnDescriptor& d : operations_) result.keep_.push_back(std::move(d));
        return result;
      } catch (const BenchError& error) {
        last_reason = error.what();
      }
    }
  }
  throw BenchError("cuDNN has no plan for this graph: " + last_reason);
}

}  // namespace orrery
