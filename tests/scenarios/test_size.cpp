// The search for a cluster: what it leaves out is never better than what it finds.
#include "scenarios/size_search.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <random>
#include <set>

#include "scenarios/data_files.hpp"
#include "scenarios/size_what_if.hpp"
#include "scenarios/step_power.hpp"
#include "tests/catch.hpp"
#include "tests/scenarios/size_problems.hpp"

using namespace orrery;

namespace {

std::string name_of(const Sized& s) {
  return fmt::format("{}: {}", text_of(s.candidate), s.step.time.si());
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
      SizeProblem p = two_types ? size_problem({"h100_sxm", "a100_80_sxm"}) : size_problem({"h100_sxm"});
      p.pass = pass;
      p.batch = 2;
      p.model.layers = 4;
      p.layouts = {"contiguous", "zigzag"};
      if (two_types) p.max_gpus = 4;
      SizeOptions options;
      options.objective = objective;
      options.settle = false;
      const SizeResult pruned = search(p, options);
      const auto kept = static_cast<std::size_t>(options.keep);
      options.prune = false;
      options.threads = 1;
      options.keep = 1 << 20;
      SizeResult all = search(p, options);
      CHECK(all.bounded_away == 0);
      CHECK(all.simulated + all.too_large == all.candidates);
      CHECK(pruned.simulated + pruned.too_large + pruned.bounded_away == all.candidates);
      CHECK((pass == StepPass::training ? 4 : 1) * pruned.simulated < all.simulated);
      for (std::size_t i = 0; i < all.best.size(); ++i) {
        const Sized& s = all.best[i];
        INFO(name_of(s) << ", bound " << s.bound.time.si());
        CHECK(s.bound.time <= s.step.time);
        if (i % 8 == 0) CHECK(tightened(p, s.candidate, s.bound).time <= s.step.time);
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
  SizeProblem p = size_problem({"h100_sxm"});
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

TEST_CASE("stages, replicas and microbatches are all divisors of layers and batch, on whole nodes") {
  SizeProblem p = size_problem({"h100_sxm"});
  p.model.layers = 18;
  p.batch = 6;
  p.max_gpus = 36;
  p.node_sizes = {2};
  p.prepare();
  std::set<int> stages, replicas, of_each, chunks;
  for (const Candidate& c : candidates_of(p)) {
    CHECK(c.degrees.ranks() % 2 == (c.degrees.ranks() == 1 ? 1 : 0));
    stages.insert(c.degrees.pipeline);
    replicas.insert(c.degrees.data);
    chunks.insert(c.degrees.virtual_stages);
    of_each.insert(6 / (c.degrees.data * c.microbatches));
    CHECK(18 % (c.degrees.pipeline * c.degrees.virtual_stages) == 0);
  }
  CHECK(stages == std::set{1, 2, 3, 6, 9, 18});
  CHECK(replicas == std::set{1, 2, 3, 6});
  CHECK(of_each == replicas);
  CHECK(chunks == std::set{1, 3, 9, 2, 6});
}

TEST_CASE("every schedule is searched where it has a use") {
  SizeProblem p = size_problem({"h100_sxm"});
  p.node_sizes = {2};
  const auto seen = [&](const std::vector<Primitive>& primitives, StepPass pass) {
    p.primitives = primitives;
    p.pass = pass;
    p.prepare();
    std::set<std::string_view> names;
    for (const Candidate& c : candidates_of(p)) {
      if (c.degrees.context == 1) continue;
      names.insert(c.schedule->name);
      // Of a double ring the inner one is a node.
      CHECK((c.inner_ring > 1) == c.schedule->needs_inner_ring);
      if (c.inner_ring > 1) CHECK(c.inner_ring * c.degrees.tensor == c.node_size);
    }
    return names;
  };
  const Primitive window{.kind = Primitive::Kind::window, .left = 1024};
  std::set<std::string_view> all;
  for (const ScheduleKind& schedule : schedules()) all.insert(schedule.name);
  std::set<std::string_view> exact = all;
  exact.erase("halo");  // a fetch of everything is a gather
  for (const StepPass pass : {StepPass::training, StepPass::prefill}) {
    CHECK(seen({{}}, pass) == exact);
    CHECK(seen({window}, pass) == std::set<std::string_view>{"halo", "ulysses"});  // nobody needs the others' blocks
    Primitive half = window, rest;
    half.layers = {1, 3, 5, 7};
    rest.layers = {2, 4, 6, 8};
    CHECK(seen({half, rest}, pass) == all);
  }
  CHECK(seen({{}}, StepPass::decode).size() == 1);  // no keys travel
}

TEST_CASE("the memory of a candidate is that of its scenario, whatever pattern, pass and layout") {
  SizeProblem p = size_problem({"h100_sxm"});
  p.node_sizes = {2};
  p.implementation.halo_of_whole_windows = true;
  const Primitive window{.kind = Primitive::Kind::window, .left = 3000};
  const Primitive skip{.kind = Primitive::Kind::gated_skip, .period = 9000};
  Primitive half = window, rest;
  half.layers = {1, 3, 5, 7};
  rest.layers = {2, 4, 6, 8};
  for (const auto& primitives : std::vector<std::vector<Primitive>>{{{}}, {window}, {half, rest}, {window, skip}}) {
    for (const StepPass pass : {StepPass::training, StepPass::prefill, StepPass::decode}) {
      p.primitives = primitives;
      p.pass = pass;
      p.prepare();
      const std::vector<Candidate> candidates = candidates_of(p);
      for (std::size_t i = 0; i < candidates.size(); i += 7) {
        const Candidate& c = candidates[i];
        const CandidateScenario exact = scenario_of(p, c, whole(p, c));
        INFO(text_of(c));
        CHECK_THAT(bound_of(p, c).memory.si(), WithinRel(memory_of(memory_input(exact.scenario)).peak().si(), 1e-12));
      }
    }
  }
}

TEST_CASE("a sequence that cannot be split, or is too short to be, stays on one rank") {
  SizeProblem p = size_problem({"h100_sxm"});
  for (const Index tokens : {Index{100003}, Index{512}, Index{1}}) {
    p.tokens = tokens;
    p.prepare();
    const std::vector<Candidate> candidates = candidates_of(p);
    CHECK_FALSE(candidates.empty());
    for (const Candidate& c : candidates) CHECK(c.degrees.context == 1);
  }
}

TEST_CASE("what a measured step waits for is what would help it: HBM, matrix units or links") {
  SizeProblem p = size_problem({"h200_sxm"});
  p.gpus[0].profile = load_profile("h200_sxm", "h200_sxm");
  p.max_gpus = 2;
  const auto gains = [&](StepPass pass, int tensor) {
    p.pass = pass;
    p.prepare();
    const std::vector<Candidate> candidates = candidates_of(p);
    const auto chosen = std::find_if(candidates.begin(), candidates.end(), [&](const Candidate& c) {
      return c.degrees.tensor == tensor && c.degrees.ranks() == tensor && c.microbatches == 1;
    });
    REQUIRE(chosen != candidates.end());
    Sized sized;
    sized.candidate = *chosen;
    sized.gpus = tensor;
    sized.step = simulate_candidate(p, *chosen);
    std::map<std::string, double> ratios;
    for (const WhatIf& what : what_ifs(p, sized)) ratios[what.change] = what.time / sized.step.time;
    return ratios;
  };
  const std::string units = "matrix units of twice the speed", hbm = "HBM of twice the bandwidth",
                    links = "links inside nodes of twice the bandwidth";
  auto decode = gains(StepPass::decode, 1);
  CHECK(decode[hbm] < 0.75);
  CHECK(decode[units] > 0.99);
  auto prefill = gains(StepPass::prefill, 1);
  CHECK(prefill[units] < 0.75);
  CHECK(prefill[hbm] > prefill[units]);
  auto split = gains(StepPass::prefill, 2);
  CHECK(split[links] < 0.99);
  CHECK(split[units] < split[links]);
}

TEST_CASE("an implementation is not asked for what it does not run") {
  SizeProblem p = size_problem({"h100_sxm"});
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

TEST_CASE("what is found at the clock of its mean power does not depend on pruning or on how much is shown") {
  SizeProblem p = size_problem({"h100_sxm"});
  p.gpus[0].profile = load_profile("h100_sxm", "h100_sxm");
  p.model.layers = 4;
  p.tokens = 16384;
  p.batch = 1;
  p.max_gpus = 8;
  p.node_sizes = {2};
  p.layouts = {"zigzag"};
  p.network = load_link("pcie4_x16");  // slow: kernels rest, and what has no power to spend on them is not the fastest
  p.prepare();
  SizeOptions options;
  options.keep = 1;
  const SizeResult one = search(p, options);
  options.keep = 12;
  const SizeResult many = search(p, options);
  options.prune = false;
  const SizeResult all = search(p, options);
  REQUIRE(many.best.size() == 12);
  CHECK(one.best.front().step.time == many.best.front().step.time);
  CHECK(many.best.front().step.time == all.best.front().step.time);
  CHECK(many.simulated < all.simulated);
  for (const SizeResult* result : {&one, &many}) {
    REQUIRE(result->front.size() == all.front.size());
    for (std::size_t i = 0; i < all.front.size(); ++i) CHECK(result->front[i].step.time == all.front[i].step.time);
  }

  // A target that a plan just meets is met by it, or with fewer GPUs.
  options.prune = true;
  options.objective = Objective::gpus;
  for (std::size_t i = 0; i < many.best.size(); i += 4) {
    const Sized& plan = many.best[i];
    options.slowest = plan.step.time * (1 + 1e-9);
    const SizeResult found = search(p, options);
    REQUIRE(!found.best.empty());
    CHECK(found.best.front().gpus <= plan.gpus);
    CHECK(found.best.front().step.time <= *options.slowest);
  }

  // Neither a search nor its result is faster than kernels at the power limit allow, and energy is that of a
  // simulation.
  for (const Sized& plan : all.best) {
    const Bound bound = tightened(p, plan.candidate, bound_of(p, plan.candidate));
    CHECK(least_settled(p, plan.candidate, bound) <= plan.step.time);
    CHECK_THAT(simulate_for_search(p, plan.candidate, bound, [](Seconds) { return true; }).time.si(),
               WithinRel(plan.step.time.si(), 0.015));
    const CandidateScenario exact = scenario_of(p, plan.candidate, whole(p, plan.candidate));
    StepProgram program = build_step(exact.scenario, exact.folds);
    CHECK_THAT(*plan.energy, WithinRel(simulate_step(program, exact.scenario).power->energy.si(), 1e-6));
  }
}

TEST_CASE("plans too large to be simulated whole again are found within 1.1 % of the whole, power and all") {
  std::mt19937 random(3);
  const auto one_of = [&](const auto& all) { return all[random() % all.size()]; };
  const Primitive window{.kind = Primitive::Kind::window, .left = 1024};
  const Primitive skip{.kind = Primitive::Kind::stride, .period = 8192, .count = 1};
  for (const auto& primitives : std::vector<std::vector<Primitive>>{{{}}, {{}}, {window, skip}}) {
    SizeProblem p = size_problem({"h100_sxm"});
    p.gpus[0].profile = load_profile("h100_sxm", "h100_sxm");
    p.tokens = 262144;
    p.primitives = primitives;
    p.max_gpus = 64;
    p.node_sizes = {4};
    p.layouts = {"zigzag"};
    p.prepare();
    std::vector<Candidate> candidates = candidates_of(p);
    std::erase_if(candidates, [&](const Candidate& c) { return c.degrees.ranks() < 64 || c.degrees.context < 32; });
    for (int i = 0; i < 2; ++i) {
      const Candidate& c = one_of(candidates);
      const CandidateScenario exact = scenario_of(p, c, whole(p, c));
      StepProgram program = build_step(exact.scenario, exact.folds);
      const double simulated = to_seconds(simulate_step(program, exact.scenario).result.end).si();
      INFO(text_of(c));
      CHECK_THAT(simulate_settled(p, c).time.si(), WithinRel(simulated, 0.011));
    }
  }
}
