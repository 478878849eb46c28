// orrery validate: predicts measured rows and prints the error of every one.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "cli/commands.hpp"
#include "cli/csv_cell.hpp"
#include "cli/gnuplot.hpp"
#include "cli/output_file.hpp"
#include "cost_models/seen_rows.hpp"
#include "validate/orderings.hpp"
#include "validate/residuals.hpp"
#include "validate/runs.hpp"

namespace orrery {
namespace {

struct ValidateOptions {
  std::string profile;
  std::vector<std::string> measured;
  bool published = false;
  std::string format = "text";
  std::string plot;
  double tolerance = 0;
  bool summary_only = false;
  bool medians = false;
  std::string steps;
  std::string trace;
  int step_run = 1;
  bool list_runs = false;
};

/// A table may give no time in a row that is not predicted.
std::string measured_text(const Prediction& p) {
  return p.measured > Seconds() ? format(p.measured) : "";
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

std::string text_of(const std::vector<Prediction>& rows, const std::vector<ErrorSummary>& groups, bool summary_only) {
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
      text += fmt::format("{:>10} {:>10} {:>8}  {:>8}{} {}{}{}\n", p.is_measured() ? format(p.measured) : "",
                          format(p.predicted), deviation, band, missed(p) ? "!" : " ", p.name,
                          p.extrapolated ? " (extrapolated)" : "", p.fitted ? " (fitted)" : "");
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

std::string json_of(const std::vector<Prediction>& rows, const std::vector<ErrorSummary>& groups) {
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

/// Columns that are carried along come last, in the order in which files bring them.
std::string csv_of(const std::vector<Prediction>& rows) {
  std::vector<std::string> carried;
  for (const Prediction& p : rows) {
    for (const auto& [column, cell] : p.carried) {
      if (std::find(carried.begin(), carried.end(), column) == carried.end()) carried.push_back(column);
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

bool is_compared(const Prediction& p) {
  return p.reason.empty() && !p.fitted && p.is_measured();
}

/// What was measured, without the folder it was measured in: colours for the same thing everywhere.
std::string kind_of(const std::string& group) {
  const std::size_t colon = group.find(": ");
  return colon == std::string::npos ? group : group.substr(colon + 2);
}

/// Predicted over measured times, and beside it the deviations.
void plot(const std::vector<Prediction>& rows, const std::string& file) {
  std::map<std::string, std::string> data_of;  // by kind
  double largest = 0.3;                        // deviation
  for (const Prediction& p : rows) {
    if (!is_compared(p)) continue;
    largest = std::max(largest, std::abs(p.deviation()));
    data_of[kind_of(p.group)] +=
        fmt::format("{:.6g} {:.6g} {:.4g}\n", p.measured.si(), p.predicted.si(), 100 * p.deviation());
  }
  if (data_of.empty())
    throw std::runtime_error(fmt::format("{}: nothing to draw (no row is measured, predicted and held out)", file));
  std::string data, points, deviations;
  int drawn = 0;
  for (const auto& [kind, lines] : data_of) {
    data += fmt::format("# {}\n# measured_s predicted_s deviation_percent\n{}\n\n", kind, lines);
    const std::string source = fmt::format("{} index {} using ", in_quotes(file + ".dat"), drawn);
    const std::string style = fmt::format("pt {} ps 0.6 lc {}", drawn % 12 + 4, drawn + 1);
    points += fmt::format(", {}1:2 with points {} notitle", source, style);
    deviations += fmt::format(", {}1:3 with points {} title {} noenhanced", source, style, in_quotes(kind));
    ++drawn;
  }
  write_file(file + ".dat", data);
  std::string script = fmt::format("set terminal {}\nset output {}\n", gnuplot_terminal(file), in_quotes(file));
  script +=
      "set multiplot\nset logscale x\nset format x '10^{%T}'\nset grid lc rgb '#d8d8d8'\nset tics out nomirror\n"
      "set tmargin at screen 0.96\nset bmargin at screen 0.12\nset lmargin at screen 0.07\nset rmargin at screen 0.37\n"
      "set xlabel 'measured [s]'\nset logscale y\nset format y '10^{%T}'\nset ylabel 'predicted [s]'\n"
      "plot x with lines lc rgb '#888888' notitle" +
      points +
      "\nset lmargin at screen 0.46\nset rmargin at screen 0.75\n"
      "set key at screen 0.99, screen 0.96 right top Left reverse font ',10'\n"
      "unset logscale y\nset format y '%+.0f %%'\nset ylabel 'predicted / measured - 1' offset -1.5\n" +
      fmt::format("set yrange [{0}:{1}]\n", -std::min(100.0, 110 * largest), 110 * largest) +
      "plot 0 with lines lc rgb '#888888' notitle" + deviations + "\nunset multiplot\n";
  draw(script, file, file + ".dat");
}

/// The groups and rows beyond their tolerance, as lines for people.
std::string exceeded(const std::vector<Prediction>& rows, const std::vector<ErrorSummary>& groups, double tolerance) {
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

/// One measured run beside its simulation, op by op.
void run_steps(const ValidateOptions& options) {
  std::optional<OutputFile> trace;  // opened before the work is begun
  if (!options.trace.empty()) trace.emplace(options.trace);
  const MeasuredTable table = MeasuredTable::read(options.steps);
  const std::vector<StampedRun> runs = stamped_runs(table);
  if (options.list_runs) {
    for (std::size_t i = 0; i < runs.size(); ++i) fmt::print("{:4}  {}\n", i + 1, runs[i].name);
    return;
  }
  if (options.step_run < 1 || options.step_run > static_cast<int>(runs.size())) {
    throw std::runtime_error(fmt::format("--run {} is not in 1 to {} ({} has so many runs of several GPUs)",
                                         options.step_run, runs.size(), options.steps));
  }
  const RunResidual run = residual(table, runs[static_cast<std::size_t>(options.step_run - 1)], options.profile);
  std::string text = fmt::format(
      "run {} of {}: {}\nmeasured {} with a time stamp before and after every op, which take time of their "
      "own; simulated {} without\n\n",
      options.step_run, runs.size(), run.name, format(Seconds::from_si(run.measured_s)),
      format(Seconds::from_si(run.simulated_s)));
  text += fmt::format("{:>4} {:>4}  {:18} {:>12} {:>12} {:>12} {:>12} {:>12}\n", "rank", "step", "op", "start us",
                      "simulated", "takes us", "simulated", "difference");
  for (const OpResidual& op : run.ops) {
    const auto us = [](const std::optional<Stretch>& time, double Stretch::*part) {
      return time ? fmt::format("{:12.1f}", (*time).*part * 1e6) : fmt::format("{:>12}", "-");
    };
    text += fmt::format("{:4} {:4}  {:18} {} {} {} {} {}\n", op.rank, op.step, op.op,
                        us(op.measured, &Stretch::start_s), us(op.simulated, &Stretch::start_s),
                        us(op.measured, &Stretch::takes_s), us(op.simulated, &Stretch::takes_s),
                        op.is_compared() ? fmt::format("{:+12.1f}", op.difference_s() * 1e6) : "");
  }
  std::set<std::string> measured, simulated;
  for (const OpResidual& op : run.ops) {
    if (!op.simulated) measured.insert(op.op);
    if (!op.measured) simulated.insert(op.op);
  }
  if (!measured.empty()) text += fmt::format("\nmeasured, but not simulated: {}\n", fmt::join(measured, ", "));
  if (!simulated.empty()) text += fmt::format("\nsimulated, but not measured: {}\n", fmt::join(simulated, ", "));
  std::fwrite(text.data(), 1, text.size(), stdout);
  if (!trace) return;
  write_trace(trace->stream(), run);
  trace->keep();
}

/// What a user who named this file should know.
std::string nothing_in(const MeasuredTable& table) {
  if (table.rows() == 0)
    return fmt::format("{}: no rows below the column names (nothing to predict), write one a measurement",
                       table.file().string());
  for (const char* column : {"implementation", "gpu", "n_gpu", "seq_len", "time_ms"}) {
    if (table.has(column)) continue;
    return fmt::format(
        "{}: nothing is predicted (rows of runs need a column {}, kernels other ones; there are {}), see "
        "docs/calibration.md",
        table.file().string(), column, fmt::join(table.columns(), ", "));
  }
  return fmt::format("{}: nothing is predicted (no row has status ok or planned)", table.file().string());
}

void run(const ValidateOptions& options) {
  if (!options.steps.empty()) return run_steps(options);
  if (!options.trace.empty() || options.list_runs)
    throw std::runtime_error("--trace and --list-runs show a run with time stamps (none is named), add --steps FILE");
  if (!options.plot.empty()) check_plot(options.plot);
  std::vector<std::filesystem::path> files(options.measured.begin(), options.measured.end());
  if (options.published) {
    const auto more = committed_files("published");
    files.insert(files.end(), more.begin(), more.end());
  } else if (files.empty()) {
    files = committed_files("measured");
  }
  std::set<std::filesystem::path> named;  // twice, its rows would count twice
  for (const std::filesystem::path& file : files) {
    if (!std::filesystem::exists(file) || named.insert(std::filesystem::canonical(file)).second) continue;
    throw std::runtime_error(
        fmt::format("{} is named twice (its rows would count twice), name it once", file.string()));
  }
  std::vector<Prediction> rows;
  std::string empty;
  SeenRows seen;
  for (const std::filesystem::path& file : files) {
    const MeasuredTable table = MeasuredTable::read(file);
    seen.add(table);
    const std::vector<Prediction> of_file = predict_runs(table, options.profile);
    rows.insert(rows.end(), of_file.begin(), of_file.end());
    if (of_file.empty()) empty += nothing_in(table) + "\n";
  }
  if (rows.empty()) throw std::runtime_error(empty.substr(0, empty.find('\n')));
  if (!options.measured.empty()) fmt::print(stderr, "{}", empty);
  if (options.medians) rows = medians_of_repeats(rows);
  const std::vector<ErrorSummary> groups = summarize(rows);
  const std::string text = options.format == "json"  ? json_of(rows, groups)
                           : options.format == "csv" ? csv_of(rows)
                                                     : text_of(rows, groups, options.summary_only);
  std::fwrite(text.data(), 1, text.size(), stdout);
  if (!options.plot.empty()) plot(rows, options.plot);
  const std::string beyond = exceeded(rows, groups, options.tolerance);
  if (beyond.empty()) return;
  fmt::print(stderr, "{}", beyond);
  throw CLI::RuntimeError(1);
}

}  // namespace

void add_validate(CLI::App& app) {
  auto options = std::make_shared<ValidateOptions>();
  CLI::App* command = app.add_subcommand("validate", "Predict measured runs and kernels, and print the error of each");
  command->add_option("--profile", options->profile, "Profile to predict with (default: the one named like the GPU)");
  command->add_option("--measured", options->measured,
                      "CSV files of runs and kernels (default: all of validate/measured)");
  command->add_flag("--published", options->published, "The published tables in validate/published");
  command->add_option("--format", options->format, "text, json or csv")
      ->check(CLI::IsMember({"text", "json", "csv"}))
      ->capture_default_str();
  command->add_option("--plot", options->plot, "Draw predicted over measured times into this .svg, .png or .pdf");
  command
      ->add_option("--tolerance", options->tolerance,
                   "Exit with 1 if the mean error of a group is larger, e.g. 0.06 for 6 %")
      ->check([](const std::string& text) {
        double value = 0;
        const bool good = CLI::detail::lexical_cast(text, value) && value > 0 && value < 1;
        return good ? std::string() : fmt::format("{} is no fraction from 0 to 1, write e.g. 0.06 for 6 %", text);
      });
  command->add_flag("--summary", options->summary_only, "Text: the table of groups only");
  command->add_flag("--medians", options->medians,
                    "Rows of a GPU that are the same but for their times count once, by the median");
  CLI::Option* steps =
      command->add_option("--steps", options->steps,
                          "Instead: a file of runs with time stamps (ring_steps.csv), op by op beside the simulation");
  for (const char* of_rows :
       {"--measured", "--published", "--format", "--plot", "--tolerance", "--summary", "--medians"})
    steps->excludes(of_rows);
  command->add_option("--run", options->step_run, "With --steps: the how-manieth run of the file")
      ->capture_default_str()
      ->needs(steps);
  CLI::Option* trace =
      command
          ->add_option("--trace", options->trace, "With --steps: both timelines as a Chrome trace (opens in Perfetto)")
          ->needs(steps);
  command->add_flag("--list-runs", options->list_runs, "With --steps: the runs of the file, with their numbers")
      ->needs(steps)
      ->excludes(trace);
  command->callback([options] { run(*options); });
}

}  // namespace orrery
