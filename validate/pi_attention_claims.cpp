#include "validate/pi_attention_claims.hpp"

#include <algorithm>
#include <map>
#include <vector>

#include "scenarios/preset_files.hpp"
#include "scenarios/size_bound.hpp"
#include "scenarios/size_simulation.hpp"
#include "scenarios/step_scenario.hpp"

namespace orrery::pi_attention_claims {
namespace {

constexpr Index most_tokens = Index{1} << 31;

/// The share that is saved, in the open interval between none and all.
double read_fewer(const Table& table) {
  const double fewer = table.number("fewer");
  if (fewer > 0 && fewer < 1) return fewer;
  throw table.error_at("fewer", "fewer is the share that is saved (not in 0 to 1), write e.g. 0.241 for 24.1 %");
}

std::vector<double> positive(const Table& table, std::string_view key) {
  std::vector<double> values = table.numbers(key);
  if (values.empty() || !std::all_of(values.begin(), values.end(), [](double v) { return v > 0; }))
    throw table.error_at(key, std::string(key) + " takes a list of positive numbers, write e.g. [1024, 4096]");
  return values;
}

Flops prefill_flops(const ModelShape& model, Index tokens, const Primitive& primitive) {
  SizeProblem problem;
  problem.model = model;
  problem.tokens = tokens;
  problem.pass = StepPass::prefill;
  problem.primitives = {primitive};
  problem.prepare();
  return useful_flops(problem);
}

std::vector<Primitive> pi_pattern(const GpusClaim& claim) {
  return {{.kind = Primitive::Kind::window, .left = claim.k},
          {.kind = Primitive::Kind::stride, .period = claim.period, .count = 1}};
}

const ScheduleKind& schedule_that(ScheduleKind::Slots::Hold hold) {
  return *std::find_if(schedules().begin(), schedules().end(),
                       [&](const ScheduleKind& s) { return s.slots.hold == hold; });
}

/// One group of context-parallel ranks that ZeRO-3 spreads everything over, layers computed again.
std::optional<int> ring_that_holds(const SizeProblem& problem) {
  using Hold = ScheduleKind::Slots::Hold;
  const bool full = problem.primitives.front().kind == Primitive::Kind::full;
  Candidate c;
  c.schedule = &schedule_that(full ? Hold::block : Hold::fetched);
  c.degrees.zero = problem.pass == StepPass::training ? 3 : 0;
  c.recompute = problem.pass == StepPass::training ? Recompute::full : Recompute::none;
  c.microbatches = static_cast<int>(problem.batch);
  for (int ranks = 1; ranks <= problem.max_gpus; ++ranks) {
    c.degrees.context = c.groups = ranks;
    if (memory_of(memory_input(problem, c)).fits(problem.gpus.front().gpu.hbm_capacity)) return ranks;
  }
  return std::nullopt;
}

std::optional<int> plan_that_holds(const SizeProblem& problem) {
  std::optional<int> least;
  for (const Candidate& c : candidates_of(problem)) {
    const int ranks = c.degrees.ranks();
    if ((!least || ranks < *least) && bound_of(problem, c).fits) least = ranks;
  }
  return least;
}

/// From one GPU up, the most promising plans first; a plan whose bound misses the target is not simulated.
std::optional<int> plan_that_keeps_up(const SizeProblem& problem, double tokens_per_s) {
  const Seconds slowest =
      Seconds::from_si(static_cast<double>(problem.tokens) * static_cast<double>(problem.batch) / tokens_per_s);
  std::map<int, std::vector<std::pair<Seconds, Candidate>>> by_gpus;
  for (const Candidate& c : candidates_of(problem)) {
    const Bound bound = bound_of(problem, c);
    if (bound.fits && bound.time <= slowest) by_gpus[c.degrees.ranks()].emplace_back(bound.time, c);
  }
  for (auto& [gpus, plans] : by_gpus) {
    std::stable_sort(plans.begin(), plans.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
    for (const auto& [least, c] : plans) {
      if (simulate_candidate(problem, c).time <= slowest) return gpus;
    }
  }
  return std::nullopt;
}

}  // namespace

double flops_saved(double tokens, double hidden, double keys) {
  return (tokens - keys) / (6 * hidden + tokens);
}

// (n - w) / (6 H + n) = r, with n / 2 for n in both places if causal.
double tokens_that_save(double fewer, double hidden, double keys, bool causal) {
  return (6 * hidden * fewer + keys) / (1 - fewer) * (causal ? 2 : 1);
}

FlopsClaim read_flops_claim(const Table& table) {
  FlopsClaim claim;
  claim.fewer = read_fewer(table);
  claim.hidden = positive(table, "hidden");
  claim.keys = positive(table, "keys");
  for (const Index tokens : table.counts("tokens")) claim.tokens.push_back(static_cast<double>(tokens));
  for (const std::string& name : table.strings("models")) claim.models.push_back(load_model(name, table.file()));
  return claim;
}

double flops_saved(const ModelShape& model, Index tokens, Index keys) {
  const Flops all = prefill_flops(model, tokens, {.kind = Primitive::Kind::full});
  return 1 - prefill_flops(model, tokens, {.kind = Primitive::Kind::window, .left = keys - 1}) / all;
}

std::optional<Index> tokens_that_save(double fewer, const ModelShape& model, Index keys) {
  Index below = 0, enough = most_tokens;
  if (flops_saved(model, enough, keys) < fewer) return std::nullopt;
  while (enough - below > 1) {
    const Index middle = below + (enough - below) / 2;
    (flops_saved(model, middle, keys) < fewer ? below : enough) = middle;
  }
  return enough;
}

GpusClaim read_gpus_claim(const Table& table) {
  GpusClaim claim;
  claim.fewer = read_fewer(table);
  SizeProblem& p = claim.problem;
  p.model = load_model(table.file_name("model", "models"), table.file());
  p.pass = table.choice("pass", {"train", "prefill"}) == "train" ? StepPass::training : StepPass::prefill;
  p.batch = table.count("batch", 1, 1 << 20);
  p.dtype = table.choice("dtype", {"bf16", "fp16", "fp32"});
  claim.tokens = table.counts("tokens");
  for (const Index tokens : claim.tokens) {
    if (tokens < 1 || tokens > most_tokens)
      throw table.error_at("tokens", "tokens takes contexts of 1 to 2^31 tokens, write e.g. [\"128K\", \"1M\"]");
  }
  claim.k = table.count("k", 0, most_tokens);
  claim.period = table.count("period", 1, most_tokens);
  claim.tokens_per_s = positive(table, "tokens_per_s");
  const std::string gpu = table.file_name("gpu", "hardware");
  p.gpus.push_back(gpu_option(gpu, p.dtype, {table.file_name("profile", "profiles"), true}));
  p.network = load_link(table.file_name("network", "hardware"), table.file());
  p.node_sizes = {static_cast<int>(table.count("node_size", 1, 1024))};
  p.max_gpus = static_cast<int>(table.count("max_gpus", 1, 65536));
  p.implementation = load_implementation(table.file_name("implementation", "implementations"), table.file());
  return claim;
}

std::optional<double> Needed::fewer() const {
  if (!exact || !pi) return std::nullopt;
  return 1 - static_cast<double>(*pi) / *exact;
}

GpusRow needed_gpus(const GpusClaim& claim, Index tokens) {
  SizeProblem exact = claim.problem;
  exact.tokens = tokens;
  SizeProblem pi = exact;
  exact.primitives = {{.kind = Primitive::Kind::full}};
  pi.primitives = pi_pattern(claim);
  exact.prepare();
  pi.prepare();
  GpusRow row;
  row.tokens = tokens;
  row.holds_ring = {ring_that_holds(exact), ring_that_holds(pi)};
  row.holds = {plan_that_holds(exact), plan_that_holds(pi)};
  for (const double target : claim.tokens_per_s)
    row.keeps_up.push_back({plan_that_keeps_up(exact, target), plan_that_keeps_up(pi, target)});
  return row;
}

}  // namespace orrery::pi_attention_claims
