// The search for a cluster: what it leaves out is never better than what it finds.
#include "scenarios/size_search.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "scenarios/data_files.hpp"
#include "scenarios/preset_files.hpp"
#include "sim/simulate.hpp"
#include "tests/catch.hpp"

using namespace orrery;

namespace {

SizeProblem problem(std::vector<std::string> gpus) {
  SizeProblem p;
  p.model = load_model("llama3_8b");
  p.model.layers = 8;
  p.tokens = 32768;
  p.batch = 4;
  p.primitives = {{}};
  for (const std::string& name : gpus) {
    GpuOption option;
    option.gpu = load_gpu(name);
    option.profile = load_profile("peak", name);
    option.link = load_link(option.gpu.links.front());
    option.price_per_hour = name == "h100_sxm" ? 2 : 1;
    p.gpus.push_back(option);
  }
  p.network = load_link("infiniband_ndr");
  p.implementation = load_implementation("ideal");
  p.node_sizes = {2, 4};
  p.layouts = {"contiguous", "zigzag", "striped"};
  p.max_gpus = 8;
  p.prepare();
  return p;
}

std::string name_of(const Sized& s) {
  const Degrees& d = s.candidate.degrees;
  const Candidate& c = s.candidate;
  return fmt::format("gpu {} nodes of {} dp {} tp {} pp {} x {} cp {} {} x {} {} {} zero {} recompute {} of {}: {}",
                     c.gpu, c.node_size, d.data, d.tensor, d.pipeline, d.virtual_stages, d.context, c.groups, c.members,
                     c.schedule->name, c.layout, d.zero, static_cast<int>(c.recompute), c.microbatches,
                     s.step.time.si());
}

/// The search leaves out what computes again although it need not: the same program with work added.
bool recomputes_needlessly(const SizeProblem& p, Candidate c) {
  if (c.recompute == Recompute::none) return false;
  c.recompute = Recompute::none;
  return bound_of(p, c).fits;
}

}  // namespace

TEST_CASE("no candidate is simulated faster than its bound and pruning loses nothing") {
  for (const StepPass pass : {StepPass::training, StepPass::prefill, StepPass::decode}) {
    for (const Objective objective : {Objective::time, Objective::cost, Objective::gpus}) {
      const bool two_types = objective != Objective::time;
      SizeProblem p = two_types ? problem({"h100_sxm", "a100_80_sxm"}) : problem({"h100_sxm"});
      p.pass = pass;
      p.batch = 2;
      p.model.layers = 4;
      if (two_types) p.max_gpus = 4;
      SizeOptions options;
      options.objective = objective;
      const SizeResult pruned = search(p, options);
      const auto kept = static_cast<std::size_t>(options.keep);
      options.prune = false;
      options.threads = 1;
      options.keep = 1 << 20;
      SizeResult all = search(p, options);
      CHECK(all.bounded_away == 0);
      CHECK(all.simulated + all.too_large == all.candidates);
      CHECK(pruned.simulated + pruned.too_large + pruned.bounded_away == all.candidates);
      CHECK(pruned.simulated < all.simulated);
      for (const Sized& s : all.best) {
        INFO(name_of(s) << ", bound " << s.bound.time.si());
        CHECK(s.bound.time <= s.step.time);
      }
      std::erase_if(all.best, [&](const Sized& s) { return recomputes_needlessly(p, s.candidate); });
      REQUIRE(pruned.best.size() == std::min(kept, all.best.size()));
      for (std::size_t i = 0; i < pruned.best.size(); ++i) CHECK(name_of(pruned.best[i]) == name_of(all.best[i]));
      REQUIRE(pruned.front.size() == all.front.size());
      for (std::size_t i = 0; i < all.front.size(); ++i) CHECK(name_of(pruned.front[i]) == name_of(all.front[i]));
      CHECK(pruned.fewest->gpus == all.fewest->gpus);
    }
  }
}

