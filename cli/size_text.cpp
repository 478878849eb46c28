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
    const std::string parts = c.inner_ring > 1                ? fmt::format(", inner_ring {}", c.inner_ring)
                              : c.members > 1 && c.groups > 1 ? fmt::format(", ulysses_degree {}", c.members)
                                                              : "";
    text += fmt::format(" ({}{}, {})", c.schedule->name, parts, c.layout);
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

/// What joins the GPUs of a node.
std::string wiring(const SizeProblem& problem) {
  const GpuOption& first = problem.gpus.front();
  if (first.node && first.node->is_tree()) {
    return fmt::format("on a PCIe tree, {} under a switch, {} socket{}, {} from everything to everything",
                       first.node->gpus_per_switch, first.node->sockets, first.node->sockets > 1 ? "s" : "",
                       first.link.name);
  }
  std::vector<std::string> links;
  for (const GpuOption& option : problem.gpus) links.push_back(fmt::format("{} {}", option.gpu.name, option.link.name));
  return fmt::format("around a switch ({})", fmt::join(links, ", "));
}

}  // namespace

void print_size_text(const SizeReport& report) {
  const SizeProblem& problem = report.problem;
  const SizeResult& r = report.result;
  const bool priced = std::any_of(problem.gpus.begin(), problem.gpus.end(),
                                  [](const GpuOption& g) { return g.price_per_hour.has_value(); });
  const bool powered = std::any_of(r.best.begin(), r.best.end(), [](const Sized& s) { return s.energy.has_value(); });
  const auto energy_of = [](const Sized& s) { return s.energy ? fmt::format("{:.4g} J", *s.energy) : "-"; };
  const auto basis = [&](const Sized& s) { return basis_of(problem.gpus[static_cast<std::size_t>(s.candidate.gpu)]); };
  std::size_t width = std::string_view("profile").size();
  for (const GpuOption& option : problem.gpus) width = std::max(width, basis_of(option).size());
  const auto row = [&](const Sized& s) {
    fmt::print("  {:>10} {:>6}{}{} {:>7.1f} % {:>10}  {:<{}}  {}\n", format(s.step.time), s.gpus,
               priced ? fmt::format(" {:>9.4g}", s.cost.value_or(0)) : "",
               powered ? fmt::format(" {:>11}", energy_of(s)) : "", 100 * s.mfu, format(s.bound.memory), basis(s),
               width, describe(problem, s.candidate));
    fmt::print("  {:>10} {:>6}{} limited by {} ({:.0f} % of the critical path); no faster than {}\n", "", "", "",
               s.step.bottleneck, 100 * s.step.bottleneck_share, format(s.bound.time));
  };
  fmt::print("{} at {} tokens, {}, batch {}, {} attention, up to {} GPUs\n", problem.model.name, problem.tokens,
             report.pass, problem.batch, report.attention, problem.max_gpus);
  fmt::print("assumed    nodes of {} {}; {} at full bisection, implementation {}, fused loss\n",
             fmt::join(problem.node_sizes, " or "), wiring(problem), problem.network.name, problem.implementation.name);
  fmt::print("           tensor and context degrees that are powers of two, others that divide layers and batch\n");
  for (const ModelShape::Assumed& field : report.assumed)
    fmt::print("           {}.{} = {}: {}\n", problem.model.name, field.name, field.value, field.source);
  std::vector<std::string> profiles;
  for (const GpuOption& g : problem.gpus) profiles.push_back(fmt::format("{} {}", g.gpu.name, basis_of(g)));
  fmt::print("profiles   {}\n", fmt::join(profiles, ", "));
  for (const std::string& warning : report.warnings) fmt::print("warning    {}\n", warning);
  fmt::print("\n");
  fmt::print("{:<12} {:>6}{}{} {:>9} {:>10}  {}\n", "best: step", "GPUs", priced ? "      cost" : "",
             powered ? "      energy" : "", "MFU", "memory", "profile");
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
