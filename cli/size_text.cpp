#include <fmt/format.h>

#include <algorithm>
#include <string>

#include "cli/size_report.hpp"

namespace orrery {

std::string describe(const SizeProblem& problem, const Candidate& c) {
  const Degrees& d = c.degrees;
  std::string text =
      fmt::format("{} x {}: data {}, tensor {}, pipeline {}, context {}", d.ranks(),
                  problem.gpus[static_cast<std::size_t>(c.gpu)].gpu.name, d.data, d.tensor, d.pipeline, d.context);
  if (d.context > 1) {
    text += fmt::format(" ({}{}, {})", c.schedule->name,
                        c.members > 1 && c.groups > 1 ? fmt::format(" {} x {}", c.groups, c.members) : "", c.layout);
  }
  if (d.ranks() > c.node_size) text += fmt::format(", nodes of {}", c.node_size);
  if (d.pipeline > 1 || c.microbatches > 1) text += fmt::format(", {} microbatches", c.microbatches);
  if (d.virtual_stages > 1) text += fmt::format(" of {} chunks a stage", d.virtual_stages);
  if (problem.pass == StepPass::training)
    text += fmt::format(", ZeRO-{}, recompute {}", d.zero, recompute_names()[static_cast<std::size_t>(c.recompute)]);
  return text;
}

namespace {

/// "-18.0 %", or, if it is much, "9.1x less".
std::string gain(double ratio) {
  return ratio > 0 && ratio < 0.5 ? fmt::format("{:.1f}x less", 1 / ratio)
                                  : fmt::format("{:+.1f} %", 100 * (ratio - 1));
}

}  // namespace

void print_size_text(const SizeReport& report) {
  const SizeProblem& problem = report.problem;
  const SizeResult& r = report.result;
  const bool priced = std::any_of(problem.gpus.begin(), problem.gpus.end(),
                                  [](const GpuOption& g) { return g.price_per_hour.has_value(); });
  const auto row = [&](const Sized& s) {
    fmt::print("  {:>10} {:>6}{} {:>7.1f} % {:>10}  {}\n", format(s.step.time), s.gpus,
               priced ? fmt::format(" {:>9.4g}", s.cost.value_or(0)) : "", 100 * s.mfu, format(s.bound.memory),
               describe(problem, s.candidate));
    fmt::print("  {:>10} {:>6}{} limited by {} ({:.0f} % of the critical path); no faster than {}\n", "", "", "",
               s.step.bottleneck, 100 * s.step.bottleneck_share, format(s.bound.time));
  };
  fmt::print("{} at {} tokens, {}, batch {}, {} attention, up to {} GPUs\n", problem.model.name, problem.tokens,
             report.pass, problem.batch, report.attention, problem.max_gpus);
  fmt::print("assumed    nodes of {} around a switch, {} at full bisection, implementation {}, fused loss\n",
             fmt::join(problem.node_sizes, " or "), problem.network.name, problem.implementation.name);
  std::string profiles;
  for (const GpuOption& g : problem.gpus)
    profiles += fmt::format("{}{} {}", profiles.empty() ? "" : ", ", g.gpu.name, g.profile.name);
  fmt::print("profiles   {}\n", profiles);
  for (const std::string& warning : report.warnings) fmt::print("warning    {}\n", warning);
  fmt::print("\n");
  fmt::print("{:<12} {:>6}{} {:>9} {:>10}\n", "best: step", "GPUs", priced ? "      cost" : "", "MFU", "memory");
  for (const Sized& s : r.best) row(s);
  fmt::print("\nsmallest cluster that fits{}\n", report.target.empty() ? "" : " and meets the target");
  row(*r.fewest);
  fmt::print("\nPareto front (time, GPUs{})\n", priced ? ", cost" : "");
  for (const Sized& s : r.front) row(s);
  fmt::print("\nwhat would help the best\n");
  for (const WhatIf& w : report.what_ifs) {
    fmt::print("  {:<42} {:>9}   {:>10}{}\n", w.change, gain(w.time / r.best.front().step.time), format(w.time),
               w.note.empty() ? "" : "   " + w.note);
  }
  fmt::print("\n{} candidates: {} do not fit, {} bounded away, {} simulated\n", r.candidates, r.too_large,
             r.bounded_away, r.simulated);
}

}  // namespace orrery
