#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <map>

#include "cli/report_writers.hpp"

namespace orrery {
namespace {

class Page {
 public:
  template <class... Args>
  void line(fmt::format_string<Args...> format, Args&&... args) {
    fmt::format_to(std::back_inserter(text_), format, std::forward<Args>(args)...);
    text_ += '\n';
  }
  std::string take() { return std::move(text_); }

 private:
  std::string text_;
};

std::string percent(double fraction) {
  return fmt::format("{:.1f} %", 100 * fraction);
}

/// Part of a whole; a dash if there is no whole.
std::string percent(Seconds part, Seconds whole) {
  return whole > Seconds() ? percent(part / whole) : "-";
}

std::string variation_text(const Variation& variation) {
  std::string text;
  constexpr std::size_t most_named = 4;
  for (const auto& slow : variation.slow_ranks) {
    if (&slow == &variation.slow_ranks[0] + most_named) {
      text += fmt::format("{} more slow ranks, ", variation.slow_ranks.size() - most_named);
      break;
    }
    text += fmt::format("rank {} at {} of its speed, ", slow.rank, slow.speed);
  }
  if (const auto& jitter = variation.jitter)
    return text +
           fmt::format("{} jitter with sigma {} and seed {}", name_of(jitter->noise), jitter->sigma, jitter->seed);
  return text + "no jitter";
}

void write_faults(Page& page, const FaultPlan& plan, const Cluster& cluster) {
  const char* label = "faults";
  const auto line = [&](const std::string& text) {
    page.line("{:<10} {}", label, text);
    label = "";
  };
  for (std::size_t i = 0; i < plan.faults->links.size(); ++i) {
    const LinkFault& fault = plan.faults->links[i];
    const bool ends = fault.until < std::numeric_limits<Ticks>::max();
    line(fmt::format("link {} {} at {}{}", cluster.links()[static_cast<std::size_t>(fault.link)].name,
                     !fault.is_dead() ? "slows to " + format(plan.stated[i])
                     : fault.reroutes ? "dies (messages go around it)"
                                      : "dies (messages wait for it)",
                     format(to_seconds(fault.at)),
                     ends ? fmt::format(", is back at {}", format(to_seconds(fault.until))) : ""));
  }
  for (const Pause& pause : plan.faults->pauses) {
    line(fmt::format("rank {} pauses at {} for {}", pause.rank, format(to_seconds(pause.at)),
                     format(to_seconds(pause.until - pause.at))));
  }
}

void write_what(Page& page, const Scenario& s) {
  page.line("{}: {}", s.name, s.description);
  page.line("");
  page.line("workload   {} ({} of {} layers, {} heads, {} KV heads, head_dim {}), {} tokens, batch {}, {}",
            s.model.name, s.layers, s.model.layers, s.model.heads, s.model.kv_heads, s.model.head_dim, s.tokens,
            s.batch, s.dtype);
  page.line("           {} of {}",
            s.backward ? "training step (forward and backward)"
            : s.decode ? "decode step (one token each)"
                       : "forward pass",
            s.whole_step     ? "the whole model"
            : s.whole_layers ? "whole layers (projections, attention, MLP)"
                             : "attention alone");
  page.line("attention  {}{}{}", s.pattern().describe(), s.causal ? ", causal" : "",
            s.documents.empty() ? "" : fmt::format(", {} packed documents", s.documents.size()));
  if (s.whole_step) {
    const Degrees& d = s.degrees;
    page.line("degrees    data {} x tensor {} x pipeline {} x context {}; {} microbatches, ZeRO-{}, recompute {}",
              d.data, d.tensor, d.pipeline, d.context, s.microbatches, d.zero,
              recompute_names()[static_cast<std::size_t>(s.recompute)]);
  }
  page.line("spread     {} ranks, schedule {}, layout {}, implementation {}", s.context_ranks(), s.schedule->name,
            s.layout, s.implementation.name);
  if (s.members > 1 && s.groups > 1)
    page.line("           {} groups in a ring, {} ranks each that exchange heads", s.groups, s.members);
  if (s.inner_ring > 1) page.line("           inner rings of {}", s.inner_ring);
  std::string links;
  for (const ClusterLink& link : s.links) {
    links +=
        fmt::format("{}{} {} ({})", links.empty() ? "" : ", ", link.role, link.type.name, format(link.type.bandwidth));
  }
  page.line("cluster    {} x {}, {}: {}; profile {}", s.ranks(), s.gpu.name, s.topology, links, s.profile.name);
  if (s.variation.perturbation) page.line("variation  {}", variation_text(s.variation));
  if (s.fault_plan.faults) write_faults(page, s.fault_plan, s.cluster);
  page.line("");
}

void write_time(Page& page, const Report& r) {
  page.line("step time          {}", format(r.step_time));
  if (r.interval) {
    const double half = std::min(r.interval->half_width, 1.0);
    page.line("  90 % interval    {} to {}{}", format(r.step_time * (1 - half)), format(r.step_time * (1 + half)),
              r.interval->extrapolated ? ", extrapolated: no such run was measured" : "");
  }
  if (r.phases.size() > 1) {
    for (const PhaseReport& p : r.phases) {
      page.line("  {:<16} {:>10}   compute {} and transfers {} per rank", p.name, format(p.end - p.start),
                format(p.compute), format(p.comm));
    }
  }
  page.line("");
  page.line("mean over ranks    {:>10} {:>9}", "time", "of step");
  const auto row = [&](const char* name, Seconds time, const char* note) {
    page.line("  {:<16} {:>10} {:>9}   {}", name, format(time), percent(time, r.step_time), note);
  };
  row("compute", r.compute, "");
  row("exposed comm", r.exposed_comm, "messages under way, nothing to compute");
  row("idle", r.idle, "neither");
  row("comm", r.comm, "messages under way, hidden or exposed");
  page.line("  overlap          {:>10}             share of comm that is hidden", percent(r.overlap_fraction));
  page.line("");
}

void write_work(Page& page, const Scenario& s, const Report& r) {
  page.line("useful FLOPs       {:>12}   executed {} ({} more)", format(r.useful), format(r.executed),
            r.useful > Flops() ? percent(r.executed / r.useful - 1) : "-");
  page.line("MFU                {:>12}   of the {} peak, useful FLOPs only", percent(r.mfu),
            s.fp8_matrices ? fmt::format("{} and fp8", s.dtype) : s.dtype);
  if (r.power) {
    page.line("energy             {:>12}   of all GPUs; {} per GPU in the mean, at most {}{}",
              fmt::format("{:.4g} J", r.power->energy.si()), format(r.power->mean), format(r.power->highest),
              r.power->clock_cap_hz > 0
                  ? fmt::format("; the power limit caps the clock at {:.0f} MHz", r.power->clock_cap_hz / 1e6)
                  : "");
  }
  page.line("imbalance          {:>12}   compute of the busiest rank over the mean",
            fmt::format("{:.3f}", r.imbalance));
  page.line("sent per rank      {:>12}   at most; {} in all", format(r.sent_by_busiest_rank), format(r.sent_in_all));
  for (const Intensity& i : r.intensity.hops) {
    page.line("c >= F/B           {:>12}   {}{}: a hop takes {} (B = {}), the attention beside it {} (F = {})",
              i.holds() ? "yes" : "no", i.phase == Phase::forward ? "forward" : "backward",
              i.outer ? ", outer ring" : "", format(i.hop()), format(i.link_rate), format(i.attention()),
              format(i.compute_rate));
    if (s.full_pattern() && s.documents.empty())
      page.line("{:>31}   c = {:.0f} tokens per block, {:.0f} needed", "", i.tokens, i.needed_tokens());
  }
  for (const std::string& reason : r.intensity.without) page.line("c >= F/B           {:>12}   {}", "-", reason);
  page.line("");
}

void write_memory(Page& page, const Scenario& s, const Report& r) {
  if (!r.memory) return;
  const bool fits = r.memory->fits(s.gpu.hbm_capacity);
  page.line("memory             {:>12}   of {} per GPU, {} of it left alone: {}", format(r.memory->peak()),
            format(s.gpu.hbm_capacity), percent(memory_allowance), fits ? "fits" : "does not fit");
  page.line("{:>31}   at the peak: stage {}, {}", "", r.memory->stage + 1, r.memory_peak);
  for (int i = 0; i < memory_parts; ++i) {
    const double bytes = r.memory->bytes[static_cast<std::size_t>(i)];
    if (bytes > 0)
      page.line("  {:<18} {:>10} {:>9}", name_of(static_cast<MemoryPart>(i)), format(Bytes::from_si(bytes)),
                percent(bytes / r.memory->peak().si()));
  }
  page.line("");
}

void write_path(Page& page, const Report& r) {
  page.line("critical path");
  for (const Share& share : r.critical_path)
    page.line("  {:<18} {:>10} {:>9}", share.name, format(share.time), percent(share.fraction));
  page.line("");
}

void write_ranks(Page& page, const Report& r) {
  page.line("rank               {:>10} {:>12} {:>10} {:>10}", "compute", "exposed comm", "idle", "sent");
  const std::size_t count = r.ranks.size();
  constexpr std::size_t shown = 8;
  for (std::size_t i = 0; i < count; ++i) {
    if (count > shown && i == shown / 2) page.line("  ... (all of them with --format json)");
    if (count > shown && i >= shown / 2 && i < count - shown / 2) continue;
    const RankReport& x = r.ranks[i];
    page.line("  {:<16} {:>10} {:>12} {:>10} {:>10}", i, format(x.compute), format(x.exposed_comm), format(x.idle),
              format(x.sent));
  }
  page.line("");
  if (r.links.empty()) return;
  std::vector<const LinkReport*> busiest;
  for (const LinkReport& link : r.links) busiest.push_back(&link);
  std::stable_sort(busiest.begin(), busiest.end(),
                   [](const auto* a, const auto* b) { return a->utilisation > b->utilisation; });
  page.line("busiest links      {:>10} {:>12} {:>12}", "bytes", "in use", "of capacity");
  for (std::size_t i = 0; i < std::min<std::size_t>(4, busiest.size()); ++i) {
    page.line("  {:<16} {:>10} {:>12} {:>12}", busiest[i]->name, format(busiest[i]->bytes),
              percent(busiest[i]->busy, r.step_time), percent(busiest[i]->utilisation));
  }
  page.line("");
}

void write_provenance(Page& page, const Report& r) {
  page.line("this rests on      (sources with --format json)");
  std::map<std::string, std::string> by_provenance;
  for (const ConstantReport& c : r.constants) {
    std::string& list = by_provenance[c.provenance];
    list += fmt::format("{}{} = {}", list.empty() ? "" : ", ", c.name, c.value);
  }
  for (const auto& [provenance, list] : by_provenance) page.line("  {:<10} {}", provenance, list);
  page.line("left out");
  for (const std::string& item : r.left_out) page.line("  {}", item);
  page.line("");
  page.line("{} engine{}: {} {}, {}", r.engine, r.engine_reason.empty() ? "" : fmt::format(" ({})", r.engine_reason),
            r.events, r.engine == "event" ? "events" : "ops", format(Seconds::from_si(r.wall_s)));
}

}  // namespace

std::string scenario_text(const Scenario& s) {
  Page page;
  write_what(page, s);
  return page.take();
}

std::string text_report(const Scenario& s, const Report& r) {
  Page page;
  write_what(page, s);
  write_time(page, r);
  write_work(page, s, r);
  write_memory(page, s, r);
  write_path(page, r);
  write_ranks(page, r);
  write_provenance(page, r);
  return page.take();
}

}  // namespace orrery