TEST_CASE(
    "node sizes, layouts, chunks of a stage and sequences of a microbatch are chosen, each only where it matters") {
  SizeProblem p = problem({"h100_sxm"});
  std::set<int> node_sizes, chunks, microbatches;
  std::set<std::string_view> layouts_seen;
  for (const Candidate& c : candidates_of(p)) {
    node_sizes.insert(c.node_size);
    chunks.insert(c.degrees.virtual_stages);
    layouts_seen.insert(c.layout);
    if (c.degrees.data == 1) microbatches.insert(c.microbatches);
    CHECK(c.degrees.tensor <= c.node_size);
    if (c.degrees.ranks() <= 2) CHECK(c.node_size == 2);  // larger nodes are the same switch
    if (c.groups == 1) CHECK(c.layout == "contiguous");
    if (c.degrees.virtual_stages > 1) CHECK(c.microbatches % c.degrees.pipeline == 0);
    CHECK(p.batch % (Index{1} * c.degrees.data * c.microbatches) == 0);
  }
  CHECK(node_sizes == std::set{2, 4});
  CHECK(chunks == std::set{1, 2, 4});
  CHECK(layouts_seen == std::set<std::string_view>{"contiguous", "striped", "zigzag"});
  CHECK(microbatches == std::set{1, 2, 4});
}

TEST_CASE("an implementation is not asked for what it does not run") {
  SizeProblem p = problem({"h100_sxm"});
  for (const std::string& name : known_names("implementations")) {
    p.implementation = load_implementation(name);
    const Implementation& i = p.implementation;
    const auto knows = [](const std::vector<std::string>& names, std::string_view wanted) {
      return std::find(names.begin(), names.end(), wanted) != names.end();
    };
    for (const Candidate& c : candidates_of(p)) {
      CHECK(knows(i.schedules, c.schedule->name));
      CHECK(knows(i.layouts, c.layout));
    }
  }
}

TEST_CASE("every candidate's bound holds and its extrapolated time is that of all layers and microbatches") {
  SizeProblem p = problem({"h100_sxm"});
  int checked = 0;
  const std::vector<Candidate> candidates = candidates_of(p);
  for (std::size_t i = 0; i < candidates.size(); i += 41) {
    const Candidate& c = candidates[i];
    const SimulatedStep step = simulate_candidate(p, c);
    CHECK(bound_of(p, c).time <= step.time);
    const CandidateScenario exact_one = scenario_of(p, c, whole(p, c));
    const StepProgram program = build_step(exact_one.scenario, exact_one.folds);
    const double exact = to_seconds(simulate(program, exact_one.scenario.cluster).end).si();
    INFO("candidate " << i << " tp " << c.degrees.tensor << " pp " << c.degrees.pipeline << " cp " << c.degrees.context
                      << " dp " << c.degrees.data << " zero " << c.degrees.zero);
    CHECK_THAT(step.time.si(), WithinRel(exact, 0.01));
    ++checked;
  }
  CHECK(checked > 20);
}

TEST_CASE("bounds hold for measured kernels, and are near what is simulated") {
  SizeProblem p = problem({"h100_sxm"});
  p.gpus[0].profile = load_profile("h200_sxm", "h200_sxm");
  p.model.layers = 2;
  p.node_sizes = {8};
  p.tokens = 65536;
  p.batch = 1;
  p.max_gpus = 8;
  for (const StepPass pass : {StepPass::training, StepPass::prefill, StepPass::decode}) {
    p.pass = pass;
    p.fp8_matrices = pass == StepPass::prefill;
    p.prepare();
    double nearest = 0;
    for (const Candidate& c : candidates_of(p)) {
      const double bound = bound_of(p, c).time / simulate_candidate(p, c).time;
      CHECK(bound <= 1);
      nearest = std::max(nearest, bound);
    }
    if (pass == StepPass::training) CHECK(nearest > 0.85);
  }
}

TEST_CASE("a long ring simulated in merged steps takes what all its steps take") {
  SizeProblem p = problem({"h100_sxm"});
  p.model.layers = 4;
  p.tokens = 131072;
  p.batch = 1;
  p.max_gpus = 64;
  p.node_sizes = {8};
  p.prepare();
  int checked = 0, place = 0;
  for (const Candidate& c : candidates_of(p)) {
    if (c.groups < 16 || ++place % 13 != 0) continue;
    const CandidateScenario exact_one = scenario_of(p, c, whole(p, c));
    const StepProgram program = build_step(exact_one.scenario, exact_one.folds);
    const double exact = to_seconds(simulate(program, exact_one.scenario.cluster).end).si();
    const double found = simulate_candidate(p, c).time.si();
    INFO(c.schedule->name << " " << c.groups << " x " << c.members << " tp " << c.degrees.tensor << " pp "
                          << c.degrees.pipeline << " zero " << c.degrees.zero);
    CHECK_THAT(found, WithinRel(exact, 0.02));
    CHECK(bound_of(p, c).time.si() <= found);
    ++checked;
  }
  CHECK(checked >= 5);
}
