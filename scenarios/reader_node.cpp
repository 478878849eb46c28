#include "scenarios/reader_node.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "scenarios/nearest.hpp"

namespace orrery {
namespace {

std::string_view type_name(const toml::node& node) {
  switch (node.type()) {
    case toml::node_type::table:
      return "a table";
    case toml::node_type::array:
      return "a list";
    case toml::node_type::string:
      return "a string";
    case toml::node_type::integer:
      return "an integer";
    case toml::node_type::floating_point:
      return "a float";
    case toml::node_type::boolean:
      return "a boolean";
    case toml::node_type::date:
      return "a date";
    case toml::node_type::time:
      return "a time of day";
    case toml::node_type::date_time:
      return "a date";
    case toml::node_type::none:
      break;
  }
  return "nothing";
}

std::string shown_value(const toml::node& node) {
  if (const auto* text = node.as_string()) return in_quotes(text->get());
  if (const auto* integer = node.as_integer()) return fmt::format("{}", integer->get());
  if (const auto* real = node.as_floating_point()) return fmt::format("{}", real->get());
  if (const auto* boolean = node.as_boolean()) return boolean->get() ? "true" : "false";
  return std::string(type_name(node));
}

}  // namespace

std::string in_quotes(std::string_view text) {
  constexpr std::size_t longest = 60;
  std::size_t length = std::min(text.size(), longest);
  // Cut between characters, not inside one.
  while (length < text.size() && length > 0 && (static_cast<unsigned char>(text[length]) & 0xC0) == 0x80) --length;
  std::string shown(text.substr(0, length));
  if (length < text.size()) shown += "...";
  return fmt::format("\"{}\"", in_one_line(std::move(shown)));
}

InputError Table::Node::error(toml::source_position where, std::string_view message) const {
  return InputError(message_at(document->file, where, message));
}

InputError Table::Node::wrong_type(std::string_view key, const toml::node& value, std::string_view expected) const {
  const bool container = value.is_table() || value.is_array();
  const std::string found =
      container ? std::string(type_name(value)) : fmt::format("{} ({})", type_name(value), shown_value(value));
  return error(value.source().begin, fmt::format("{} in {} is {}, expected {}", key, name, found, expected));
}

InputError Table::Node::unknown(const toml::key& key) const {
  const std::string typed(key.str());
  if (asked.empty())
    return error(key.source().begin,
                 fmt::format("unknown key {} in {} (no key is known here), remove it", in_quotes(typed), name));
  const auto near = nearest(typed, asked);
  return error(
      key.source().begin,
      near ? fmt::format("unknown key {} in {}; did you mean \"{}\"?", in_quotes(typed), name, *near)
           : fmt::format("unknown key {} in {}; known keys: {}", in_quotes(typed), name, fmt::join(asked, ", ")));
}

const toml::node* Table::Node::find(std::string_view key) {
  if (std::find(asked.begin(), asked.end(), key) == asked.end()) asked.emplace_back(key);
  return table->get(key);
}

const toml::node& Table::Node::get(std::string_view key) {
  if (const toml::node* value = find(key)) return *value;
  // A mistyped key is the likely reason: say so where it stands. Short names (tp, dp) are too alike for that.
  for (const auto& [present, value] : *table) {
    const bool answered = std::find(asked.begin(), asked.end(), present.str()) != asked.end();
    const bool alike = key.size() >= 5 && edit_distance(key, present.str()) <= std::min<std::size_t>(2, key.size() / 3);
    if (!answered && alike) {
      throw error(present.source().begin,
                  fmt::format("unknown key {} in {}; did you mean \"{}\"?", in_quotes(present.str()), name, key));
    }
  }
  throw error(table->source().begin, fmt::format("missing key \"{}\" in {} (it has no default), add it", key, name));
}

const std::vector<std::shared_ptr<Table::Node>>& Table::Node::children(std::string_view key,
                                                                       std::span<const toml::table* const> tables,
                                                                       bool list) {
  const auto [place, is_new] = below.try_emplace(std::string(key));
  if (is_new) {
    const std::string full = path.empty() ? std::string(key) : fmt::format("{}.{}", path, key);
    for (std::size_t i = 0; i < tables.size(); ++i) {
      auto child = std::make_shared<Node>();
      child->document = document;
      child->table = tables[i];
      child->name = list ? fmt::format("[[{}]] #{}", full, i + 1) : fmt::format("[{}]", full);
      child->path = full;
      place->second.push_back(std::move(child));
    }
  }
  return place->second;
}

void Table::Node::finish() const {
  // The earliest in the file, not in the alphabet: that is where a reader starts.
  const toml::key* first = nullptr;
  for (const auto& [key, value] : *table) {
    if (std::find(asked.begin(), asked.end(), key.str()) != asked.end()) continue;
    const auto position = [](const toml::key& k) { return std::pair(k.source().begin.line, k.source().begin.column); };
    if (first == nullptr || position(key) < position(*first)) first = &key;
  }
  if (first != nullptr) throw unknown(*first);
  for (const auto& [key, nodes] : below) {
    for (const auto& node : nodes) node->finish();
  }
}

}  // namespace orrery
