// Shared by the launchers of pi-attention: tensor maps and the checks of what the kernels can take. Host only.
#pragma once
#include <cuda.h>

#include <cstdint>
#include <initializer_list>
#include <string>

#include "kernels/check.hpp"
#include "kernels/pi_attention.hpp"
#include "kernels/pi_attention_tiles.hpp"

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

// The rows of n tokens seen with a period: residues below n mod period (class 0) have one row more than the others
// (class 1). A class without residues is given as a copy of the other.
struct RowClasses {
  int64_t residues = 1, long_residues = 0;
  int64_t rows[2] = {};     // of a residue of the class
  int64_t in_view[2] = {};  // residues that a tensor map of the class may hold
  RowClasses(int64_t n, int64_t period);
};

// Sections of heads are as large as keys and values (of `head_bytes` a key head and residue) fit half of L2.
TileOrder tile_order(const char* what, const RowClasses& classes, int64_t kv_heads, int64_t heads_a_kv_head,
                     int64_t head_bytes);

int32_t clamp_lag(int64_t lag);  // to +-kUnbounded

void require(bool holds, const char* what, const std::string& limit);
// Throws unless the current device is of compute capability 9.x. Returns its number of multiprocessors.
int hopper_multiprocessors();
// The limits common to all kernels here: head sizes, counts, offsets and alignment.
void require_tensors(const char* what, int64_t tokens, int64_t heads, int64_t kv_heads, int64_t head_dim);
void require_pi_shape(const char* what, const PiAttentionShape& shape);
void require_aligned(const char* what, std::initializer_list<const void*> pointers);

}  // namespace orrery
