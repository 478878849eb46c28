#include "scenarios/reader.hpp"

#include <fmt/format.h>

#include <cmath>
#include <system_error>
#include <utility>

#include "scenarios/nearest.hpp"
#include "scenarios/reader_node.hpp"
#include "sim/contains.hpp"

namespace orrery {

Table Table::parse_file(const std::filesystem::path& file) {
  return parse(read_text_file(file, "TOML"), file);
}

Table Table::parse(std::string_view text, const std::filesystem::path& file) {
  auto node = std::make_shared<Node>();
  node->document = std::make_shared<TomlDocument>(TomlDocument{parse_toml(text, file), file});
  node->table = &node->document->root;
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
  if (value.is_string()) string(key);  // an empty one has its own message
  try {
    return to_count(value);
  } catch (const UnitError& error) {
    throw error_at(key, fmt::format("{} = {}", key, error.what()));
  }
}

std::int64_t Table::count(std::string_view key, std::int64_t least, std::int64_t most) const {
  // A negative one is out of this range, not of that of all counts.
  const toml::value<std::int64_t>* integer = node_->get(key).as_integer();
  const std::int64_t value = integer != nullptr && integer->get() < 0 ? integer->get() : count(key);
  if (value >= least && value <= most) return value;
  throw error_at(key, fmt::format("{} = {} is not in {} to {}, write one of these", key, value, least, most));
}

Seconds Table::seconds(std::string_view key) const {
  const Seconds value = with_unit(*this, key, "a time", parse_seconds, node_->get(key).is_string());
  if (value.si() * ticks_per_second < 9223372036854775808.0) return value;
  throw error_at(
      key, fmt::format("{} = {:.3g} s is out of range (simulated time ends at 2^63 ps, 106 days), write less", key,
                       value.si()));
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
  if (contains(allowed, chosen)) return chosen;
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
        return node_->error(value.source(), fmt::format("{}: {}", key, text));
      });
}

std::vector<double> Table::numbers(std::string_view key) const {
  return elements<double>(
      node_->get(key), [](const toml::node& value) { return value.is_number(); }, to_number,
      [&](const toml::node& value) { return node_->wrong_type(key, value, "a list of numbers, e.g. [0.5, 1]"); },
      [&](const toml::node& value, std::string_view text) {
        return node_->error(value.source(), fmt::format("{}: {}", key, text));
      });
}

std::vector<std::string> Table::strings(std::string_view key) const {
  return elements<std::string>(
      node_->get(key), [](const toml::node& value) { return value.is_string(); }, to_text,
      [&](const toml::node& value) { return node_->wrong_type(key, value, "a list of strings, e.g. [\"a\", \"b\"]"); },
      [&](const toml::node& value, std::string_view text) {
        return node_->error(value.source(), fmt::format("{}: {}", key, text));
      });
}

std::vector<Table> Table::tables(std::string_view key) const {
  const auto found = elements<const toml::table*>(
      node_->get(key), [](const toml::node& value) { return value.is_table(); },
      [](const toml::node& value) { return value.as_table(); },
      [&](const toml::node& value) {
        return node_->wrong_type(key, value, fmt::format("a list of tables, each under [[{}]]", key));
      },
      [&](const toml::node& value, std::string_view text) { return node_->error(value.source(), text); });
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
bool Table::is_table(std::string_view key) const {
  const toml::node* value = node_->find(key);
  return value != nullptr && value->is_table();
}

std::vector<std::string> Table::keys() const {
  std::vector<std::string> names;
  for (const KeyPlace& key : node_->keys()) names.push_back(key.name);
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

std::string Table::file_name(std::string_view key, std::string_view folder) const {
  std::string found = string(key);
  std::filesystem::path path;
  try {
    path = resolve(found, folder, file());
  } catch (const InputError& error) {
    throw error_at(key, error.what());
  }
  std::error_code unknown;  // a name that is too long, say
  if (!std::filesystem::exists(path, unknown)) {
    throw error_at(key, fmt::format("{}: there is no such file, check the path", path.string()));
  }
  return found;
}

NamedFiles& Table::named() const {
  return *node_->document->named;
}

InputError Table::error_at(std::string_view key, std::string_view message) const {
  const toml::node* value = node_->value_of(key);
  return value != nullptr ? node_->error(value->source(), message) : error_here(message);
}

InputError Table::error_here(std::string_view message) const {
  return node_->error(node_->table->source(), message);
}

}  // namespace orrery
