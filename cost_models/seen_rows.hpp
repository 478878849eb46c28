// Rows that stand twice among the files of one command, which would count twice.
#pragma once

#include <cstddef>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "cost_models/measured_table.hpp"

namespace orrery {

/// Rows with a time, known by all their cells however they are spelt. In one file, where a row is the median of its
/// repeats, no two are the same. Of two files some may be, where times have few digits; if most of one stand in the
/// other, it is a copy.
class SeenRows {
 public:
  /// Throws MeasuredFileError for a row that is there twice, and for a file that is a copy of an earlier one.
  void add(const MeasuredTable& table);

 private:
  struct Place {
    std::size_t file;
    std::string line;
  };
  std::map<std::string, std::vector<Place>> places_;  // by cells
  std::vector<std::size_t> rows_;                     // of each file
};

}  // namespace orrery
