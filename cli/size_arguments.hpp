// What orrery size is asked: its options as text, and what they mean.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "scenarios/size_search.hpp"

namespace orrery {

struct SizeArguments {
  std::string model, context, pass, gpus = "h100_sxm,h200_sxm,b200_sxm", target;
  std::string attention, prices, network = "infiniband_ndr", implementation = "ideal", profiles;
  std::string dtype = "bf16", format = "text", layouts = "zigzag,contiguous";
  std::optional<std::string> node_sizes, box;
  Objective objective = Objective::time;
  int max_gpus = 0, keep = 5;  // 0: 1024, or what the box has
  std::int64_t batch = 1;
};

/// Of "step=10s,mfu=0.4": all must hold.
struct SizeTargets {
  std::optional<Seconds> step;
  std::optional<double> tokens_per_s, mfu;
};

// All throw std::runtime_error in one sentence.
SizeTargets targets_of(const std::string& text);
SizeProblem problem_of(const SizeArguments& arguments);
SizeOptions options_of(const SizeArguments& arguments, const SizeProblem& problem);

/// That a step computes; one for each sequence if it decodes.
double tokens_of_step(const SizeProblem& problem);

}  // namespace orrery
