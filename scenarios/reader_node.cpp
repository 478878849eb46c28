#include "scenarios/reader_node.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "scenarios/nearest.hpp"
#include "sim/contains.hpp"

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

InputError Table::Node::error(const toml::source_region& where, std::string_view message) const {
  // A replaced value stands in another file.
  return InputError(message_at(where.path ? *where.path : document->file.string(), where.begin, message));
}

InputError Table::Node::wrong_type(std::string_view key, const toml::node& value, std::string_view expected) const {
  const bool container = value.is_table() || value.is_array();
  const std::string found =
      container ? std::string(type_name(value)) : fmt::format("{} ({})", type_name(value), shown_value(value));
  return error(value.source(), fmt::format("{} in {} is {}, expected {}", key, name, found, expected));
}

InputError Table::Node::unknown(const KeyPlace& key) const {
  if (asked.empty())
    return error(key.where,
                 fmt::format("unknown key {} in {} (no key is known here), remove it", in_quotes(key.name), name));
  const auto near = nearest(key.name, asked);
  return error(
      key.where,
      near ? fmt::format("unknown key {} in {}; did you mean \"{}\"?", in_quotes(key.name), name, *near)
           : fmt::format("unknown key {} in {}; known keys: {}", in_quotes(key.name), name, fmt::join(asked, ", ")));
}

std::string Table::Node::path_of(std::string_view key) const {
  return path.empty() ? std::string(key) : fmt::format("{}.{}", path, key);
}

const toml::node* Table::Node::value_of(std::string_view key) const {
  const toml::node* value = table->get(key);
  if (replacements == nullptr) return value;
  const std::string full = path_of(key), inside = full + ".";
  for (const Replacement& r : *replacements) {
    if (r.path == full) return r.value.get();
  }
  // A table that only replaced values make.
  static const toml::table empty;
  const auto is_inside = [&](const Replacement& r) { return r.path.starts_with(inside); };
  if (value == nullptr && std::any_of(replacements->begin(), replacements->end(), is_inside)) return &empty;
  return value;
}

std::vector<KeyPlace> Table::Node::keys() const {
  std::vector<KeyPlace> found;
  for (const auto& [key, value] : *table) found.push_back({std::string(key.str()), key.source()});
  if (replacements != nullptr) {
    const std::string inside = path.empty() ? "" : path + ".";
    for (const Replacement& r : *replacements) {
      if (!r.path.starts_with(inside)) continue;
      std::string key = r.path.substr(inside.size());
      key.resize(std::min(key.find('.'), key.size()));
      const auto is_key = [&](const KeyPlace& known) { return known.name == key; };
      if (std::none_of(found.begin(), found.end(), is_key)) found.push_back({std::move(key), r.where});
    }
  }
  std::sort(found.begin(), found.end(), [](const KeyPlace& a, const KeyPlace& b) {
    return std::pair(a.where.begin.line, a.where.begin.column) < std::pair(b.where.begin.line, b.where.begin.column);
  });
  return found;
}

bool Table::Node::has_asked(std::string_view key) const {
  return contains(asked, key);
}

const toml::node* Table::Node::find(std::string_view key) {
  if (!has_asked(key)) asked.emplace_back(key);
  return value_of(key);
}

const toml::node& Table::Node::get(std::string_view key) {
  if (const toml::node* value = find(key)) return *value;
  // A mistyped key is the likely reason: say so where it stands. Short names (tp, dp) are too alike for that.
  for (const KeyPlace& present : keys()) {
    const bool alike = key.size() >= 4 && edit_distance(key, present.name) <= std::min<std::size_t>(2, key.size() / 3);
    if (!has_asked(present.name) && alike) {
      throw error(present.where,
                  fmt::format("unknown key {} in {}; did you mean \"{}\"?", in_quotes(present.name), name, key));
    }
  }
  throw error(table->source(), fmt::format("missing key \"{}\" in {} (it has no default), add it", key, name));
}

const std::vector<std::shared_ptr<Table::Node>>& Table::Node::children(std::string_view key,
                                                                       std::span<const toml::table* const> tables,
                                                                       bool list) {
  const auto [place, is_new] = below.try_emplace(std::string(key));
  if (is_new) {
    const std::string full = path_of(key);
    for (std::size_t i = 0; i < tables.size(); ++i) {
      auto child = std::make_shared<Node>();
      child->document = document;
      child->table = tables[i];
      child->name = list ? fmt::format("[[{}]] #{}", full, i + 1) : fmt::format("[{}]", full);
      child->path = list ? fmt::format("{}.{}", full, i + 1) : full;
      child->replacements = replacements;
      place->second.push_back(std::move(child));
    }
  }
  return place->second;
}

std::optional<InputError> Table::Node::unasked(const Replacement& r) const {
  const Node* node = this;
  std::string_view rest = std::string_view(r.path).substr(path.empty() ? 0 : path.size() + 1);
  const auto next_part = [&] {
    const std::string_view part = rest.substr(0, rest.find('.'));
    rest.remove_prefix(std::min(part.size() + 1, rest.size()));
    return part;
  };
  while (true) {
    const std::string key(next_part());
    if (!node->has_asked(key)) return node->unknown({key, r.where});
    if (rest.empty()) return std::nullopt;
    const auto tables = node->below.find(key);
    if (tables == node->below.end())
      return node->error(r.where,
                         fmt::format("{} in {} is no table (nothing in it can vary), name a key", key, node->name));
    std::size_t index = 1;
    if (node->value_of(key)->is_array()) {
      const std::string part(next_part());
      index = part.size() < 9 && part.find_first_not_of("0123456789") == part.npos ? std::stoul("0" + part) : 0;
      if (index < 1 || index > tables->second.size() || rest.empty()) {
        return node->error(r.where,
                           fmt::format("{} is a list of {} in the scenario, write {}.1.KEY for a key of its first "
                                       "entry",
                                       node->path_of(key), tables->second.size(), node->path_of(key)));
      }
    }
    node = tables->second[index - 1].get();
  }
}

void Table::Node::finish() const {
  // The earliest in the file, not in the alphabet: that is where a reader starts.
  for (const KeyPlace& key : keys()) {
    if (!has_asked(key.name)) throw unknown(key);
  }
  for (const auto& [key, nodes] : below) {
    for (const auto& node : nodes) node->finish();
  }
}

}  // namespace orrery
