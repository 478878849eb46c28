// Which of two methods is faster: what a model must get right before its percentages matter.
#pragma once

#include <string>
#include <vector>

#include "validate/runs.hpp"

namespace orrery {

/// Over all pairs of rows of one setting, both predicted, whose measured times differ by more than their reading errors
/// together: how many the prediction puts in the same order. A tie is wrong.
struct OrderingSummary {
  int pairs = 0;
  int right = 0;
  std::vector<std::string> wrong;  // for people: "A (measured, predicted) before B (measured, predicted)"
};

OrderingSummary orderings(const std::vector<Prediction>& predictions);

}  // namespace orrery
