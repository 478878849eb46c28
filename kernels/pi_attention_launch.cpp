#include "kernels/pi_attention_launch.hpp"

#include <cudaTypedefs.h>
#include <cuda_runtime.h>

namespace orrery {

void require(bool holds, const char* what, const std::string& limit) {
  if (!holds) throw BenchError(std::string(what) + ": " + limit);
}

namespace {

PFN_cuTensorMapEncodeTiled_v12000 tensor_map_encoder() {
  void* entry = nullptr;
  cudaDriverEntryPointQueryResult found{};
  ORRERY_CUDA(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &entry, 12000, cudaEnableDefault, &found));
  require(found == cudaDriverEntryPointSuccess, "pi_attention",
          "the driver has no cuTensorMapEncodeTiled (needs 12.0)");
  return reinterpret_cast<PFN_cuTensorMapEncodeTiled_v12000>(entry);
}

}  // namespace

CUtensorMap tensor_map(const TensorView& v, int box_rows) {
  static const PFN_cuTensorMapEncodeTiled_v12000 encode = tensor_map_encoder();
  constexpr cuuint64_t kColumn = 64;  // numbers: 128 bytes, the width of the swizzle
  const auto columns = static_cast<cuuint64_t>(v.head_dim) / kColumn;
  const auto token_bytes = static_cast<cuuint64_t>(v.heads * v.head_dim * 2);
  const cuuint64_t size[] = {kColumn, static_cast<cuuint64_t>(v.rows), static_cast<cuuint64_t>(v.heads) * columns,
                             static_cast<cuuint64_t>(v.residues)};
  const cuuint64_t stride[] = {token_bytes * static_cast<cuuint64_t>(v.period), 2 * kColumn, token_bytes};
  const cuuint32_t box[] = {kColumn, static_cast<cuuint32_t>(box_rows), static_cast<cuuint32_t>(columns), 1};
  const cuuint32_t step[] = {1, 1, 1, 1};
  CUtensorMap map;
  const CUresult status = encode(&map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 4, const_cast<void*>(v.data), size, stride,
                                 box, step, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
                                 CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  require(status == CUDA_SUCCESS, "pi_attention", "cuTensorMapEncodeTiled failed with code " + std::to_string(status));
  return map;
}

int hopper_multiprocessors() {
  int device = 0, major = 0, count = 0;
  ORRERY_CUDA(cudaGetDevice(&device));
  ORRERY_CUDA(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device));
  ORRERY_CUDA(cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device));
  require(major == 9, "pi_attention",
          "needs a Hopper GPU (compute capability 9), this one has " + std::to_string(major));
  return count;
}

void require_tensors(const char* what, int64_t tokens, int64_t heads, int64_t kv_heads, int64_t head_dim) {
  require(head_dim == 64 || head_dim == 128, what, "head_dim must be 64 or 128, not " + std::to_string(head_dim));
  require(heads >= 1 && kv_heads >= 1 && heads % kv_heads == 0, what, "heads must be a multiple of kv_heads");
  require(heads <= 65536, what, "at most 65536 heads");
  require(tokens >= 1 && tokens < (int64_t{1} << 29), what, "tokens must be from 1 to 2^29 - 1");
}

void require_aligned(const char* what, std::initializer_list<const void*> pointers) {
  for (const void* p : pointers) {
    require(p != nullptr, what, "a tensor is missing (null pointer)");
    require(reinterpret_cast<uintptr_t>(p) % 16 == 0, what, "tensors must be aligned to 16 bytes");
  }
}

}  // namespace orrery
