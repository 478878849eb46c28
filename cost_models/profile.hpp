// What one GPU type does beyond its datasheet: constants, each with its provenance.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "cost_models/constant.hpp"
#include "cost_models/kernel_models.hpp"

namespace orrery {

/// How far kernels and links stay below the peaks of the datasheet. `kernels`, where measured, replaces the
/// efficiencies for the kinds of kernels it has a model of.
struct Profile {
  std::string name;
  Constant attention_forward_efficiency;   // fraction of the matrix peak, on executed FLOPs
  Constant attention_backward_efficiency;  // same
  Constant dense_efficiency;               // projections and MLP
  Constant hbm_efficiency;                 // fraction of the HBM peak that a streaming kernel reaches
  Constant link_efficiency;                // fraction of the nominal link bandwidth that payload gets
  Constant kernel_overhead;                // seconds every kernel takes on top (prologue, epilogue, tail)
  Constant tile_query;                     // rows and columns of the attention kernel's score tile
  Constant tile_key;
  std::optional<MeasuredKernels> kernels = std::nullopt;
  bool is_lent = false;   // it was measured on another GPU (lend.hpp)
  std::string backend{};  // whose attention kernels; empty: of none in particular

  std::vector<const Constant*> constants() const;
};

}  // namespace orrery
