#include "scenarios/size_what_if.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <utility>

#include "scenarios/in_parallel.hpp"
#include "scenarios/layout.hpp"

namespace orrery {
namespace {

/// A window of 1024 tokens and one skip of 16384: the sizes that the kernels in kernels/ were measured with.
constexpr Index pi_window = 1024, pi_period = 16384;

class Changes {
 public:
  Changes(const SizeProblem& problem, const Sized& sized, int threads)
      : problem_(problem), sized_(sized), threads_(threads) {}

  std::vector<WhatIf> list() {
    hardware();
    more_memory();
    layouts_of_tokens();
    pi_attention();
    in_parallel(changed_.size(), threads_,
                [&](std::size_t i) { list_[i].time = simulate_settled(changed_[i].first, changed_[i].second).time; });
    return std::move(list_);
  }

 private:
  using Edit = std::function<void(SizeProblem&, GpuOption&, Candidate&)>;

  void add(std::string change, const Edit& edit, std::string note = "") {
    SizeProblem problem = problem_;
    Candidate candidate = sized_.candidate;
    edit(problem, problem.gpus[static_cast<std::size_t>(candidate.gpu)], candidate);
    changed_.emplace_back(std::move(problem), candidate);
    list_.push_back({std::move(change), Seconds(), std::move(note)});
  }

  void hardware() {
    add("matrix units of twice the speed", [](SizeProblem&, GpuOption& option, Candidate&) {
      for (auto& [dtype, peak] : option.gpu.peaks) peak = peak * 2;
      if (!option.profile.kernels) return;
      // At the same power: it goes with the share of the units that is busy.
      MeasuredKernels& kernels = *option.profile.kernels;
      kernels.clock.tensor_flops_per_cycle.value *= 2;
      for (AttentionModel& model : kernels.attention) {
        for (Constant* cycles : {&model.list_start, &model.full_tile, &model.masked_tile}) cycles->value /= 2;
      }
    });
    add("HBM of twice the bandwidth", [](SizeProblem&, GpuOption& option, Candidate&) {
      option.gpu.hbm_bandwidth = option.gpu.hbm_bandwidth * 2;
      if (!option.profile.kernels) return;
      for (StreamModel& model : option.profile.kernels->streams) model.bandwidth.value *= 2;
    });
    if (sized_.gpus > 1) {
      add("links inside nodes of twice the bandwidth",
          [](SizeProblem&, GpuOption& option, Candidate&) { option.link.bandwidth = option.link.bandwidth * 2; });
    }
    if (sized_.gpus > sized_.candidate.node_size) {
      add("a network of twice the bandwidth",
          [](SizeProblem& p, GpuOption&, Candidate&) { p.network.bandwidth = p.network.bandwidth * 2; });
    }
  }

  void more_memory() {
    Candidate keeps = sized_.candidate;
    if (keeps.recompute == Recompute::none) return;
    keeps.recompute = Recompute::none;
    const double needed = bound_of(problem_, keeps).memory.si() / (1 - memory_allowance);
    const double has = problem_.gpus[static_cast<std::size_t>(keeps.gpu)].gpu.hbm_capacity.si();
    add(
        fmt::format("{:.2g} times the memory", needed / has),
        [](SizeProblem&, GpuOption&, Candidate& c) { c.recompute = Recompute::none; }, "nothing is computed again");
  }

  /// Of a ring: who holds which tokens decides who computes how much.
  void layouts_of_tokens() {
    const Candidate& c = sized_.candidate;
    if (!problem_.all_full() || !problem_.causal || c.groups == 1 || problem_.pass == StepPass::decode) return;
    for (const char* layout : {"contiguous", "zigzag", "striped"}) {
      if (layout == c.layout) continue;
      add(fmt::format("{} instead of {}", layout, c.layout),
          [layout](SizeProblem&, GpuOption&, Candidate& changed) { changed.layout = layout; });
    }
  }

  void pi_attention() {
    if (!problem_.all_full() || problem_.pass == StepPass::decode || problem_.tokens <= 2 * pi_period) return;
    // With a skip in every layer a token sees layers x max(k, period) back (docs/reach.md).
    const auto reach = static_cast<double>(problem_.model.layers * pi_period);
    add(
        fmt::format("pi-attention k={}, period={}", pi_window, pi_period),
        [](SizeProblem& p, GpuOption&, Candidate& c) {
          p.primitives = {{.kind = Primitive::Kind::window, .left = pi_window},
                          {.kind = Primitive::Kind::stride, .period = pi_period, .count = 1}};
          p.prepare();
          c.layout = "contiguous";
          if (c.degrees.context == 1) return;
          const auto fetches = std::find_if(schedules().begin(), schedules().end(), [](const ScheduleKind& s) {
            return s.slots.hold == ScheduleKind::Slots::Hold::fetched;
          });
          c.schedule = &*fetches;
          c.groups = c.degrees.context;
          c.members = c.inner_ring = 1;
        },
        fmt::format("another model, which reaches {:.3g} tokens back at {} layers{}", reach, problem_.model.layers,
                    reach < static_cast<double>(problem_.tokens) ? ", not all" : ""));
  }

  const SizeProblem& problem_;
  const Sized& sized_;
  int threads_;
  std::vector<std::pair<SizeProblem, Candidate>> changed_;
  std::vector<WhatIf> list_;  // of these
};

}  // namespace

std::vector<WhatIf> what_ifs(const SizeProblem& problem, const Sized& sized, int threads) {
  return Changes(problem, sized, threads).list();
}

}  // namespace orrery
