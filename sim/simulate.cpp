#include "sim/simulate.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <optional>

#include "sim/block_store.hpp"
#include "sim/dependency_engine.hpp"
#include "sim/event_engine.hpp"
#include "sim/rank_classes.hpp"
#include "sim/survey.hpp"

namespace orrery {
namespace {

SimulationResult run_dependencies(BlockStore& blocks, const Cluster& cluster, const Survey& survey,
                                  const Columns& columns, const Perturbation* perturbation, std::size_t deepest) {
  DependencyEngine::Depths depths;
  bool may_lock_step = true;
  while (true) {
    try {
      return DependencyEngine(blocks, cluster, survey, columns, perturbation, depths, may_lock_step).run();
    } catch (const DependencyEngine::NotInLockStep&) {
      may_lock_step = false;
    } catch (const DependencyEngine::TooShallow& shallow) {
      depths = shallow.enough;
      if (depths.history > deepest) throw NotApplicable{"ops wait for raises of a signal that lie far back"};
      if (std::max(depths.comm.comm, depths.comm.comm_or_idle) > deepest)
        throw NotApplicable{"transfers start in an order far from that of the program"};
    }
  }
}

std::string_view unlikeness(const Perturbation* perturbation) {
  if (perturbation == nullptr) return "hardly two ranks are alike";
  return perturbation->noisy() ? "noise sets ranks apart" : "slow ranks set them apart";
}

[[noreturn]] void refuse(Engine engine, const std::string& reason) {
  throw std::invalid_argument(
      fmt::format("the {} engine cannot run this scenario ({}); use --engine auto", name_of(engine), reason));
}

// Who leaves the choice of the engine to us gets an answer within a minute or two, or this sentence.
constexpr std::uint64_t most_looks = std::uint64_t{1} << 31;  // of the survey, about 5 ns each
constexpr std::uint64_t most_dependency_ops = 1'000'000'000;  // about 50 ns each
constexpr std::uint64_t most_event_ops = 250'000'000;         // 100 ns and more

void check_length(std::uint64_t number, std::uint64_t most, std::string_view what, Engine engine,
                  const std::string& reason) {
  if (number <= most) return;
  throw std::invalid_argument(
      fmt::format("this program is too long: {:.2g} {} ({}; at most {:.2g} unless an engine is named), use fewer ranks "
                  "or layers, or wait for simulate --engine {}",
                  static_cast<double>(number), what, reason, static_cast<double>(most), name_of(engine)));
}

}  // namespace

std::string_view name_of(Engine engine) {
  constexpr std::array<std::string_view, 4> names = {"auto", "event", "dependency", "lumped"};
  return names.at(static_cast<std::size_t>(engine));
}

SimulationResult simulate(const Program& program, const Cluster& cluster, const SimulationOptions& options) {
  if (options.faults != nullptr) check(*options.faults, cluster);
  BlockStore blocks(program, cluster);
  std::string reason;
  const bool may_be_cheaper = options.sink == nullptr && options.engine != Engine::event;
  const bool may_refuse = options.engine == Engine::automatic;
  if (may_refuse) {
    const auto looks = static_cast<std::uint64_t>(program.shapes()) * static_cast<std::uint64_t>(blocks.ranks());
    check_length(looks, most_looks, "steps of a rank to compare", Engine::dependency, "all that differ are compared");
  }
  Survey overview = survey(blocks, cluster);
  if (options.faults != nullptr && !options.faults->empty()) {
    overview.contention = describe(*options.faults, cluster);
    // Rates change, and routes may.
    overview.is_private_link.assign(overview.is_private_link.size(), false);
    overview.trunks.trunks.clear();
    overview.trunks.of_link.assign(overview.trunks.of_link.size(), -1);
  }
  if (may_be_cheaper) {
    reason = overview.contention;
    std::string unlike;
    try {
      if (reason.empty()) {
        std::optional<Columns> classes;
        if (options.engine != Engine::dependency) {
          const bool noisy = options.perturbation != nullptr && options.perturbation->noisy();
          if (!noisy) classes = rank_classes(blocks, overview, options.perturbation);
          if (!classes) unlike = unlikeness(options.perturbation);
          if (!classes && options.engine == Engine::lumped) refuse(options.engine, unlike);
        }
        if (may_refuse && !classes) check_length(overview.ops, most_dependency_ops, "ops", Engine::dependency, unlike);
        // Rank by rank, the event engine is faster than a longer memory of signals (all-gathers of 64 ranks and more).
        const std::size_t deepest = classes || !may_refuse ? 1024 : 64;
        SimulationResult result = run_dependencies(
            blocks, cluster, overview, classes ? *classes : Columns(blocks.ranks()), options.perturbation, deepest);
        result.engine = classes ? Engine::lumped : Engine::dependency;
        result.engine_reason = unlike;
        return result;
      }
    } catch (const NotApplicable& exception) {
      reason = exception.reason;
    }
    if (options.engine != Engine::automatic) refuse(options.engine, reason);
  } else if (options.sink != nullptr) {
    reason = "a trace was asked for";
    if (options.engine == Engine::dependency || options.engine == Engine::lumped) refuse(options.engine, reason);
  }
  if (may_refuse) check_length(overview.ops, most_event_ops, "ops", Engine::event, reason);
  SimulationResult result = EventEngine(blocks, cluster, overview, options).run();
  result.engine_reason = reason;
  return result;
}

SimulationResult simulate(const Program& program, const Cluster& cluster, SpanSink* sink) {
  return simulate(program, cluster, SimulationOptions{.engine = Engine::automatic, .sink = sink});
}

}  // namespace orrery
