#include "sim/simulate.hpp"

#include <fmt/format.h>

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
                                  const Columns& columns, const Perturbation* perturbation) {
  constexpr std::size_t deepest = 1024;
  DependencyEngine::Depths depths;
  while (true) {
    try {
      return DependencyEngine(blocks, cluster, survey, columns, perturbation, depths).run();
    } catch (const DependencyEngine::TooShallow& shallow) {
      depths = shallow.enough;
      if (depths.history > deepest) throw NotApplicable{"ops wait for raises of a signal that lie far back"};
      if (depths.union_window > deepest)
        throw NotApplicable{"transfers start in an order far from that of the program"};
    }
  }
}

[[noreturn]] void refuse(Engine engine, const std::string& reason) {
  throw std::invalid_argument(
      fmt::format("the {} engine cannot run this scenario ({}); use --engine auto", name_of(engine), reason));
}

}  // namespace

std::string_view name_of(Engine engine) {
  constexpr std::array<std::string_view, 4> names = {"auto", "event", "dependency", "lumped"};
  return names.at(static_cast<std::size_t>(engine));
}

SimulationResult simulate(const Program& program, const Cluster& cluster, const SimulationOptions& options) {
  BlockStore blocks(program, cluster);
  std::string reason;
  const bool may_be_cheaper = options.sink == nullptr && options.engine != Engine::event;
  if (may_be_cheaper) {
    const Survey overview = survey(blocks, cluster);
    reason = overview.contention;
    std::string unlike;
    try {
      if (reason.empty()) {
        std::optional<Columns> classes;
        if (options.engine != Engine::dependency) {
          if (options.perturbation == nullptr) classes = rank_classes(blocks, overview);
          if (!classes)
            unlike = options.perturbation != nullptr ? "noise sets ranks apart" : "hardly two ranks are alike";
          if (!classes && options.engine == Engine::lumped) refuse(options.engine, unlike);
        }
        SimulationResult result = run_dependencies(blocks, cluster, overview,
                                                   classes ? *classes : Columns(blocks.ranks()), options.perturbation);
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
  SimulationResult result = EventEngine(blocks, cluster, options.perturbation, options.sink).run();
  result.engine_reason = reason;
  return result;
}

SimulationResult simulate(const Program& program, const Cluster& cluster, SpanSink* sink) {
  return simulate(program, cluster, SimulationOptions{.engine = Engine::automatic, .sink = sink});
}

}  // namespace orrery
