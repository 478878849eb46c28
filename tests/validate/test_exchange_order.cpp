// A head exchange sends what the projections make.
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
