// The space of a sweep: a base scenario, and the values that its keys take.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <variant>
#include <vector>

#include "scenarios/reader.hpp"

namespace orrery {

/// A value as it stands in the file; a list or a table as its text.
using CaseValue = std::variant<std::int64_t, double, bool, std::string>;

/// What a space is read from. A base of its own file is `base`; otherwise that is empty.
struct SweepText {
  std::filesystem::path file, base_file;
  std::string space, base;

  /// Throws InputError.
  static SweepText read(const std::filesystem::path& file);
};

/// The cases are the product of the axes, numbered from 1; the last axis varies fastest. Axes are, in the order of the
/// file: each key of [grid], each [[together]] (keys that vary side by side), and all keys of [random].
/// Const functions may be called from several threads.
class SweepSpace {
 public:
  static constexpr std::int64_t most_cases = 100'000'000;

  /// Throws InputError if the text is no space.
  explicit SweepSpace(SweepText text);
  ~SweepSpace();
  SweepSpace(SweepSpace&&) noexcept;

  const SweepText& text() const { return text_; }
  std::int64_t cases() const { return cases_; }
  /// How the cases multiply: "3 workload.tokens x 100 random samples".
  std::string describe() const;
  /// The keys that vary, in the order of the file.
  std::vector<std::string> paths() const;
  /// The values of one case, in the order of paths().
  std::vector<CaseValue> values(std::int64_t number) const;
  /// The base with these values in place, for read_scenario().
  Table scenario(std::int64_t number) const;
  /// Looks at cases spread over the space until each key was asked for and one of the cases can be built. Throws
  /// InputError if a key is never asked for, or if all fail alike (the mistake is in the base, then).
  void check() const;

 private:
  struct Axis;
  struct Reader;
  std::vector<std::size_t> rows_of(std::int64_t number) const;

  SweepText text_;
  std::shared_ptr<Table::Node> base_;
  std::vector<Axis> axes_;
  std::int64_t cases_ = 1;
};

}  // namespace orrery
