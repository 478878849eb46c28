#include "scenarios/sweep_values.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace orrery {
namespace {

using Kind = WrittenNumber::Kind;

constexpr double most_values = 1e6;  // of a range

InputError error_at(const toml::source_region& where, std::string_view message) {
  return InputError(message_at(*where.path, where.begin, message));
}

/// Text of a TOML value; `digits` are significant ones.
std::string written(double value, const WrittenNumber& like, int digits) {
  if (like.kind == Kind::whole) return fmt::format("{}", std::llround(value));
  std::string text = fmt::format("{:.{}g}", value, digits);
  if (like.kind == Kind::with_unit) return fmt::format("\"{} {}\"", text, like.unit);
  if (text.find_first_of(".e") == text.npos) text += ".0";
  return text;
}

/// A value that stands nowhere is parsed as if it stood where its range does, so that messages point there.
SharedValue value_at(const toml::source_region& where, const std::string& text) {
  constexpr std::string_view key = "v=";
  const std::size_t before = std::max<std::size_t>(where.begin.column, key.size() + 1) - key.size() - 1;
  const std::string lines(std::max(where.begin.line, 1u) - 1, '\n');
  const std::string toml = fmt::format("{}{}{}{}", lines, std::string(before, ' '), key, text);
  auto document = std::make_shared<TomlDocument>(TomlDocument{parse_toml(toml, *where.path), *where.path});
  const toml::node* value = document->root.get("v");
  return {std::move(document), value};
}

WrittenNumber written_number(const toml::node& node, std::string_view key) {
  const auto wrong = [&] {
    return error_at(node.source(), fmt::format("{} is no number, write e.g. 4096, \"128K\", 0.5 or \"100 GB/s\"", key));
  };
  if (const auto* whole = node.as_integer()) return {Kind::whole, static_cast<double>(whole->get()), ""};
  if (const auto* real = node.as_floating_point()) {
    if (!std::isfinite(real->get())) throw wrong();
    return {Kind::real, real->get(), ""};
  }
  if (!node.is_string()) throw wrong();
  const std::string& text = node.as_string()->get();
  try {
    return {Kind::whole, static_cast<double>(parse_count(text)), ""};
  } catch (const UnitError&) {  // then it has a unit
  }
  const std::size_t end = std::min(text.find(' '), text.size());
  char* after = nullptr;
  const std::string number = text.substr(0, end);
  const double value = std::strtod(number.c_str(), &after);
  if (end + 1 >= text.size() || number.empty() || *after != '\0' || !std::isfinite(value)) throw wrong();
  return {Kind::with_unit, value, text.substr(end + 1)};
}

/// Makes both of one kind: a whole number beside a real one is real.
void match(WrittenNumber& a, WrittenNumber& b, const toml::source_region& where) {
  if ((a.kind == Kind::with_unit) != (b.kind == Kind::with_unit) || a.unit != b.unit) {
    throw error_at(where, fmt::format("the ends of a range have different units (\"{}\" and \"{}\"), write both in one",
                                      a.unit, b.unit));
  }
  if (a.kind != b.kind) a.kind = b.kind = Kind::real;
}

Table::Node strict(const std::shared_ptr<const TomlDocument>& document, const toml::table& table, std::string name) {
  Table::Node node;
  node.document = document;
  node.table = &table;
  node.name = std::move(name);
  return node;
}

std::string text_of(const toml::node& value);

std::string list_text(const toml::array& list) {
  std::string text;
  for (const toml::node& element : list) text += (text.empty() ? "" : ", ") + text_of(element);
  return "[" + text + "]";
}

std::string table_text(const toml::table& table) {
  std::string text;
  for (const auto& [key, value] : table) {
    text += fmt::format("{}{} = {}", text.empty() ? "" : ", ", std::string_view(key.str()), text_of(value));
  }
  return "{" + text + "}";
}

std::string text_of(const toml::node& value) {
  if (const auto* list = value.as_array()) return list_text(*list);
  if (const auto* table = value.as_table()) return table_text(*table);
  if (const auto* text = value.as_string()) return fmt::format("\"{}\"", text->get());
  const CaseValue scalar = case_value(value);
  return std::visit([](const auto& v) { return fmt::format("{}", v); }, scalar);
}

/// SplitMix64 (Steele, Lea and Flood, OOPSLA 2014): a bijection of 64 bits that scatters neighbours.
std::uint64_t scatter(std::uint64_t x) {
  x += 0x9e3779b97f4a7c15u;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

/// 0 <= it < 1
double fraction_of(std::uint64_t bits) {
  return static_cast<double>(bits >> 11) * 0x1p-53;
}

}  // namespace

CaseValue case_value(const toml::node& value) {
  if (const auto* whole = value.as_integer()) return whole->get();
  if (const auto* real = value.as_floating_point()) return real->get();
  if (const auto* boolean = value.as_boolean()) return boolean->get();
  if (const auto* text = value.as_string()) return text->get();
  if (value.is_array() || value.is_table()) return text_of(value);
  throw error_at(value.source(), "a date is no value of a scenario, write a number, a string, a list or a table");
}

std::vector<SharedValue> listed_values(const std::shared_ptr<const TomlDocument>& document, const toml::array& list) {
  if (list.empty()) throw error_at(list.source(), "the list is empty (the space would have no case), write a value");
  std::vector<SharedValue> values;
  for (const toml::node& element : list) {
    case_value(element);
    values.emplace_back(document, &element);
  }
  return values;
}

std::vector<SharedValue> range_values(const std::shared_ptr<const TomlDocument>& document, const toml::table& range) {
  Table::Node node = strict(document, range, "a range");
  WrittenNumber from = written_number(node.get("from"), "from"), to = written_number(node.get("to"), "to");
  match(from, to, range.source());
  const bool multiplies = node.find("factor") != nullptr;
  if (!multiplies && node.find("step") == nullptr) {
    node.finish();
    throw error_at(range.source(),
                   "a range has neither a factor nor a step, write e.g. {from = 1, to = 8, factor = 2}");
  }
  WrittenNumber by =
      multiplies ? written_number(node.get("factor"), "factor") : written_number(node.get("step"), "step");
  node.finish();
  if (from.value > to.value) throw error_at(range.source(), "from is more than to (nothing lies between), swap them");
  double count = 0;
  if (multiplies) {
    if (by.kind == Kind::with_unit || by.value <= 1 || from.value <= 0) {
      throw error_at(range.source(),
                     "a range with a factor begins above 0 and has a factor above 1 without a unit, "
                     "write e.g. {from = 1, to = 8, factor = 2}");
    }
    count = std::log(to.value / from.value) / std::log(by.value);
  } else {
    if (by.kind != from.kind) match(from, by, range.source());
    to.kind = from.kind;
    if (by.value <= 0) throw error_at(range.source(), "the step is not above 0, write e.g. step = 1");
    count = (to.value - from.value) / by.value;
  }
  if (!(count < most_values))
    throw error_at(range.source(), "the range has a million values or more, use larger steps");
  std::vector<SharedValue> values;
  std::string last;
  constexpr double rounding = 1e-9;  // of a quotient that should be whole
  for (int i = 0; i <= static_cast<int>(count + rounding); ++i) {
    const double value = multiplies ? from.value * std::pow(by.value, i) : from.value + by.value * i;
    const std::string text = written(value, from, 12);
    if (text != last) values.push_back(value_at(range.source(), text));
    last = text;
  }
  return values;
}

Distribution read_distribution(const std::shared_ptr<const TomlDocument>& document, const toml::table& table,
                               const std::string& path, std::int64_t seed) {
  Table::Node node = strict(document, table, fmt::format("the range of {}", path));
  Distribution d;
  d.where = table.source();
  std::uint64_t hash = 0xcbf29ce484222325u;  // FNV-1a
  for (const char c : path) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3u;
  d.stream = scatter(hash ^ scatter(static_cast<std::uint64_t>(seed)));
  const toml::node* ends = nullptr;
  if (const toml::node* choice = node.find("choice")) {
    d.kind = Distribution::Kind::choice;
    if (!choice->is_array()) throw node.wrong_type("choice", *choice, "a list");
    d.choices = listed_values(document, *choice->as_array());
  } else {
    ends = node.find("log");
    if (ends != nullptr) d.kind = Distribution::Kind::log;
    if (ends == nullptr) ends = &node.get("uniform");
    const toml::array* list = ends->as_array();
    if (list == nullptr || list->size() != 2) throw error_at(ends->source(), "a range has two ends, write [from, to]");
    d.from = written_number(list->front(), "from");
    d.to = written_number(list->back(), "to");
    match(d.from, d.to, ends->source());
    if (const toml::node* multiple = node.find("multiple_of")) {
      const WrittenNumber m = written_number(*multiple, "multiple_of");
      if (m.kind != Kind::whole || m.value < 1 || d.from.kind != Kind::whole)
        throw error_at(multiple->source(), "multiple_of is for whole numbers, and 1 or more");
      d.multiple_of = static_cast<std::int64_t>(m.value);
    }
    const auto step = static_cast<double>(d.multiple_of);
    const bool log = d.kind == Distribution::Kind::log;
    if (std::ceil(d.from.value / step) > std::floor(d.to.value / step))
      throw error_at(ends->source(), "nothing lies between the ends of this range, write [least, most]");
    if (log && d.from.value <= 0) throw error_at(ends->source(), "a log range begins above 0, write e.g. [1, 8]");
  }
  node.finish();
  return d;
}

SharedValue Distribution::draw(std::uint64_t sample) const {
  const double u = fraction_of(scatter(stream + scatter(sample)));
  if (kind == Kind::choice) return choices[static_cast<std::size_t>(u * static_cast<double>(choices.size()))];
  double value = kind == Kind::log ? from.value * std::exp(u * std::log(to.value / from.value))
                                   : from.value + u * (to.value - from.value);
  if (from.kind == WrittenNumber::Kind::whole) {
    const auto step = static_cast<double>(multiple_of);
    const double least = std::ceil(from.value / step), most = std::floor(to.value / step);
    value = kind == Kind::log ? std::clamp(std::round(value / step), least, most)
                              : least + std::floor(u * (most - least + 1));
    value *= step;
  }
  return value_at(where, written(value, from, 6));
}

}  // namespace orrery
