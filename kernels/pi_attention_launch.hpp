// Shared by the launchers of pi-attention: tensor maps and the checks of what the kernels can take. Host only.
#pragma once
#include <cuda.h>

#include <cstdint>
#include <initializer_list>
#include <string>

#include "kernels/check.hpp"

namespace orrery {

// A token-major bf16 tensor [tokens][heads][head_dim] seen as rows of residues: token = row * period + residue.
struct TensorView {
  const void* data;
  int64_t heads, head_dim;
  int64_t rows, residues, period;
};
// Boxes of box_rows x head_dim at (0, row, head * head_dim / 64, residue), as columns of 64, swizzled by 128 bytes.
// Rows outside read as 0 and are not written.
CUtensorMap tensor_map(const TensorView& view, int box_rows);

void require(bool holds, const char* what, const std::string& limit);
// Throws unless the current device is of compute capability 9.x. Returns its number of multiprocessors.
int hopper_multiprocessors();
// The limits common to all kernels here: head sizes, counts, offsets and alignment.
void require_tensors(const char* what, int64_t tokens, int64_t heads, int64_t kv_heads, int64_t head_dim);
void require_aligned(const char* what, std::initializer_list<const void*> pointers);

}  // namespace orrery
