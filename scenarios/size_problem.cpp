#include "scenarios/size_problem.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <stdexcept>

#include "scenarios/data_files.hpp"
#include "scenarios/preset_files.hpp"
#include "scenarios/step_costs.hpp"
#include "sim/contains.hpp"

namespace orrery {

namespace {

/// Of a kernel that is nothing but cycles of the tensor cores. What else a kernel does takes time, and the clock that
/// it may then have longer does not make up for it: at the power limit its time grows with its clock.
FlopsPerSecond rate_of(Flops flops, double cycles, const ClockModel& clock, const PowerModel& power, Regime regime) {
  KernelLoad load;
  load.flops = flops;
  load.cycles = load.busy_cycles = cycles;
  return flops / run_kernel(load, clock, power, regime).duration;
}

/// The smaller of what a full tile takes, and a half masked one per pair that counts.
FlopsPerSecond tile_rate(const AttentionModel& model, const MeasuredKernels& kernels, const Profile& profile, int sms,
                         Regime regime) {
  const double pairs = profile.tile_query.value * profile.tile_key.value;
  const Flops flops = Flops::from_si((model.phase == Phase::forward ? 4 : 10) * pairs * model.head_dim) * sms;
  const double cycles = std::min(model.full_tile.value, 2 * model.masked_tile.value);
  // On all multiprocessors at once; never above what the tensor cores do.
  return rate_of(flops, std::max(cycles, flops.si() / kernels.clock.tensor_flops_per_cycle.value), kernels.clock,
                 model.power, regime);
}

GpuOption::Rates fastest_rates(const GpuOption& option, const SizeProblem& problem, Regime regime) {
  const Profile& profile = option.profile;
  const FlopsPerSecond peak = option.gpu.peak(problem.dtype);
  GpuOption::Rates rates = {peak * profile.dense_efficiency.value, peak * profile.attention_forward_efficiency.value,
                            peak * profile.attention_backward_efficiency.value,
                            option.gpu.hbm_bandwidth * profile.hbm_efficiency.value};
  if (problem.dtype != "fp32" && profile.kernels) {  // see kernel_cost.cpp: measured in 16 bits
    const MeasuredKernels& kernels = *profile.kernels;
    const auto head_dim = static_cast<double>(problem.model.head_dim);
    const auto sms = static_cast<int>(option.gpu.sms);
    if (kernels.gemm) {
      const double per_cycle = kernels.gemm->efficiency.value * kernels.clock.tensor_flops_per_cycle.value;
      rates.dense = rate_of(Flops::from_si(1e15), 1e15 / per_cycle, kernels.clock, kernels.gemm->power, regime);
      if (!problem.fp8_matrices) rates.weights = memory_rate(kernels, {peak, option.gpu.hbm_bandwidth, sms});
    }
    AttentionModel between;
    if (const AttentionModel* model = kernels.attention_at(Phase::forward, head_dim, between))
      rates.attention_forward = tile_rate(*model, kernels, profile, sms, regime);
    if (const AttentionModel* model = kernels.attention_at(Phase::backward, head_dim, between))
      rates.attention_backward = tile_rate(*model, kernels, profile, sms, regime);
  }
  // The roofline holds for matrices in fp8 whatever was measured.
  if (problem.fp8_matrices) rates.dense = option.gpu.peak("fp8") * profile.dense_efficiency.value;
  return rates;
}

}  // namespace

void SizeProblem::prepare(Regime regime) {
  const Pattern pattern(primitives, static_cast<int>(model.layers));
  const TokenSet all({{0, tokens, 1}});
  layer_kinds.clear();
  for (int c = 0; c < pattern.classes(); ++c) {
    const Mask mask = pattern.mask(c, tokens, causal, {});
    layer_kinds.push_back({static_cast<double>(pattern.layers_of(c)) / static_cast<double>(model.layers),
                           pattern.is_full(c), static_cast<double>(mask.pairs(all, all)), pattern.cached(c, tokens),
                           mask.keys_needed(TokenSet({{tokens - 1, 1, 1}}), all)});
  }
  for (GpuOption& option : gpus) option.fastest = fastest_rates(option, *this, regime);
}

bool SizeProblem::all_full() const {
  return std::all_of(layer_kinds.begin(), layer_kinds.end(), [](const LayerKind& kind) { return kind.full; });
}

bool SizeProblem::none_full() const {
  return std::none_of(layer_kinds.begin(), layer_kinds.end(), [](const LayerKind& kind) { return kind.full; });
}

namespace {

/// As one rank would have it: for what all ranks compute together.
MemoryInput undivided(const SizeProblem& problem) {
  MemoryInput in;
  in.model = &problem.model;
  in.layers = static_cast<int>(problem.model.layers);
  in.tokens = static_cast<double>(problem.tokens);
  in.sequences = static_cast<double>(problem.batch);
  in.pass = problem.pass;
  return in;
}

}  // namespace

Flops useful_flops(const SizeProblem& problem) {
  const MemoryInput in = undivided(problem);
  double pairs = 0;
  for (const SizeProblem::LayerKind& kind : problem.layer_kinds)
    pairs += kind.share * (in.pass == StepPass::decode ? static_cast<double>(kind.keys_of_last.size()) : kind.pairs);
  const double attention = 4 * static_cast<double>(problem.model.heads * problem.model.head_dim) * pairs;
  return dense_flops(in) + Flops::from_si((in.pass == StepPass::training ? 3.5 : 1) * attention *
                                          static_cast<double>(problem.batch * problem.model.layers));
}

FlopsPerSecond peak_of_types(const SizeProblem& problem, const Gpu& gpu) {
  const FlopsPerSecond peak = gpu.peak(problem.dtype);
  if (!problem.fp8_matrices) return peak;
  return mean_peak(useful_flops(problem), peak, layer_flops(undivided(problem)), gpu.peak("fp8"));
}

namespace {

bool measured_whole(const Profile& profile) {
  return profile.kernels && profile.kernels->gemm;
}

Profile choose_profile(const Gpu& gpu, const ProfileChoice& choice) {
  const std::vector<std::string> known = known_names("profiles");
  if (!choice.name.empty()) {
    return profile_for(gpu, choice.if_none && contains(known, gpu.name) ? gpu.name : choice.name, {}, true);
  }
  std::optional<Profile> own;
  if (contains(known, gpu.name)) own = profile_for(gpu, gpu.name);
  if ((own && measured_whole(*own)) || !contains(known, gpu.like))
    return own ? std::move(*own) : load_profile("peak", gpu.name);
  // Rates that were published of attention alone would compete with whole measurements at the datasheet's peaks.
  Profile like = profile_for(gpu, gpu.like);
  return own && !measured_whole(like) ? std::move(*own) : std::move(like);
}

}  // namespace

GpuOption gpu_option(const std::string& name, const std::string& dtype, const ProfileChoice& profile) {
  GpuOption option;
  option.name = name;
  option.gpu = load_gpu(name);
  option.gpu.peak(dtype);
  option.profile = choose_profile(option.gpu, profile);
  option.link = load_link(option.gpu.links.front());
  if (option.link.links_per_gpu != 1) {
    throw std::runtime_error(fmt::format(
        "{}: {} chips form a torus (size builds nodes around a switch), describe its cluster in a scenario instead",
        name, option.gpu.name));
  }
  return option;
}

std::string basis_of(const GpuOption& option) {
  const Profile& profile = option.profile;
  if (profile.is_lent) return "as " + profile.name;
  if (measured_whole(profile)) return "measured";
  if (profile.kernels) return "published";
  return profile.name == "peak" ? "peak" : "assumed";
}

}  // namespace orrery
