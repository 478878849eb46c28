#include "validate/step_runs.hpp"

#include <fmt/format.h>

#include <charconv>

#include "scenarios/data_files.hpp"
#include "scenarios/step_scenario.hpp"
#include "scenarios/sweep_space.hpp"
#include "sim/simulate.hpp"

namespace orrery {
namespace {

bool is_key(const std::string& column) {
  return column.find('.') != std::string::npos;
}

/// Numbers and booleans as they stand, all else in quotes.
std::string toml_value(const std::string& cell) {
  double number = 0;
  const auto [end, code] = std::from_chars(cell.data(), cell.data() + cell.size(), number);
  const bool plain = (code == std::errc() && end == cell.data() + cell.size()) || cell == "true" || cell == "false";
  return plain ? cell : "\"" + cell + "\"";
}

/// The row as a space of one case, so that keys mean what they mean in a sweep.
Scenario step_scenario_of(const MeasuredTable& table, std::size_t row) {
  SweepText text;
  text.file = table.file().parent_path() / "row.toml";
  text.base_file = table.file().parent_path() / table.text(row, "scenario");
  text.base = read_text_file(text.base_file, "TOML");
  text.space = fmt::format("base = \"{}\"\n[grid]\n", table.text(row, "scenario"));
  for (const std::string& column : table.columns()) {
    if (!is_key(column) || table.text(row, column).empty()) continue;
    text.space += fmt::format("{} = [{}]\n", column, toml_value(table.text(row, column)));
  }
  try {
    return read_scenario(SweepSpace(std::move(text)).scenario(1));
  } catch (const InputError& error) {
    throw table.error(row, error.what());
  }
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
  if (!p.reason.empty()) return p;
  const Scenario s = step_scenario_of(table, row);
  const Ticks end = s.whole_step ? simulate(build_step(s), s.cluster).end : simulate(build_program(s), s.cluster).end;
  p.predicted = to_seconds(end);
  return p;
}

}  // namespace orrery
