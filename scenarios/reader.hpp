// A strict reader of TOML files: every value is asked for by name and type, nothing has a default, and what nobody
// asked for is an error. Every message carries file, line and column.
#pragma once

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <initializer_list>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "scenarios/data_files.hpp"
#include "scenarios/named_files.hpp"
#include "sim/units.hpp"

namespace orrery {

template <class Rows>
std::vector<std::string> names_of(const Rows& rows) {
  std::vector<std::string> names;
  for (const auto& row : rows) names.emplace_back(row.name);
  return names;
}

/// A view of one table of a parsed file. Copies are views of the same table and keep the file's contents alive.
/// Getters throw InputError if the key is missing or its value is not what is asked for.
class Table {
 public:
  static Table parse_file(const std::filesystem::path& file);
  /// `file` is the name used in messages.
  static Table parse(std::string_view text, const std::filesystem::path& file);

  bool has(std::string_view key) const;

  std::string string(std::string_view key) const;  // not empty
  bool boolean(std::string_view key) const;
  double number(std::string_view key) const;       // a TOML float or integer, finite
  std::int64_t count(std::string_view key) const;  // a TOML integer or a string for parse_count; 0 <= it < 2^53
  std::int64_t count(std::string_view key, std::int64_t least, std::int64_t most) const;  // and in this range
  Seconds seconds(std::string_view key) const;  // less than 2^63 ps; strings with a unit, see sim/units.hpp
  Bytes bytes(std::string_view key) const;
  BytesPerSecond bandwidth(std::string_view key) const;
  FlopsPerSecond flop_rate(std::string_view key) const;
  Watts power(std::string_view key) const;
  /// One of the allowed names; the error lists the nearest and all.
  std::string choice(std::string_view key, std::span<const std::string> allowed) const;
  std::string choice(std::string_view key, std::initializer_list<const char*> allowed) const;
  /// The one of these rows whose name it is.
  template <class Rows>
  const auto& row(std::string_view key, const Rows& rows) const {
    const std::string name = choice(key, names_of(rows));
    return *std::find_if(std::begin(rows), std::end(rows), [&](const auto& r) { return r.name == name; });
  }
  /// A name that resolve() finds in `folder`, or the path of a file that exists.
  std::string file_name(std::string_view key, std::string_view folder) const;
  /// read(name, file()) for such a name. Of all tables of a document, only the first to ask runs it; `depends_on`: what
  /// else it reads.
  template <class Load>
  auto load(std::string_view key, std::string_view folder, Load read, std::string_view depends_on = {}) const {
    const std::string name = string(key);
    return named().get({folder, name, depends_on}, [&] { return read(file_name(key, folder), file()); });
  }

  std::vector<std::int64_t> counts(std::string_view key) const;
  std::vector<double> numbers(std::string_view key) const;
  std::vector<std::string> strings(std::string_view key) const;
  std::vector<Table> tables(std::string_view key) const;  // [[key]] or key = [{...}, ...]
  Table table(std::string_view key) const;

  // The same for keys that may be absent.
  std::optional<std::string> optional_string(std::string_view key) const;
  std::optional<bool> optional_boolean(std::string_view key) const;
  std::optional<double> optional_number(std::string_view key) const;
  std::optional<std::int64_t> optional_count(std::string_view key) const;
  std::optional<FlopsPerSecond> optional_flop_rate(std::string_view key) const;
  std::optional<Watts> optional_power(std::string_view key) const;
  std::optional<Table> optional_table(std::string_view key) const;

  /// For keys that take several types ("all" or a count) and tables whose keys are free names.
  bool is_string(std::string_view key) const;
  bool is_table(std::string_view key) const;
  std::vector<std::string> keys() const;  // in the order of the file; asks for none of them

  /// Throws InputError for the first key, here or in a table below, that nobody asked for. Call it when all is read.
  void finish() const;

  const std::filesystem::path& file() const;
  /// As in messages: "[cluster.node]", "[[runs]] #2", or "the top level".
  const std::string& name() const;
  /// An error about the value of a key (or about the table, if the key is absent) for the caller to throw.
  InputError error_at(std::string_view key, std::string_view message) const;
  InputError error_here(std::string_view message) const;

  struct Node;  // what is behind the view; defined where toml++ is known

 private:
  explicit Table(std::shared_ptr<Node> node) : node_(std::move(node)) {}
  NamedFiles& named() const;
  std::shared_ptr<Node> node_;
};

}  // namespace orrery
