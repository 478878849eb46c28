// Reach patterns as files: scenarios/reach/*.toml, and the patterns of any scenario file. The keys are described in
// docs/reach.md.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <string_view>

#include "scenarios/reach_cost.hpp"
#include "scenarios/reach_pattern.hpp"
#include "scenarios/reach_problem.hpp"

namespace orrery {

/// What the command line says instead of the file.
struct ReachOverrides {
  std::optional<int> layers;
  std::optional<Index> tokens;
  std::optional<Index> query;
  std::optional<Index> ranks;
  std::optional<std::string> model;
};

struct ReachInput {
  std::string name;  // of the file, without ending
  std::string description;
  ReachPattern pattern;
  ReachSequence sequence;
  std::optional<ReachHardware> hardware;  // if model and ranks are known
};

/// By path, or by the name of a file in scenarios/reach/. Throws InputError.
ReachInput load_reach(std::string_view name, const ReachOverrides& overrides);

}  // namespace orrery
