// The engines agree, and what programs claim to repeat is a repetition.
#include <fmt/format.h>

#include <filesystem>
#include <map>
#include <stdexcept>
#include <string>

#include "scenarios/scenario.hpp"
#include "scenarios/step_scenario.hpp"
#include "sim/block_store.hpp"
#include "tests/catch.hpp"
#include "tests/each_op.hpp"
#include "tests/sim/same_result.hpp"
#include "tests/validate/cases.hpp"

using namespace orrery;

namespace {

/// An op as text, with all ranks relative to `rank` and all counts above those before the block.
std::string relative(const Op& op, std::span<const Message> messages, Rank rank, Rank ranks,
                     std::span<const std::int64_t> before) {
  const auto signal = [&](SignalRef s) {
    return s.rank < 0 ? std::string("-") : fmt::format("{}.{}", (s.rank - rank + ranks) % ranks, s.signal);
  };
  std::string text = fmt::format("{} {} {} {} {} {} {} > {}", static_cast<int>(op.stream), op.category, op.phase,
                                 op.launch, op.duration, op.hbm_traffic.si(), op.sms, signal(op.started));
  for (int i = 0; i < op.wait_count; ++i) {
    const Wait& wait = op.waits[static_cast<std::size_t>(i)];
    const auto which = static_cast<std::size_t>(wait.signal.signal);
    text += fmt::format(" {}:{}>={}", static_cast<int>(wait.stage), signal(wait.signal), wait.count - before[which]);
  }
  for (const SignalRef& s : op.finished) text += " " + signal(s);
  for (const Message& m : messages) {
    text += fmt::format(" {}->{} {} {}", (m.source - rank + ranks) % ranks, (m.destination - rank + ranks) % ranks,
                        m.size.si(), signal(m.delivered));
  }
  return text;
}

std::string ops_of(const Program& program, Rank rank, std::int64_t block) {
  OpBuffer buffer;
  buffer.begin(block);
  program.generate(rank, block, buffer);
  std::string text;
  for (const Op& op : buffer.ops()) {
    text += relative(op, buffer.messages_of(op), rank, program.ranks(), program.counts_before(block)) + "\n";
  }
  return text;
}

std::uint64_t ops_of_rank_0(const Program& program) {
  std::uint64_t ops = 0;
  for_each_op(program, 0, [&](const Op&, auto) { ++ops; });
  return ops;
}

/// Without SMs to hold and HBM to share, so that more programs are for the cheap engines.
AttentionProgram without_contention(NamedCase named) {
  named.scenario.implementation.sms = constant(0);
  named.scenario.layers = 5;
  return tiled_program(named);
}

/// Adds to `accepted` how often an engine other than the event engine took the program.
void check_engines(const Program& program, const Cluster& cluster, const Perturbation* perturbation,
                   std::map<Engine, int>& accepted) {
  const SimulationResult events = simulate(program, cluster, {.engine = Engine::event, .perturbation = perturbation});
  for (const Engine engine : {Engine::dependency, Engine::lumped}) {
    try {
      const SimulationResult other = simulate(program, cluster, {.engine = engine, .perturbation = perturbation});
      CHECK(other.engine == engine);
      check_same(events, other);
      ++accepted[engine];
    } catch (const std::invalid_argument& refused) {
      CHECK_THAT(refused.what(), ContainsSubstring("use --engine auto"));
    }
  }
}

Cluster unlimited_gpus(const NamedCase& named) {
  const Cluster limited = cluster_of(named.topology, 1);
  return limited.with_gpu({0, BytesPerSecond::from_si(0)});
}

}  // namespace

TEST_CASE("Ranks of one set of a partition, and blocks of one shape, run the same ops but for a shift") {
  for (const NamedCase& named : cases()) {
    INFO(named.name);
    const AttentionProgram program = tiled_program(named);
    std::map<std::pair<std::int64_t, std::size_t>, std::string> known;  // by shape and set
    std::vector<RankSet> sets;
    std::size_t different = 0;
    for (std::int64_t block = 0; block < program.blocks(); ++block) {
      sets.clear();
      program.partition(block, sets);
      std::vector<int> members(static_cast<std::size_t>(program.ranks()));
      for (std::size_t s = 0; s < sets.size(); ++s) {
        for (Rank i = 0; i < sets[s].count; ++i) {
          ++members[static_cast<std::size_t>(sets[s][i])];
          const std::string ops = ops_of(program, sets[s][i], block);
          const auto [entry, is_new] = known.try_emplace({program.shape(block), s}, ops);
          different += entry->second != ops;
        }
      }
      CHECK(members == std::vector<int>(members.size(), 1));
    }
    CHECK(different == 0);
  }
}

