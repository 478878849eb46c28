// A number a prediction rests on, and where it comes from.
#pragma once

#include <string>
#include <string_view>

namespace orrery {

enum class Provenance { measured, fitted, datasheet, assumed };
std::string_view name_of(Provenance provenance);

/// The unit of `value` is SI and is said in `unit` ("1", "s", "B/s", "cycle", ...).
struct Constant {
  std::string name;
  double value = 0;
  std::string unit;
  Provenance provenance = Provenance::assumed;
  std::string source;
  double low = 0, high = 0;  // 90 % interval of a fitted constant
  int rows = 0;              // measured rows it was fitted on
};

}  // namespace orrery
