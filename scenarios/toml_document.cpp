#define TOML_IMPLEMENTATION
#include "scenarios/toml_document.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <optional>

#include "scenarios/data_files.hpp"

namespace orrery {
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

}  // namespace

std::string message_at(const std::filesystem::path& file, toml::source_position where, std::string_view message) {
  // Tables that only exist as part of a longer name have no position of their own.
  return in_one_line(
      fmt::format("{}:{}:{}: {}", file.string(), std::max(where.line, 1u), std::max(where.column, 1u), message));
}

toml::table parse_toml(std::string_view text, const std::filesystem::path& file) {
  if (const auto where = too_deep(text)) {
    throw InputError(message_at(file, *where, "the key is nested too deep (more than 32 dots), use fewer levels"));
  }
  toml::table root;
  try {
    root = toml::parse(text, file.string());
  } catch (const toml::parse_error& error) {
    const std::string_view why = error.description();
    const bool redefined = why.find("redefine") != std::string_view::npos;
    throw InputError(
        message_at(file, error.source().begin,
                   redefined ? fmt::format("a key is given twice ({}), remove one of the two", why)
                             : fmt::format("this is not valid TOML ({}), compare with a file in scenarios/", why)));
  }
  if (root.empty()) {
    throw InputError(message_at(file, {1, 1}, "the file is empty (comments and blank lines aside), fill it in"));
  }
  return root;
}

}  // namespace orrery
