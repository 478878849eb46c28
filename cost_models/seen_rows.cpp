#include "cost_models/seen_rows.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <string_view>

#include "cost_models/row_digest.hpp"

namespace orrery {
namespace {

bool has_time(const MeasuredTable& table, std::size_t row) {
  static constexpr std::array<std::string_view, 3> columns = {"time_ms", "time_us", "compute_overlapped_us"};
  return table.is_ok(row) && std::any_of(columns.begin(), columns.end(),
                                         [&](std::string_view column) { return !table.text(row, column).empty(); });
}

/// Whatever the order of the columns.
std::string all_cells(const MeasuredTable& table, std::size_t row) {
  std::map<std::string_view, std::string> cells;
  for (const std::string& column : table.columns()) {
    if (const std::string& cell = table.text(row, column); !cell.empty()) cells[column] = plain_cell(cell);
  }
  std::string text;
  for (const auto& [column, cell] : cells) text += fmt::format("{}={}\n", column, cell);
  return text;
}

}  // namespace

void SeenRows::add(const MeasuredTable& table) {
  struct Shared {
    std::size_t rows = 0;
    std::string here, there;  // the first
  };
  std::map<std::size_t, Shared> shared;  // by file
  const std::size_t file = rows_.size();
  rows_.push_back(0);
  for (std::size_t row = 0; row < table.rows(); ++row) {
    if (!has_time(table, row)) continue;
    ++rows_[file];
    std::vector<Place>& places = places_[all_cells(table, row)];
    for (const Place& place : places) {
      if (place.file == file) {
        throw table.error(row, fmt::format("every cell is that of {} (it would count twice), leave one of the two out, "
                                           "or if both were measured add a column in which they differ, e.g. run",
                                           place.line));
      }
      if (shared[place.file].rows++ == 0) shared[place.file] = {1, table.place(row), place.line};
    }
    places.push_back({file, table.place(row)});
  }
  for (const auto& [other, same] : shared) {
    if (2 * same.rows <= std::min(rows_[file], rows_[other])) continue;
    throw MeasuredFileError(fmt::format(
        "{}: {} of the {} rows with a time, this one first, stand in another file too, from {} on (they would count "
        "twice), name one of the two files",
        same.here, same.rows, rows_[file], same.there));
  }
}

}  // namespace orrery
