#include "validate/step_runs.hpp"

#include <fmt/format.h>

#include <charconv>

#include "scenarios/data_files.hpp"
#include "scenarios/report.hpp"
#include "scenarios/sweep_space.hpp"

namespace orrery {
namespace {

bool is_key(const std::string& column) {
  return column.find('.') != std::string::npos;
}

/// Numbers and booleans are none of TOML's strings, all else is.
std::string toml_value(const std::string& cell) {
  if (const auto value = boolean_of(cell)) return *value ? "true" : "false";
  double number = 0;
  const auto [end, code] = std::from_chars(cell.data(), cell.data() + cell.size(), number);
  const bool is_number = code == std::errc() && end == cell.data() + cell.size();
  return is_number ? cell : "\"" + cell + "\"";
}

std::filesystem::path base_of(const MeasuredTable& table, std::size_t row) {
  return table.file().parent_path() / table.text(row, "scenario");
}

/// The base, with the keys of the row as a space of one case, so that they mean what they mean in a sweep.
Scenario step_scenario_of(const MeasuredTable& table, std::size_t row) {
  const std::filesystem::path base = base_of(table, row);
  std::string keys;
  for (const std::string& column : table.columns()) {
    if (!is_key(column) || table.text(row, column).empty()) continue;
    keys += fmt::format("{} = [{}]\n", column, toml_value(table.text(row, column)));
  }
  if (keys.empty()) return load_scenario(base);
  SweepText text{table.file().parent_path() / "row.toml", base, "", read_text_file(base, "TOML")};
  text.space = fmt::format("base = \"{}\"\n[grid]\n{}", table.text(row, "scenario"), keys);
  return read_scenario(SweepSpace(std::move(text)).scenario(1));
}

std::string name_of_row(const MeasuredTable& table, std::size_t row) {
  std::string name = table.file().parent_path().filename().string();
  if (table.has("method")) name += " " + table.text(row, "method");
  for (const std::string& column : table.columns()) {
    if (!is_key(column) || table.text(row, column).empty()) continue;
    name += fmt::format(", {} {}", column.substr(column.rfind('.') + 1), table.text(row, column));
  }
  return name;
}

}  // namespace

Prediction predict_step(const MeasuredTable& table, std::size_t row) {
  Prediction p;
  p.group = "whole steps";
  p.name = name_of_row(table, row);
  p.reason = table.text(row, "not_predicted");
  const bool has_base = !table.text(row, "scenario").empty();
  if (p.reason.empty() && !has_base) throw table.error(row, "scenario is empty, name a TOML file beside this one");
  try {
    if (!p.reason.empty()) {
      if (has_base) read_text_file(base_of(table, row), "TOML");  // its keys may be what no scenario can say
      return p;
    }
    const Report report = predict(step_scenario_of(table, row));
    p.predicted = report.step_time;
    if (report.interval) {
      p.band = report.interval->half_width;
      p.extrapolated = report.interval->extrapolated;
    }
  } catch (const std::exception& error) {
    throw table.error(row, error.what());
  }
  return p;
}

}  // namespace orrery
