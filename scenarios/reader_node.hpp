// What is behind the reader's view of a table: its values, and which of them have been asked for.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "scenarios/reader.hpp"
#include "scenarios/toml_document.hpp"

namespace orrery {

struct TomlDocument {
  toml::table root;
  std::filesystem::path file;
  std::shared_ptr<NamedFiles> named = std::make_shared<NamedFiles>();
};

/// For messages: without control characters, and cut if it is long.
std::string in_quotes(std::string_view text);

/// A key, and where it stands.
struct KeyPlace {
  std::string name;
  toml::source_region where;
};

/// A value that stands in for that of a key of a file: what a sweep varies.
struct Replacement {
  std::string path;  // "cluster.nodes", "attention.pattern.2.period": lists count from 1
  toml::source_region where;
  std::shared_ptr<const toml::node> value;
};

/// A table and what has been asked of it. The same node answers every request for the same table, so that finish()
/// knows all questions.
struct Table::Node {
  std::shared_ptr<const TomlDocument> document;
  const toml::table* table;
  std::string name;  // as in messages
  std::string path;  // "cluster.node", "attention.pattern.2"; empty at the top level
  std::shared_ptr<const std::vector<Replacement>> replacements = nullptr;
  std::vector<std::string> asked;
  std::map<std::string, std::vector<std::shared_ptr<Node>>, std::less<>> below;

  static Table view(std::shared_ptr<Node> node) { return Table(std::move(node)); }
  static const Node& of(const Table& table) { return *table.node_; }

  std::string path_of(std::string_view key) const;
  const toml::node* value_of(std::string_view key) const;
  std::vector<KeyPlace> keys() const;  // in the order of the file
  bool has_asked(std::string_view key) const;

  const toml::node* find(std::string_view key);
  const toml::node& get(std::string_view key);
  const std::vector<std::shared_ptr<Node>>& children(std::string_view key, std::span<const toml::table* const> tables,
                                                     bool list);
  InputError error(const toml::source_region& where, std::string_view message) const;
  InputError wrong_type(std::string_view key, const toml::node& value, std::string_view expected) const;
  InputError unknown(const KeyPlace& key) const;
  /// What is wrong with a replacement that was never asked for, nothing if it was.
  std::optional<InputError> unasked(const Replacement& replacement) const;
  void finish() const;
};

}  // namespace orrery
