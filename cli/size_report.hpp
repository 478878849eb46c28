// What orrery size prints.
#pragma once

#include <string>

#include "scenarios/size_what_if.hpp"

namespace orrery {

struct SizeReport {
  const SizeProblem& problem;
  const SizeResult& result;
  std::vector<WhatIf> what_ifs;              // of the best
  std::string pass, attention, target;       // as asked for
  std::vector<std::string> warnings;         // what a reader would take for granted and is not so
  std::vector<ModelShape::Assumed> assumed;  // of the model
};

void print_size_text(const SizeReport& report);
void print_size_json(const SizeReport& report);

/// In one line: GPUs, degrees, schedule, what is kept.
std::string describe(const SizeProblem& problem, const Candidate& candidate);

}  // namespace orrery
