#include "scenarios/size_problem.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <stdexcept>

#include "scenarios/data_files.hpp"
#include "scenarios/preset_files.hpp"
#include "scenarios/step_costs.hpp"

namespace orrery {

void SizeProblem::prepare() {
  const Pattern pattern(primitives, static_cast<int>(model.layers));
  const TokenSet all({{0, tokens, 1}});
  pairs = static_cast<double>(pattern.mask(0, tokens, causal, {}).pairs(all, all));
}

Flops useful_flops(const SizeProblem& problem) {
  MemoryInput in;
  in.model = &problem.model;
  in.layers = static_cast<int>(problem.model.layers);
  in.tokens = static_cast<double>(problem.tokens);
  in.sequences = static_cast<double>(problem.batch);
  in.pass = problem.pass;
  const double pairs = in.pass == StepPass::decode ? in.tokens : problem.pairs;
  const double attention = 4 * static_cast<double>(problem.model.heads * problem.model.head_dim) * pairs;
  return dense_flops(in) + Flops::from_si((in.pass == StepPass::training ? 3.5 : 1) * attention *
                                          static_cast<double>(problem.batch * problem.model.layers));
}

GpuOption gpu_option(const std::string& name, const std::string& dtype, const std::string& profile) {
  GpuOption option;
  option.gpu = load_gpu(name);
  option.gpu.peak(dtype);
  const std::vector<std::string> profiles = known_names("profiles");
  const bool has_own = std::find(profiles.begin(), profiles.end(), option.gpu.name) != profiles.end();
  option.profile = load_profile(has_own ? option.gpu.name : profile, option.gpu.name);
  option.link = load_link(option.gpu.links.front());
  if (option.link.links_per_gpu != 1) {
    throw std::runtime_error(fmt::format(
        "{}: {} chips form a torus (size builds nodes around a switch), describe its cluster in a scenario instead",
        name, option.gpu.name));
  }
  return option;
}

}  // namespace orrery
