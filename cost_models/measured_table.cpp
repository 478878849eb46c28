#include "cost_models/measured_table.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <fstream>
#include <sstream>

namespace orrery {
namespace {

std::string trimmed(std::string_view text) {
  const auto first = text.find_first_not_of(" \t\r");
  if (first == std::string_view::npos) return {};
  return std::string(text.substr(first, text.find_last_not_of(" \t\r") - first + 1));
}

bool is_number(const std::string& cell) {
  double value = 0;
  const auto [end, code] = std::from_chars(cell.data(), cell.data() + cell.size(), value);
  return code == std::errc() && end == cell.data() + cell.size();
}

/// Where it is no UTF-8: the first byte that no sequence has there; nothing if it is all UTF-8.
std::optional<unsigned char> not_utf8(std::string_view text) {
  for (std::size_t i = 0; i < text.size();) {
    const auto lead = static_cast<unsigned char>(text[i]);
    const std::size_t length = lead < 0x80 ? 1 : lead >= 0xc2 && lead < 0xe0 ? 2 : lead >= 0xe0 && lead < 0xf0 ? 3 : 4;
    if ((lead >= 0x80 && lead < 0xc2) || lead > 0xf4 || i + length > text.size()) return lead;
    for (std::size_t k = 1; k < length; ++k) {
      if ((static_cast<unsigned char>(text[i + k]) & 0xc0) != 0x80) return lead;
    }
    i += length;
  }
  return std::nullopt;
}

/// Cells of one line; a cell in double quotes may hold commas, and "" is a quote. None if a quote does not end.
std::vector<std::string> cells_of(std::string_view line) {
  std::vector<std::string> cells(1);
  bool quoted = false;
  for (std::size_t i = 0; i < line.size(); ++i) {
    const char c = line[i];
    if (c == '"') {
      if (quoted && i + 1 < line.size() && line[i + 1] == '"') {
        cells.back() += line[++i];
      } else {
        quoted = !quoted;
      }
    } else if (c == ',' && !quoted) {
      cells.emplace_back();
    } else if (c != '\r') {
      cells.back() += c;
    }
  }
  if (quoted) cells.clear();
  for (std::string& cell : cells) cell = trimmed(cell);
  return cells;
}

/// What looks like no line of column names, and what to do; empty if it does.
std::string no_column_names(const std::vector<std::string>& cells) {
  if (const auto number = std::find_if(cells.begin(), cells.end(), is_number); number != cells.end()) {
    return fmt::format("a column would be called {} (the first line must be column names), write them above it",
                       *number);
  }
  const std::size_t separator = cells.front().find_first_of(";\t");
  if (cells.size() > 1 || separator == std::string::npos) return "";
  return fmt::format("columns are set apart by {} here, save the file with commas",
                     cells.front()[separator] == ';' ? "semicolons" : "tabs");
}

}  // namespace

std::optional<bool> boolean_of(std::string_view cell) {
  if (cell == "true" || cell == "True" || cell == "TRUE") return true;
  if (cell == "false" || cell == "False" || cell == "FALSE") return false;
  return std::nullopt;
}

MeasuredTable MeasuredTable::read(const std::filesystem::path& file) {
  std::ifstream in(file, std::ios::binary);
  if (!in || std::filesystem::is_directory(file)) {
    throw MeasuredFileError(
        fmt::format("{}: cannot be read (no such file, or a folder), name a CSV file", file.string()));
  }
  std::ostringstream text;
  text << in.rdbuf();
  return parse(text.str(), file);
}

MeasuredTable MeasuredTable::parse(std::string_view text, const std::filesystem::path& file) {
  MeasuredTable table;
  table.file_ = file;
  int line_number = 0;
  constexpr std::string_view byte_order_mark = "\xef\xbb\xbf";  // spreadsheets write it
  if (text.starts_with(byte_order_mark)) text.remove_prefix(byte_order_mark.size());
  if (text.find('\n') == std::string_view::npos && trimmed(text).find('\r') != std::string::npos) {
    throw MeasuredFileError(fmt::format(
        "{}: its lines end in a carriage return alone (as on old Macs), save it with line feeds", file.string()));
  }
  while (!text.empty()) {
    const std::size_t end = std::min(text.find('\n'), text.size());
    const std::string_view line = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    ++line_number;
    if (trimmed(line).empty()) continue;
    if (const auto byte = not_utf8(line)) {
      throw MeasuredFileError(fmt::format("{}:{}: byte 0x{:02x} is not UTF-8 (Latin-1?), save the file as UTF-8",
                                          file.string(), line_number, *byte));
    }
    if (line.front() == '#') {
      const std::string_view pair = line.substr(1);
      const std::size_t equals = pair.find('=');
      if (equals != std::string_view::npos) {
        table.headers_[trimmed(pair.substr(0, equals))] = trimmed(pair.substr(equals + 1));
      }
      continue;
    }
    std::vector<std::string> cells = cells_of(line);
    if (cells.empty()) {
      throw MeasuredFileError(
          fmt::format("{}:{}: a quote does not end in its line (a line break in a cell?), write a "
                      "row in one line",
                      file.string(), line_number));
    }
    if (table.columns_.empty()) {
      if (const std::string problem = no_column_names(cells); !problem.empty()) {
        throw MeasuredFileError(fmt::format("{}:{}: {}", file.string(), line_number, problem));
      }
      for (std::size_t i = 0; i < cells.size(); ++i) {
        if (!table.index_.emplace(cells[i], i).second) {
          throw MeasuredFileError(
              fmt::format("{}:{}: column \"{}\" stands there twice (cells would be ambiguous), "
                          "rename one",
                          file.string(), line_number, cells[i]));
        }
      }
      table.columns_ = std::move(cells);
      continue;
    }
    if (cells.size() != table.columns_.size()) {
      throw MeasuredFileError(fmt::format("{}:{}: {} cells (the header names {} columns), write one cell for each",
                                          file.string(), line_number, cells.size(), table.columns_.size()));
    }
    table.cells_.push_back(std::move(cells));
    table.lines_.push_back(line_number);
  }
  if (table.columns_.empty()) {
    throw MeasuredFileError(fmt::format("{}: no line with column names (the file is empty), write one", file.string()));
  }
  return table;
}

bool MeasuredTable::has(std::string_view column) const {
  return index_.find(column) != index_.end();
}

std::string MeasuredTable::header(std::string_view key) const {
  const auto found = headers_.find(std::string(key));
  return found == headers_.end() ? std::string() : found->second;
}

const std::string& MeasuredTable::text(std::size_t row, std::string_view column) const {
  static const std::string empty;
  const auto found = index_.find(column);
  return found == index_.end() ? empty : cells_[row][found->second];
}

std::optional<double> MeasuredTable::optional_number(std::size_t row, std::string_view column) const {
  const std::string& cell = text(row, column);
  if (cell.empty()) return std::nullopt;
  double value = 0;
  const auto [end, code] = std::from_chars(cell.data(), cell.data() + cell.size(), value);
  if (code != std::errc() || end != cell.data() + cell.size() || !std::isfinite(value)) {
    throw error(row, fmt::format("{} = \"{}\" is not a number, write digits alone, e.g. 32768 or 1.25", column, cell));
  }
  return value;
}

std::string MeasuredTable::empty_cell(std::string_view column, std::string_view wanted) const {
  return has(column) ? fmt::format("{} is empty (the row means nothing without it), write {}", column, wanted)
                     : fmt::format("there is no column {} (the row means nothing without it), add it", column);
}

double MeasuredTable::number(std::size_t row, std::string_view column) const {
  const std::optional<double> value = optional_number(row, column);
  if (!value) throw error(row, empty_cell(column, "a number"));
  return *value;
}

double MeasuredTable::positive(std::size_t row, std::string_view column) const {
  const double value = number(row, column);
  if (!(value > 0)) throw error(row, fmt::format("{} = {} is not positive, write more than 0", column, value));
  return value;
}

std::int64_t MeasuredTable::whole_number(std::size_t row, std::string_view column, std::int64_t most) const {
  const double value = number(row, column);
  if (!(value >= 1 && value <= static_cast<double>(most)) || value != std::floor(value)) {
    throw error(row, fmt::format("{} = {} is not a whole number from 1 to {}, write one", column, value, most));
  }
  return static_cast<std::int64_t>(value);
}

bool MeasuredTable::is_ok(std::size_t row) const {
  const std::string& status = text(row, "status");
  if (status != "" && status != "ok" && status != "planned" && status != "failed") {
    throw error(row, fmt::format("status = \"{}\" is unknown, write ok, planned or failed", status));
  }
  return status.empty() || status == "ok";
}

bool MeasuredTable::boolean(std::size_t row, std::string_view column) const {
  const std::string& cell = text(row, column);
  if (const auto value = boolean_of(cell)) return *value;
  if (cell.empty()) throw error(row, empty_cell(column, "true or false"));
  throw error(row, fmt::format("{} = \"{}\" is neither true nor false, write one of these", column, cell));
}

bool MeasuredTable::optional_boolean(std::size_t row, std::string_view column) const {
  return !text(row, column).empty() && boolean(row, column);
}

MeasuredFileError MeasuredTable::error(std::size_t row, std::string_view message) const {
  return MeasuredFileError(fmt::format("{}: {}", place(row), message));
}

std::string MeasuredTable::place(std::size_t row) const {
  return fmt::format("{}:{}", file_.string(), lines_[row]);
}

}  // namespace orrery
