// The memory of a step, visit by visit, against its closed form.
#include "scenarios/memory_over_time.hpp"

#include <fmt/format.h>

#include "scenarios/scenario.hpp"
#include "scenarios/step_scenario.hpp"
#include "tests/catch.hpp"

using namespace orrery;

namespace {

Scenario step_of(const std::string& name) {
  return load_scenario(std::string(ORRERY_SOURCE_DIR) + "/scenarios/steps/" + name + ".toml");
}

/// The plans differ in what fills memory: pipelines of both kinds, ZeRO, sequences on many ranks, an unfused loss.
std::vector<Scenario> plans() {
  std::vector<Scenario> all;
  for (const char* name : {"llama3_8b_8k_fsdp_64", "llama3_8b_1m_context_h200", "llama3_70b_128k_decode_h200"})
    all.push_back(step_of(name));
  for (const int stages : {2, 4}) {
    for (const int chunks : {1, 2, 5}) {
      for (const int rounds : {1, 2, 3}) {
        for (const Recompute recompute : {Recompute::none, Recompute::full}) {
          Scenario s = step_of("llama3_70b_8k_3d_h100");
          s.degrees.pipeline = stages;
          s.degrees.data = 8 / stages;
          s.degrees.virtual_stages = chunks;
          s.degrees.zero = rounds;
          s.microbatches = stages * rounds;
          s.batch = static_cast<Index>(s.degrees.data) * s.microbatches;
          s.recompute = recompute;
          s.fused_loss = rounds != 2;
          s.layers = 40;
          all.push_back(s);
        }
      }
    }
  }
  return all;
}

}  // namespace

TEST_CASE("the peak over time is that of the closed form, and nothing is kept when a step is over") {
  for (const Scenario& s : plans()) {
    INFO(s.name << ", pipeline " << s.degrees.pipeline << " x " << s.degrees.virtual_stages << ", " << s.microbatches
                << " microbatches, recompute " << static_cast<int>(s.recompute));
    const StepProgram program = build_step(s);
    double most = 0;
    for (int stage = 0; stage < program.stages(); ++stage) {
      const std::vector<MemoryPoint> points = memory_over_time(program, stage);
      for (const MemoryPoint& point : points) most = std::max(most, point.memory.peak().si());
      CHECK(points.back().memory[MemoryPart::activations] == 0);
      CHECK(points.front().memory[MemoryPart::activations] == 0);
    }
    CHECK_THAT(most, WithinRel(memory_of(memory_input(s)).peak().si(), 1e-12));
    CHECK_THAT(fullest_point(program).memory.peak().si(), WithinRel(most, 1e-12));
  }
}

TEST_CASE("1F1B keeps what its warm-up sent ahead, and frees a layer after its backward pass") {
  Scenario s = step_of("llama3_70b_8k_3d_h100");
  s.degrees.virtual_stages = 1;
  const StepProgram program = build_step(s);
  const double layer = 8192 * kept_per_layer(memory_input(s), s.recompute);
  for (int stage = 0; stage < 4; ++stage) {
    double most = 0, last = 0;
    for (const MemoryPoint& point : memory_over_time(program, stage)) {
      const double kept = point.memory[MemoryPart::activations];
      CHECK(std::abs(kept - last) <= layer * 1.0001);
      most = std::max(most, kept);
      last = kept;
    }
    // Microbatches in flight: 4 on the first stage, 1 on the last; 20 layers of each.
    CHECK_THAT(most, WithinRel((4 - stage) * 20 * layer, 1e-12));
  }
}

TEST_CASE("visits have times, in order and within the step") {
  const Scenario s = step_of("llama3_70b_8k_3d_h100");
  const StepProgram program = build_step(s);
  VisitTimes times(program);
  const SimulationResult result = simulate(program, s.cluster, {.sink = &times});
  for (int stage = 0; stage < program.stages(); ++stage) {
    Ticks last = 0;
    for (const VisitTimes::Time& time : times.of(stage)) {
      if (!time.ran) continue;
      CHECK(time.start >= last);
      CHECK(time.end >= time.start);
      last = time.end;
    }
    CHECK(last > 0);
    CHECK(last <= result.end);
  }
  const std::vector<MemoryPoint> points = memory_over_time(program, 0);
  CHECK(points.size() == times.of(0).size());
}
