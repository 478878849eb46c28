// Candidates of a search: bounds of their times, and times that follow from a few layers, microbatches and groups.
#include <map>
#include <random>
#include <tuple>

#include "tests/catch.hpp"
#include "tests/scenarios/size_problems.hpp"

using namespace orrery;

namespace {

/// Blocks take longer to come than what is computed beside them.
SizeProblem slow_network(Index tokens) {
  SizeProblem p = size_problem({"b200_sxm"});
  p.model = load_model("llama2_7b");
  p.model.layers = 8;
  p.network = load_link("pcie4_x16");
  p.tokens = tokens;
  p.batch = 1;
  p.max_gpus = 16;
  return p;
}

}  // namespace

TEST_CASE("every candidate's bound holds and its extrapolated time is that of all layers and microbatches") {
  SizeProblem p = size_problem({"h100_sxm"});
  int checked = 0;
  const std::vector<Candidate> candidates = candidates_of(p);
  for (std::size_t i = 0; i < candidates.size(); i += 41) {
    const Candidate& c = candidates[i];
    const SimulatedStep step = simulate_candidate(p, c);
    CHECK(bound_of(p, c).time <= step.time);
    const double exact = whole_seconds(p, c);
    INFO("candidate " << i << " " << text_of(c));
    CHECK_THAT(step.time.si(), WithinRel(exact, 0.01));
    ++checked;
  }
  CHECK(checked > 20);
}

TEST_CASE("replicas of a batch with an odd divisor fill their nodes in what is simulated too") {
  SizeProblem p = size_problem({"h100_sxm"});
  p.model.layers = 2;
  p.tokens = 8192;
  int checked = 0, folded = 0, place = 0;
  for (const int batch : {10, 12}) {
    p.batch = batch;
    p.max_gpus = 48;
    p.prepare();
    for (const Candidate& c : candidates_of(p)) {
      const Degrees& d = c.degrees;
      if (d.data % 2 != 0 || d.ranks() <= 2 * c.node_size || ++place % 17 != 0) continue;
      const double exact = whole_seconds(p, c);
      INFO("batch " << batch << " " << text_of(c));
      CHECK_THAT(simulate_candidate(p, c).time.si(), WithinRel(exact, 0.01));
      ++checked;
      folded += d.tensor * d.context * d.data > 2 * c.node_size;
    }
  }
  CHECK(checked > 20);
  CHECK(folded > 10);
}

TEST_CASE("bounds hold for measured kernels, and are near what is simulated") {
  SizeProblem p = size_problem({"h100_sxm"});
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

TEST_CASE("bounds hold where blocks take longer to come than what is computed beside them") {
  SizeProblem p = slow_network(8192);
  p.pass = StepPass::prefill;
  p.prepare();
  int checked = 0;
  double nearest = 0;
  for (const Candidate& c : candidates_of(p)) {
    if (c.groups < 4) continue;
    const double bound = bound_of(p, c).time / simulate_candidate(p, c).time;
    INFO(text_of(c));
    CHECK(bound <= 1);
    nearest = std::max(nearest, bound);
    ++checked;
  }
  CHECK(checked > 50);
  CHECK(nearest > 0.9);
}

TEST_CASE("bounds count gathers before an attention, after an optimizer, and beside blocks on the same links") {
  SizeProblem p = slow_network(16384);
  p.node_sizes = {4};
  p.layouts = {"contiguous", "zigzag"};
  p.prepare();
  // Tensor ranks fill their nodes: each sends its blocks and its shards through its own NIC.
  std::map<std::tuple<std::string_view, std::string_view, int>, double> share;
  for (const Candidate& c : candidates_of(p)) {
    if (c.degrees.tensor != 4 || c.groups != 4 || c.recompute != Recompute::none) continue;
    const double bound = bound_of(p, c).time / simulate_candidate(p, c).time;
    INFO(text_of(c) << " " << bound);
    CHECK(bound <= 1);
    CHECK(bound > 0.8);
    share[{c.schedule->name, c.layout, c.degrees.zero}] = bound;
  }
  CHECK(share.size() == 8);  // ring and gather, both layouts, ZeRO-1 and 3
}

TEST_CASE("bounds hold for models, GPUs, networks, layouts and schedules drawn at random") {
  std::mt19937 random(1);
  const auto one_of = [&](const auto& all) { return all[random() % all.size()]; };
  int checked = 0;
  while (checked < 100) {
    SizeProblem p;
    p.model = load_model(one_of(std::vector<std::string>{"llama3_8b", "llama3_70b", "llama2_13b"}));
    p.model.layers = one_of(std::vector<Index>{1, 2, 4, 8});
    p.tokens = one_of(std::vector<Index>{4096, 16384, 65536, 262144});
    p.batch = one_of(std::vector<Index>{1, 2, 4});
    p.pass = one_of(std::vector<StepPass>{StepPass::training, StepPass::prefill, StepPass::decode});
    p.primitives = {{}};
    if (random() % 4 == 0) p.primitives = {{.kind = Primitive::Kind::window, .left = 1024}};
    p.causal = p.primitives.front().kind != Primitive::Kind::full || random() % 4 != 0;
    p.gpus = {gpu_option(one_of(std::vector<std::string>{"h100_sxm", "a100_80_sxm", "h200_sxm", "b200_sxm"}), p.dtype,
                         {"peak", true})};
    GpuOption& option = p.gpus.front();
    if (random() % 2 == 0) option.profile = load_profile("peak", option.gpu.name);
    p.fp8_matrices = option.gpu.peaks.contains("fp8") && random() % 4 == 0;
    p.network = load_link(one_of(std::vector<std::string>{"infiniband_hdr", "infiniband_ndr", "pcie4_x16"}));
    p.implementation = load_implementation(
        one_of(std::vector<std::string>{"ideal", "orrery_ring", "loongtrain", "transformer_engine_all_gather"}));
    p.node_sizes = {one_of(std::vector<int>{2, 4, 8})};
    p.layouts = {"contiguous", "zigzag", "striped"};
    p.max_gpus = one_of(std::vector<int>{4, 8, 16, 32});
    if (p.primitives.front().kind != Primitive::Kind::full && !p.implementation.sparse) continue;
    p.prepare();
    const std::vector<Candidate> candidates = candidates_of(p);
    for (int i = 0; i < 4 && !candidates.empty(); ++i, ++checked) {
      const Candidate& c = one_of(candidates);
      INFO(p.model.name << " " << p.tokens << " on " << option.gpu.name << " " << p.implementation.name << " "
                        << text_of(c));
      CHECK(tightened(p, c, bound_of(p, c)).time <= simulate_candidate(p, c).time);
    }
  }
}

TEST_CASE("a long ring simulated in merged steps takes what all its steps take") {
  SizeProblem p = size_problem({"h100_sxm"});
  p.model.layers = 4;
  p.tokens = 131072;
  p.batch = 1;
  p.max_gpus = 64;
  p.node_sizes = {8};
  p.prepare();
  int checked = 0, place = 0;
  for (const Candidate& c : candidates_of(p)) {
    if (c.groups < 16 || ++place % 13 != 0) continue;
    const double exact = whole_seconds(p, c);
    const double found = simulate_candidate(p, c).time.si();
    INFO(text_of(c));
    CHECK_THAT(found, WithinRel(exact, 0.02));
    CHECK(bound_of(p, c).time.si() <= found);
    ++checked;
  }
  CHECK(checked >= 5);
}
