// What is behind the reader's view of a table: its values, and which of them have been asked for.
#pragma once

#include <map>
#include <memory>
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
};

/// For messages: without control characters, and cut if it is long.
std::string in_quotes(std::string_view text);

/// A table and what has been asked of it. The same node answers every request for the same table, so that finish()
/// knows all questions.
struct Table::Node {
  std::shared_ptr<const TomlDocument> document;
  const toml::table* table;
  std::string name;  // as in messages
  std::string path;  // "cluster.node"; empty at the top level
  std::vector<std::string> asked;
  std::map<std::string, std::vector<std::shared_ptr<Node>>, std::less<>> below;

  const toml::node* find(std::string_view key);
  const toml::node& get(std::string_view key);
  const std::vector<std::shared_ptr<Node>>& children(std::string_view key, std::span<const toml::table* const> tables,
                                                     bool list);
  InputError error(toml::source_position where, std::string_view message) const;
  InputError wrong_type(std::string_view key, const toml::node& value, std::string_view expected) const;
  InputError unknown(const toml::key& key) const;
  void finish() const;
};

}  // namespace orrery
