// What one GPU type does beyond its datasheet: constants, each with its provenance.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "sim/units.hpp"

namespace orrery {

enum class Provenance { measured, fitted, datasheet, assumed };
std::string_view name_of(Provenance provenance);

/// A number a prediction rests on. The unit of `value` is SI and is said in `unit` ("1", "s", "B/s", ...).
struct Constant {
  std::string name;
  double value = 0;
  std::string unit;
  Provenance provenance = Provenance::assumed;
  std::string source;
};

/// How far kernels and links stay below the peaks of the datasheet.
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

  std::vector<const Constant*> constants() const;
};

}  // namespace orrery
