// Values of keys that a sweep varies: listed, stepped through, or drawn. For the reader of a sweep's space alone.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "scenarios/reader_node.hpp"
#include "scenarios/sweep_space.hpp"

namespace orrery {

using SharedValue = std::shared_ptr<const toml::node>;  // keeps its document alive

CaseValue case_value(const toml::node& value);

/// A number of a file, with what else is needed to write others like it.
struct WrittenNumber {
  enum class Kind : std::uint8_t { whole, real, with_unit };
  Kind kind = Kind::whole;
  double value = 0;
  std::string unit;
};

/// Draws that depend on seed, key and sample alone.
struct Distribution {
  enum class Kind : std::uint8_t { uniform, log, choice };
  Kind kind = Kind::uniform;
  WrittenNumber from, to;
  std::int64_t multiple_of = 1;
  std::vector<SharedValue> choices;
  toml::source_region where;
  std::uint64_t stream = 0;  // of seed and key

  SharedValue draw(std::uint64_t sample) const;
};

/// `document` holds the node and keeps it alive.
std::vector<SharedValue> listed_values(const std::shared_ptr<const TomlDocument>& document, const toml::array& list);
/// {from = ..., to = ..., factor = ...} or step = ...
std::vector<SharedValue> range_values(const std::shared_ptr<const TomlDocument>& document, const toml::table& range);
/// {uniform = [a, b]}, {log = [a, b]}, both with multiple_of, or {choice = [...]}
Distribution read_distribution(const std::shared_ptr<const TomlDocument>& document, const toml::table& table,
                               const std::string& path, std::int64_t seed);

}  // namespace orrery
