#include "scenarios/reader.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <utility>

// toml++ 3.3 asserts what a damaged file need not fulfil ("[!") and, in release builds, tells the compiler to rely on
// it, although the code after it reports the error. Without NDEBUG and with an empty assertion both are gone.
#undef NDEBUG
#define TOML_ASSERT(condition) static_assert(true)
#include <toml++/toml.h>

#include "scenarios/nearest.hpp"

namespace orrery {

namespace {

struct Document {
  toml::table root;
  std::filesystem::path file;
};

}  // namespace

/// A table and what has been asked of it. The same node answers every request for the same table, so that finish()
/// knows all questions.
struct Table::Node {
  std::shared_ptr<const Document> document;
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

namespace {

/// The last character of the string that begins with the quote at `begin`. An unclosed one ends with its line (three
/// quotes: with the text); the parser complains about it.
std::size_t end_of_string(std::string_view text, std::size_t begin) {
  const char quote = text[begin];
  const bool triple = text.substr(begin, 3) == std::string(3, quote);
  const std::string closing(triple ? 3 : 1, quote);
  std::size_t i = begin + closing.size();
  while (i < text.size() && text.substr(i, closing.size()) != closing) {
    if (!triple && text[i] == '\n') return i - 1;
    i += quote == '"' && text[i] == '\\' ? 2 : 1;
  }
  return i + closing.size() - 1;
}

/// toml++ limits the depth of [[[...]]], not that of a.a.a...; a few million of them would overflow the stack when the
/// tables are destroyed, so they are counted before parsing. Returns where a key has too many parts.
std::optional<toml::source_position> too_deep(std::string_view text) {
  constexpr int most_dots = 32;
  int dots = 0;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (c == '#') i = std::min(text.find('\n', i), text.size()) - 1;
    if (c == '"' || c == '\'') i = end_of_string(text, i);
    if (c == '.' && ++dots > most_dots) {
      const auto line = std::count(text.begin(), text.begin() + static_cast<std::ptrdiff_t>(i), '\n');
      const std::size_t line_begin = text.substr(0, i).rfind('\n') + 1;  // npos + 1 is 0
      return toml::source_position{static_cast<toml::source_index>(line + 1),
                                   static_cast<toml::source_index>(i - line_begin + 1)};
    }
    if (std::string_view("=[]{},\n").find(c) != std::string_view::npos) dots = 0;
  }
  return std::nullopt;
}

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

std::string in_quotes(std::string_view text) {
  constexpr std::size_t longest = 60;
  std::size_t length = std::min(text.size(), longest);
  // Cut between characters, not inside one.
  while (length < text.size() && length > 0 && (static_cast<unsigned char>(text[length]) & 0xC0) == 0x80) --length;
  std::string shown(text.substr(0, length));
  if (length < text.size()) shown += "...";
  // A message is one line, whatever the file says.
  std::replace_if(
      shown.begin(), shown.end(), [](unsigned char c) { return c < 0x20 || c == 0x7f; }, ' ');
  return fmt::format("\"{}\"", shown);
}

std::string shown_value(const toml::node& node) {
  if (const auto* text = node.as_string()) return in_quotes(text->get());
  if (const auto* integer = node.as_integer()) return fmt::format("{}", integer->get());
  if (const auto* real = node.as_floating_point()) return fmt::format("{}", real->get());
  if (const auto* boolean = node.as_boolean()) return boolean->get() ? "true" : "false";
  return std::string(type_name(node));
}

std::string message_at(const std::filesystem::path& file, toml::source_position where, std::string_view message) {
  // Tables that only exist as part of a longer name have no position of their own.
  std::string text =
      fmt::format("{}:{}:{}: {}", file.string(), std::max(where.line, 1u), std::max(where.column, 1u), message);
  // A message is one line of text, whatever the file says.
  std::replace_if(
      text.begin(), text.end(), [](unsigned char c) { return c < 0x20 || c == 0x7f; }, ' ');
  return text;
}

}  // namespace

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

Table Table::parse_file(const std::filesystem::path& file) {
  return parse(read_text_file(file, "TOML"), file);
}

Table Table::parse(std::string_view text, const std::filesystem::path& file) {
  if (const auto where = too_deep(text)) {
    throw InputError(message_at(file, *where, "the key is nested too deep (more than 32 dots), use fewer levels"));
  }
  auto document = std::make_shared<Document>();
  document->file = file;
  try {
    document->root = toml::parse(text);
  } catch (const toml::parse_error& error) {
    const std::string_view why = error.description();
    const bool redefined = why.find("redefine") != std::string_view::npos;
    throw InputError(
        message_at(file, error.source().begin,
                   redefined ? fmt::format("a key is given twice ({}), remove one of the two", why)
                             : fmt::format("this is not valid TOML ({}), compare with a file in scenarios/", why)));
  }
  if (document->root.empty()) {
    throw InputError(message_at(file, {1, 1}, "the file is empty (comments and blank lines aside), fill it in"));
  }
  auto node = std::make_shared<Node>();
  node->table = &document->root;
  node->document = std::move(document);
  node->name = "the top level";
  return Table(std::move(node));
}

namespace {

/// Why a string is no value at all. TOML can escape a NUL into one, where file names and messages would end.
std::optional<std::string_view> unusable(const std::string& text) {
  if (text.empty()) return "an empty string";
  if (text.find('\0') != std::string::npos) return "a string with a NUL character";
  return std::nullopt;
}

}  // namespace

bool Table::has(std::string_view key) const {
  return node_->find(key) != nullptr;
}

std::string Table::string(std::string_view key) const {
  const toml::node& value = node_->get(key);
  const auto* text = value.as_string();
  if (text == nullptr) throw node_->wrong_type(key, value, "a string in quotes");
  if (const auto why = unusable(text->get())) throw error_at(key, fmt::format("{} is {}, fill it in", key, *why));
  return text->get();
}

bool Table::boolean(std::string_view key) const {
  const toml::node& value = node_->get(key);
  if (const auto* boolean = value.as_boolean()) return boolean->get();
  throw node_->wrong_type(key, value, "true or false");
}

namespace {

constexpr std::string_view number_expected = "a number, e.g. 0.5";
constexpr std::string_view count_expected = "a count, e.g. 4096, \"1M\" (2^20) or \"1e6\"";

// Errors as text; the caller knows the key and adds the position.

const std::string& to_text(const toml::node& value) {
  const std::string& text = value.as_string()->get();
  if (const auto why = unusable(text)) throw UnitError(fmt::format("this is {}, fill it in", *why));
  return text;
}

std::int64_t to_count(const toml::node& value) {
  if (value.is_string()) return parse_count(to_text(value));
  const std::int64_t count = value.as_integer()->get();
  if (count < 0) throw UnitError(fmt::format("{} is negative (it is a count), write 0 or more", count));
  if (count >= (std::int64_t{1} << 53))
    throw UnitError(fmt::format("{} is out of range (2^53 or more), write less", count));
  return count;
}

bool is_count(const toml::node& value) {
  return value.is_string() || value.is_integer();
}

double to_number(const toml::node& value) {
  const double number =
      value.is_integer() ? static_cast<double>(value.as_integer()->get()) : value.as_floating_point()->get();
  if (!std::isfinite(number)) throw UnitError(fmt::format("{} is not a finite number, write e.g. 0.5", number));
  return number;
}

template <class Parse>
auto with_unit(const Table& table, std::string_view key, std::string_view what, Parse parse, bool is_string) {
  if (!is_string)
    throw table.error_at(
        key, fmt::format("{} has no unit ({} needs one), write it as a string in quotes with its unit", key, what));
  const std::string text = table.string(key);
  try {
    return parse(text);
  } catch (const UnitError& error) {
    throw table.error_at(key, fmt::format("{} = {}", key, error.what()));
  }
}

}  // namespace

double Table::number(std::string_view key) const {
  const toml::node& value = node_->get(key);
  if (!value.is_number()) throw node_->wrong_type(key, value, number_expected);
  try {
    return to_number(value);
  } catch (const UnitError& error) {
    throw error_at(key, fmt::format("{} = {}", key, error.what()));
  }
}

std::int64_t Table::count(std::string_view key) const {
  const toml::node& value = node_->get(key);
  if (!is_count(value)) throw node_->wrong_type(key, value, count_expected);
  try {
    return to_count(value);
  } catch (const UnitError& error) {
    throw error_at(key, fmt::format("{} = {}", key, error.what()));
  }
}

Seconds Table::seconds(std::string_view key) const {
  return with_unit(*this, key, "a time", parse_seconds, node_->get(key).is_string());
}
Bytes Table::bytes(std::string_view key) const {
  return with_unit(*this, key, "a size", parse_bytes, node_->get(key).is_string());
}
BytesPerSecond Table::bandwidth(std::string_view key) const {
  return with_unit(*this, key, "a bandwidth", parse_bandwidth, node_->get(key).is_string());
}
FlopsPerSecond Table::flop_rate(std::string_view key) const {
  return with_unit(*this, key, "a FLOP rate", parse_flop_rate, node_->get(key).is_string());
}
Watts Table::power(std::string_view key) const {
  return with_unit(*this, key, "a power", parse_power, node_->get(key).is_string());
}

std::string Table::choice(std::string_view key, std::span<const std::string> allowed) const {
  const std::string chosen = string(key);
  if (std::find(allowed.begin(), allowed.end(), chosen) != allowed.end()) return chosen;
  throw error_at(key, fmt::format("{} = {} is not a choice, {}", key, in_quotes(chosen), suggest(chosen, allowed)));
}

std::string Table::choice(std::string_view key, std::initializer_list<const char*> allowed) const {
  const std::vector<std::string> names(allowed.begin(), allowed.end());
  return choice(key, names);
}

namespace {

/// The elements of a list, each checked to be of the expected type and converted. `fail(value, text)` and
/// `wrong(value)` make the error at the element.
template <class Value, class Is, class Convert, class Wrong, class Fail>
std::vector<Value> elements(const toml::node& node, Is is, Convert convert, Wrong wrong, Fail fail) {
  const toml::array* list = node.as_array();
  if (list == nullptr) throw wrong(node);
  std::vector<Value> values;
  values.reserve(list->size());
  for (const toml::node& element : *list) {
    if (!is(element)) throw wrong(element);
    try {
      values.push_back(convert(element));
    } catch (const UnitError& error) {
      throw fail(element, error.what());
    }
  }
  return values;
}

}  // namespace

std::vector<std::int64_t> Table::counts(std::string_view key) const {
  return elements<std::int64_t>(
      node_->get(key), is_count, to_count,
      [&](const toml::node& value) { return node_->wrong_type(key, value, "a list of counts, e.g. [4096, \"1M\"]"); },
      [&](const toml::node& value, std::string_view text) {
        return node_->error(value.source().begin, fmt::format("{}: {}", key, text));
      });
}

std::vector<double> Table::numbers(std::string_view key) const {
  return elements<double>(
      node_->get(key), [](const toml::node& value) { return value.is_number(); }, to_number,
      [&](const toml::node& value) { return node_->wrong_type(key, value, "a list of numbers, e.g. [0.5, 1]"); },
      [&](const toml::node& value, std::string_view text) {
        return node_->error(value.source().begin, fmt::format("{}: {}", key, text));
      });
}

std::vector<std::string> Table::strings(std::string_view key) const {
  return elements<std::string>(
      node_->get(key), [](const toml::node& value) { return value.is_string(); }, to_text,
      [&](const toml::node& value) { return node_->wrong_type(key, value, "a list of strings, e.g. [\"a\", \"b\"]"); },
      [&](const toml::node& value, std::string_view text) {
        return node_->error(value.source().begin, fmt::format("{}: {}", key, text));
      });
}

std::vector<Table> Table::tables(std::string_view key) const {
  const auto found = elements<const toml::table*>(
      node_->get(key), [](const toml::node& value) { return value.is_table(); },
      [](const toml::node& value) { return value.as_table(); },
      [&](const toml::node& value) {
        return node_->wrong_type(key, value, fmt::format("a list of tables, each under [[{}]]", key));
      },
      [&](const toml::node& value, std::string_view text) { return node_->error(value.source().begin, text); });
  std::vector<Table> result;
  for (const auto& child : node_->children(key, found, true)) result.push_back(Table(child));
  return result;
}

Table Table::table(std::string_view key) const {
  const toml::node& value = node_->get(key);
  const toml::table* found = value.as_table();
  if (found == nullptr) throw node_->wrong_type(key, value, fmt::format("a table, under [{}]", key));
  return Table(node_->children(key, std::span(&found, 1), false).front());
}

std::optional<std::string> Table::optional_string(std::string_view key) const {
  return has(key) ? std::optional(string(key)) : std::nullopt;
}
std::optional<bool> Table::optional_boolean(std::string_view key) const {
  return has(key) ? std::optional(boolean(key)) : std::nullopt;
}
std::optional<double> Table::optional_number(std::string_view key) const {
  return has(key) ? std::optional(number(key)) : std::nullopt;
}
std::optional<std::int64_t> Table::optional_count(std::string_view key) const {
  return has(key) ? std::optional(count(key)) : std::nullopt;
}
std::optional<Seconds> Table::optional_seconds(std::string_view key) const {
  return has(key) ? std::optional(seconds(key)) : std::nullopt;
}
std::optional<Bytes> Table::optional_bytes(std::string_view key) const {
  return has(key) ? std::optional(bytes(key)) : std::nullopt;
}
std::optional<BytesPerSecond> Table::optional_bandwidth(std::string_view key) const {
  return has(key) ? std::optional(bandwidth(key)) : std::nullopt;
}
std::optional<FlopsPerSecond> Table::optional_flop_rate(std::string_view key) const {
  return has(key) ? std::optional(flop_rate(key)) : std::nullopt;
}
std::optional<Watts> Table::optional_power(std::string_view key) const {
  return has(key) ? std::optional(power(key)) : std::nullopt;
}
std::optional<Table> Table::optional_table(std::string_view key) const {
  return has(key) ? std::optional(table(key)) : std::nullopt;
}

bool Table::is_string(std::string_view key) const {
  const toml::node* value = node_->find(key);
  return value != nullptr && value->is_string();
}
bool Table::is_list(std::string_view key) const {
  const toml::node* value = node_->find(key);
  return value != nullptr && value->is_array();
}
bool Table::is_table(std::string_view key) const {
  const toml::node* value = node_->find(key);
  return value != nullptr && value->is_table();
}

std::vector<std::string> Table::keys() const {
  std::vector<std::pair<toml::source_position, std::string>> found;
  for (const auto& [key, value] : *node_->table) found.emplace_back(key.source().begin, key.str());
  std::sort(found.begin(), found.end(), [](const auto& a, const auto& b) {
    return std::pair(a.first.line, a.first.column) < std::pair(b.first.line, b.first.column);
  });
  std::vector<std::string> names;
  for (auto& [position, name] : found) names.push_back(std::move(name));
  return names;
}

void Table::finish() const {
  node_->finish();
}
const std::filesystem::path& Table::file() const {
  return node_->document->file;
}
const std::string& Table::name() const {
  return node_->name;
}

InputError Table::error_at(std::string_view key, std::string_view message) const {
  const toml::node* value = node_->table->get(key);
  return value != nullptr ? node_->error(value->source().begin, message) : error_here(message);
}

InputError Table::error_here(std::string_view message) const {
  return node_->error(node_->table->source().begin, message);
}

}  // namespace orrery
