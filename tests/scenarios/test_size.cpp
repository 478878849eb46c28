// The search for a cluster: what it leaves out is never better than what it finds.
#include "scenarios/size_search.hpp"

#include <fmt/format.h>

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
  p.max_gpus = 16;
  p.prepare();
  return p;
}

std::string name_of(const Sized& s) {
  const Degrees& d = s.candidate.degrees;
  return fmt::format("gpu {} dp {} tp {} pp {} cp {} {} x {} {} zero {} recompute {}: {}", s.candidate.gpu, d.data,
                     d.tensor, d.pipeline, d.context, s.candidate.groups, s.candidate.members,
                     s.candidate.schedule->name, d.zero, static_cast<int>(s.candidate.recompute), s.step.time.si());
}

}  // namespace

TEST_CASE("no candidate is simulated faster than its bound and pruning loses nothing") {
  for (const StepPass pass : {StepPass::training, StepPass::prefill, StepPass::decode}) {
    for (const Objective objective : {Objective::time, Objective::cost, Objective::gpus}) {
      SizeProblem p = problem({"h100_sxm", "a100_80_sxm"});
      p.pass = pass;
      if (pass != StepPass::training || objective != Objective::time) p.max_gpus = 8;
      SizeOptions options;
      options.objective = objective;
      const SizeResult pruned = search(p, options);
      options.prune = false;
      options.threads = 1;
      const SizeResult all = search(p, options);
      CHECK(all.bounded_away == 0);
      CHECK(all.simulated + all.too_large == all.candidates);
      CHECK(pruned.simulated + pruned.too_large + pruned.bounded_away == all.candidates);
      CHECK(pruned.simulated < all.simulated);
      REQUIRE(pruned.best.size() == all.best.size());
      for (std::size_t i = 0; i < all.best.size(); ++i) CHECK(name_of(pruned.best[i]) == name_of(all.best[i]));
      REQUIRE(pruned.front.size() == all.front.size());
      for (std::size_t i = 0; i < all.front.size(); ++i) CHECK(name_of(pruned.front[i]) == name_of(all.front[i]));
      for (const Sized& s : all.front) CHECK(s.bound.time <= s.step.time);
      for (const Sized& s : all.best) CHECK(s.bound.time <= s.step.time);
      CHECK(pruned.fewest->gpus == all.fewest->gpus);
    }
  }
}

TEST_CASE("every candidate's bound holds and its extrapolated time is that of all layers and microbatches") {
  SizeProblem p = problem({"h100_sxm"});
  p.max_gpus = 16;
  int checked = 0;
  const std::vector<Candidate> candidates = candidates_of(p);
  for (std::size_t i = 0; i < candidates.size(); i += 7) {
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
  p.prepare();
  int checked = 0, place = 0;
  for (const Candidate& c : candidates_of(p)) {
    if (c.groups < 16 || ++place % 5 != 0) continue;
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
