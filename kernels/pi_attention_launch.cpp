#include "kernels/pi_attention_launch.hpp"

#include <cudaTypedefs.h>
#include <cuda_runtime.h>

#include <algorithm>

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

RowClasses::RowClasses(int64_t n, int64_t period) : residues(std::min(period, n)), long_residues(n % period) {
  const int64_t short_rows = n / period;
  for (int kind = 0; kind < 2; ++kind) {
    const bool longer = kind == 0 ? long_residues > 0 : short_rows == 0;
    rows[kind] = short_rows + (longer ? 1 : 0);
    in_view[kind] = longer ? long_residues : residues;
  }
}

TileOrder tile_order(const char* what, const RowClasses& classes, int64_t kv_heads, int64_t heads_a_kv_head,
                     int64_t head_bytes) {
  constexpr int64_t kSectionBytes = 32 << 20;
  int64_t in_section = std::max<int64_t>(1, std::min(kv_heads, kSectionBytes / head_bytes));
  while (kv_heads % in_section) --in_section;
  TileOrder order;
  order.q_tiles = Divisor(static_cast<int32_t>((classes.rows[0] + kTileRows - 1) / kTileRows));
  order.section_heads = Divisor(static_cast<int32_t>(in_section * heads_a_kv_head));
  order.sections = Divisor(static_cast<int32_t>(kv_heads / in_section));
  order.residues = static_cast<int32_t>(classes.residues);
  require(order.tiles() < (int64_t{1} << 30), what, "at most 2^30 tiles of 128 rows of a head and a residue");
  return order;
}

int32_t clamp_lag(int64_t lag) {
  return static_cast<int32_t>(std::clamp<int64_t>(lag, -kUnbounded, kUnbounded));
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

void require_pi_shape(const char* what, const PiAttentionShape& s) {
  require_tensors(what, s.n, s.heads, s.kv_heads, s.head_dim);
  require(s.window >= 1, what, "the window counts the query's own token: at least 1");
  require(s.skips >= 0 && (s.skips == 0 || s.period >= 1), what, "skips need a period of at least 1");
  require(!s.has_skips() || s.period * s.heads * s.head_dim * 2 < (int64_t{1} << 40), what,
          "period * heads * head_dim * 2 bytes, the stride of a tensor map, must be below 2^40");
}

void require_aligned(const char* what, std::initializer_list<const void*> pointers) {
  for (const void* p : pointers) {
    require(p != nullptr, what, "a tensor is missing (null pointer)");
    require(reinterpret_cast<uintptr_t>(p) % 16 == 0, what, "tensors must be aligned to 16 bytes");
  }
}

}  // namespace orrery