TEST_CASE("The engines agree to the tick, in every account, wherever they apply") {
  int by_dependencies = 0;
  for (const NamedCase& named : cases()) {
    INFO(named.name);
    const AttentionProgram program = without_contention(named);
    const Cluster cluster = unlimited_gpus(named);
    const SimulationResult events = simulate(program, cluster, {.engine = Engine::event});
    for (const Engine engine : {Engine::dependency, Engine::lumped, Engine::automatic}) {
      SimulationResult other;
      try {
        other = simulate(program, cluster, {.engine = engine});
      } catch (const std::invalid_argument&) {
        continue;
      }
      check_same(events, other);
      by_dependencies += other.engine == Engine::dependency;
    }
  }
  CHECK(by_dependencies >= 20);
}

TEST_CASE("The engines agree to the tick on every example and step, with and without what slows ops down") {
  std::map<Engine, int> accepted;
  for (const char* folder : {"/scenarios/examples", "/scenarios/steps"}) {
    for (const auto& entry : std::filesystem::directory_iterator(std::string(ORRERY_SOURCE_DIR) + folder)) {
      INFO(entry.path());
      Scenario scenario = load_scenario(entry.path());
      const Perturbation noise(scenario.ranks(), {Noise::normal, 0.05, 7}, {{1, 0.8}});
      for (const bool contention : {true, false}) {
        if (!contention) {
          scenario.implementation.sms = constant(0);
          scenario.cluster = scenario.cluster.with_gpu({0, BytesPerSecond::from_si(0)});
        }
        for (const Perturbation* perturbation : {static_cast<const Perturbation*>(nullptr), &noise}) {
          if (scenario.whole_step) {
            check_engines(build_step(scenario), scenario.cluster, perturbation, accepted);
          } else {
            check_engines(build_program(scenario), scenario.cluster, perturbation, accepted);
          }
        }
      }
    }
  }
  CHECK(accepted[Engine::dependency] >= 20);
  CHECK(accepted[Engine::lumped] >= 3);
}

TEST_CASE("Ranks that are alike and layers that repeat are worked off once") {
  int lumped = 0, repeating = 0, slow_but_repeating = 0;
  for (NamedCase named : cases()) {
    IdealCase& c = named.scenario;
    c.causal = false;
    c.documents.clear();
    c.pattern = {{}};
    c.layout = "contiguous";
    c.layers = 40;
    c.backward = true;
    c.implementation.sms = constant(0);
    c.implementation.launch = constant(0);  // host time does not advance with the GPU's
    INFO(named.name);
    const AttentionProgram program = tiled_program(named);
    const Cluster cluster = unlimited_gpus(named);
    const SimulationResult events = simulate(program, cluster, {.engine = Engine::event});
    const SimulationResult automatic = simulate(program, cluster, {});
    check_same(events, automatic);
    if (automatic.engine != Engine::lumped) continue;
    ++lumped;
    const std::uint64_t ops = static_cast<std::uint64_t>(program.ranks()) * ops_of_rank_0(program);
    CHECK(automatic.events * 2 <= ops);
    const Perturbation slow(program.ranks(), {}, {{0, 0.8}});
    const SimulationResult one_slow = simulate(program, cluster, {.perturbation = &slow});
    check_same(simulate(program, cluster, {.engine = Engine::event, .perturbation = &slow}), one_slow);
    slow_but_repeating += one_slow.events * 2 <= ops;
    repeating += automatic.events * 16 <= ops;  // half of the ranks, and in each direction an eighth of the layers
  }
  CHECK(lumped >= 10);
  CHECK(repeating >= 5);
  CHECK(slow_but_repeating >= 5);
}
