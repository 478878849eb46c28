// Does a program compute attention? Executes its actions on real tensors, in a random order that its waits allow, and
// compares with masked softmax attention. Wrong masks, halos, buffers, head ranges and missing waits all show up here.
#pragma once

#include <cstdint>
#include <stdexcept>

#include "scenarios/attention_program.hpp"

namespace orrery {

/// Largest absolute deviation from the reference, over all layers, tokens and heads.
struct FunctionalErrors {
  double output = 0;
  double d_query = 0;
  double d_key = 0;
  double d_value = 0;
};

/// Thrown when an op reads rows that somebody writes meanwhile or nobody wrote, when two ops write the same rows at
/// once, when an NCCL kernel sends to a rank whose kernel does not run, or when ops are left that cannot start. The
/// message names the op and the buffer.
struct FunctionalError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// Inputs are random per layer; the program must have batch 1. The order of execution follows from `seed`; odd seeds
/// starve one stream after the other.
FunctionalErrors check_function(const AttentionProgram& program, std::uint64_t seed);

}  // namespace orrery
