// What stands around the attention of a pass and of its steps: a head exchange sends what the projections make.
#include <algorithm>
#include <map>

#include "tests/catch.hpp"
#include "tests/validate/cases.hpp"

using namespace orrery;

namespace {

struct OpSpans : SpanSink {
  std::vector<Span> all;
  void ops(std::span<const Span> spans) override { all.insert(all.end(), spans.begin(), spans.end()); }
  void links(std::span<const LinkSpan>) override {}
};

/// Of what a rank does in front of the attention of a layer's pass.
struct ExchangeTimes {
  Ticks projected = 0, sent = 0;  // end, start
  std::vector<Span> packs;
};

/// Projections take a second and packing is a kernel of its own, forward and backward.
AttentionProgram packing_program(const NamedCase& named) {
  AttentionProgramInput input = tiled_program(named).input();
  input.dense.products = {{1, 1, (input.peaks.matrix * Seconds::from_si(1)).si() / 2}};
  for (const Phase phase : {Phase::forward, Phase::backward}) {
    input.implementation.step_kernels.push_back(
        {.phase = phase, .when = StepKernel::When::begin, .kernel = "pack", .query_bytes = 4, .key_bytes = 4});
  }
  return AttentionProgram(std::move(input));
}

}  // namespace

TEST_CASE("what heads are exchanged of is packed when its projections have ended, and sent when it is packed") {
  for (const NamedCase& named : cases()) {
    INFO(named.name);
    const AttentionProgram program = packing_program(named);
    OpSpans spans;
    simulate(program, cluster_of(named.topology, 1), &spans);
    std::map<std::pair<Rank, std::int64_t>, ExchangeTimes> passes;
    OpBuffer buffer;
    for (const Span& span : spans.all) {
      if (span.category == static_cast<std::uint8_t>(Category::dense))
        passes[{span.rank, span.block}].projected = span.end;
    }
    CHECK(passes.size() ==
          static_cast<std::size_t>(program.ranks()) * (named.scenario.backward ? 4 : 2));  // two layers
    for (const Span& span : spans.all) {
      const auto pass = passes.find({span.rank, span.block});
      if (pass == passes.end()) continue;
      if (span.category == static_cast<std::uint8_t>(Category::head_exchange)) pass->second.sent = span.start;
      const Action action = program.actions(span.rank, span.block, buffer)[static_cast<std::size_t>(span.index)];
      if (action.kernel == "pack") pass->second.packs.push_back(span);
    }
    for (const auto& [of, times] : passes) {
      CHECK(times.packs.size() == (named.scenario.members > 1 ? 1 : 0));
      for (const Span& pack : times.packs) {
        CHECK(pack.start >= times.projected);
        CHECK(pack.end > pack.start);
        CHECK(times.sent >= pack.end);
      }
    }
  }
}

TEST_CASE("kernels around a step run after the first, the later or the middle ones, or those of a part of the rows") {
  using When = StepKernel::When;
  IdealCase c = ideal_case();
  c.groups = 4;
  c.tokens = 64;
  c.layout = "zigzag";
  c.causal = c.backward = true;
  for (const Phase phase : {Phase::forward, Phase::backward}) {
    for (const auto& [when, name] :
         {std::pair(When::first_step, "first"), std::pair(When::later_steps, "later"),
          std::pair(When::middle_steps, "middle"), std::pair(When::part_queries, "part of the queries"),
          std::pair(When::part_keys, "part of the keys")}) {
      c.implementation.step_kernels.push_back(
          {.phase = phase, .when = when, .kernel = name, .query_bytes = 5, .key_bytes = 3});
    }
  }
  // Rank 1 attends the blocks of ranks 1, 0, 3 and 2: the first half of what lies before it, and with its second half
  // of queries what lies behind it.
  struct Step {
    Index query_rows, key_rows;
    std::vector<std::string> kernels;
  };
  const Index all = c.block(), half = all / 2;
  const std::vector<Step> steps = {{all, all, {"first"}},
                                   {all, half, {"later", "middle", "part of the keys"}},
                                   {half, all, {"later", "middle", "part of the queries"}},
                                   {half, all, {"later", "part of the queries"}}};
  const AttentionProgram program = program_of(c);
  std::map<std::pair<int, int>, std::vector<std::string>> found;  // by phase and step
  OpBuffer buffer;
  for (std::int64_t block = 0; block < program.blocks(); ++block) {
    const std::vector<Action> actions = program.actions(1, block, buffer);
    for (std::size_t i = 0; i < actions.size(); ++i) {
      if (actions[i].kernel.empty()) continue;
      const Op& op = buffer.ops()[i];
      const Step& step = steps.at(static_cast<std::size_t>(actions[i].step));
      found[{op.phase, actions[i].step}].emplace_back(actions[i].kernel);
      CHECK(op.hbm_traffic.si() ==
            static_cast<double>(step.query_rows * c.heads * 5 + 2 * step.key_rows * c.kv_heads * 3) * c.head_dim);
    }
  }
  for (int phase = 0; phase < 2; ++phase) {
    for (int step = 0; step < 4; ++step) CHECK(found[{phase, step}] == steps[static_cast<std::size_t>(step)].kernels);
  }
}
