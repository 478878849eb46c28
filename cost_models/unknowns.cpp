#include "cost_models/unknowns.hpp"

#include <set>

namespace orrery {

std::string files_of(const MeasuredRows& rows) {
  std::set<std::string> names;
  for (const MeasuredKernel* row : rows) names.insert(file_of(*row));
  return fmt::format("{}", fmt::join(names, ", "));
}

}  // namespace orrery
