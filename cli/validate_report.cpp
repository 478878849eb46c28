// The tables of orrery validate: for people, as JSON and as CSV.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <utility>

#include "cli/csv_cell.hpp"
#include "cli/validate_output.hpp"
#include "sim/contains.hpp"
#include "validate/orderings.hpp"

namespace orrery {
namespace {

/// A table may give no time in a row that is not predicted.
std::string measured_text(const Prediction& p) {
  return p.is_measured() ? format(p.measured) : "";
}

/// How many rows of which group are not predicted, and why.
std::string left_out(const std::vector<Prediction>& rows) {
  std::vector<std::pair<std::string, int>> reasons;
  for (const Prediction& p : rows) {
    if (p.reason.empty()) continue;
    const std::string reason = fmt::format("{}: {}", p.group, p.reason);
    const auto known = std::find_if(reasons.begin(), reasons.end(), [&](const auto& r) { return r.first == reason; });
    if (known == reasons.end()) {
      reasons.emplace_back(reason, 1);
    } else {
      ++known->second;
    }
  }
  std::string text;
  for (const auto& [reason, count] : reasons) text += fmt::format("not predicted: {:4} of {}\n", count, reason);
  return text;
}

std::string ordering_text(const OrderingSummary& all) {
  if (all.pairs == 0) return "";
  std::string text = fmt::format("orderings of two methods: {} of {} right\n", all.right, all.pairs);
  for (const std::string& wrong : all.wrong) text += fmt::format("wrong: {}\n", wrong);
  return text;
}

bool missed(const Prediction& p) {
  return p.is_measured() && p.has_interval() && !p.within_band();
}

}  // namespace

std::string validation_text(const std::vector<Prediction>& rows, const std::vector<ErrorSummary>& groups,
                            bool summary_only) {
  std::string text;
  if (!summary_only) {
    text += fmt::format("{:>10} {:>10} {:>8}  {:>8}  {}\n", "measured", "predicted", "error", "90 %", "row");
    for (const Prediction& p : rows) {
      if (!p.reason.empty()) {
        text += fmt::format("{:>10} {:>10} {:>8}  {:>8}  {} (not predicted: {})\n", measured_text(p), "", "", "",
                            p.name, p.reason);
        continue;
      }
      const std::string deviation = p.is_measured() ? fmt::format("{:+7.1f}%", 100 * p.deviation()) : "";
      const std::string band = p.has_interval() ? fmt::format("+-{:4.1f}%", 100 * p.band) : "";
      text += fmt::format("{:>10} {:>10} {:>8}  {:>8}{} {}{}{}\n", measured_text(p), format(p.predicted), deviation,
                          band, missed(p) ? "!" : " ", p.name, p.extrapolated ? " (extrapolated)" : "",
                          p.fitted ? " (fitted)" : "");
    }
    text += "\n";
  }
  text += fmt::format("{:42} {:>5} {:>8} {:>8} {:>8} {:>8} {:>9}\n", "held-out rows", "rows", "mean", "median", "p90",
                      "max", "covered");
  for (const ErrorSummary& g : groups) {
    if (g.rows == 0) {
      text += fmt::format("{:42} {:5}\n", g.group, g.rows);
      continue;
    }
    const std::string covered = g.interval_coverage ? fmt::format("{:.0f}%", 100 * *g.interval_coverage) : "";
    text += fmt::format("{:42} {:5} {:7.2f}% {:7.2f}% {:7.2f}% {:7.2f}% {:>9}\n", g.group, g.rows, 100 * g.mean_abs_rel,
                        100 * g.median_abs_rel, 100 * g.p90_abs_rel, 100 * g.max_abs_rel, covered);
  }
  text += ordering_text(orderings(rows)) + left_out(rows);
  return text;
}

namespace {

nlohmann::ordered_json json_of(const ErrorSummary& g) {
  const auto of_rows = [&](double value) { return g.rows > 0 ? nlohmann::ordered_json(value) : nullptr; };
  return {{"rows", g.rows},
          {"mean_abs_rel", of_rows(g.mean_abs_rel)},
          {"median_abs_rel", of_rows(g.median_abs_rel)},
          {"p90_abs_rel", of_rows(g.p90_abs_rel)},
          {"max_abs_rel", of_rows(g.max_abs_rel)},
          {"interval_coverage",
           g.interval_coverage ? nlohmann::ordered_json(*g.interval_coverage) : nlohmann::ordered_json()},
          {"not_predicted", g.not_predicted}};
}

}  // namespace

std::string validation_json(const std::vector<Prediction>& rows, const std::vector<ErrorSummary>& groups) {
  nlohmann::ordered_json json;
  json["rows"] = nlohmann::ordered_json::array();
  for (const Prediction& p : rows) {
    nlohmann::ordered_json row = {{"group", p.group}, {"name", p.name}, {"place", p.place}};
    if (p.is_measured()) row["expected_s"] = p.measured.si();
    if (!p.reason.empty()) {
      row["not_predicted"] = p.reason;
    } else {
      row["predicted_s"] = p.predicted.si();
      if (p.is_measured()) row["deviation_rel"] = p.deviation();
      if (p.has_interval()) {
        row["interval_low_s"] = p.predicted.si() * (1 - p.band);
        row["interval_high_s"] = p.predicted.si() * (1 + p.band);
        if (p.is_measured()) row["in_interval"] = p.within_band();
      }
      row["extrapolated"] = p.extrapolated;
      row["fitted"] = p.fitted;
      row["calibrated"] = p.calibrated;
    }
    for (const auto& [column, cell] : p.carried) row["carried"][column] = cell;
    json["rows"].push_back(std::move(row));
  }
  for (const ErrorSummary& g : groups) json[g.group == "all" ? "summary" : "groups"][g.group] = json_of(g);
  json["summary"] = json_of(groups.back());
  const OrderingSummary order = orderings(rows);
  json["orderings"] = {{"pairs", order.pairs}, {"right", order.right}, {"wrong", order.wrong}};
  return json.dump(2) + "\n";
}

std::string validation_csv(const std::vector<Prediction>& rows) {
  std::vector<std::string> carried;
  for (const Prediction& p : rows) {
    for (const auto& [column, cell] : p.carried) {
      if (!contains(carried, column)) carried.push_back(column);
    }
  }
  const auto carried_cells = [&](const Prediction& p) {
    std::string text;
    for (const std::string& column : carried) {
      const auto cell =
          std::find_if(p.carried.begin(), p.carried.end(), [&](const auto& pair) { return pair.first == column; });
      text += "," + (cell == p.carried.end() ? "" : csv_cell(cell->second));
    }
    return text + "\n";
  };
  std::string text =
      "group,name,place,expected_s,predicted_s,deviation_rel,interval_low_s,interval_high_s,in_interval,extrapolated,"
      "fitted,not_predicted";
  for (const std::string& column : carried) text += "," + csv_cell(column);
  text += "\n";
  for (const Prediction& p : rows) {
    const bool measured = p.is_measured();
    text += fmt::format("{},{},{},{}", csv_cell(p.group), csv_cell(p.name), csv_cell(p.place),
                        measured ? fmt::format("{:.6g}", p.measured.si()) : "");
    if (p.reason.empty()) {
      std::string interval = ",,";
      if (p.has_interval()) {
        interval = fmt::format("{:.6g},{:.6g},{}", p.predicted.si() * (1 - p.band), p.predicted.si() * (1 + p.band),
                               measured ? fmt::format("{}", p.within_band()) : "");
      }
      text += fmt::format(",{:.6g},{},{},{},{},", p.predicted.si(),
                          measured ? fmt::format("{:.5f}", p.deviation()) : "", interval, p.extrapolated, p.fitted);
    } else {
      text += fmt::format(",,,,,,,,{}", csv_cell(p.reason));
    }
    text += carried_cells(p);
  }
  return text;
}

std::string beyond_tolerance(const std::vector<Prediction>& rows, const std::vector<ErrorSummary>& groups,
                             double tolerance) {
  std::string text;
  for (const ErrorSummary& g : groups) {
    if (tolerance > 0 && g.rows > 0 && g.mean_abs_rel > tolerance) {
      text +=
          fmt::format("{}: mean error {:.1f} % (tolerance {:.1f} %)\n", g.group, 100 * g.mean_abs_rel, 100 * tolerance);
    }
  }
  for (const Prediction& p : rows) {
    if (!p.tolerance || !p.reason.empty() || !p.is_measured() || std::abs(p.deviation()) <= *p.tolerance) continue;
    text += fmt::format("{}: {}: error {:+.1f} % (tolerance {:.1f} %)\n", p.place, p.name, 100 * p.deviation(),
                        100 * *p.tolerance);
  }
  return text;
}

}  // namespace orrery
