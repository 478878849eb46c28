// orrery validate: predicts measured rows and prints the error of every one.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <cstdio>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "cli/commands.hpp"
#include "cli/gnuplot.hpp"
#include "cli/output_file.hpp"
#include "cli/validate_output.hpp"
#include "cost_models/seen_rows.hpp"
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
  const std::string text = options.format == "json"  ? validation_json(rows, groups)
                           : options.format == "csv" ? validation_csv(rows)
                                                     : validation_text(rows, groups, options.summary_only);
  std::fwrite(text.data(), 1, text.size(), stdout);
  if (!options.plot.empty()) plot_validation(rows, options.plot);
  const std::string beyond = beyond_tolerance(rows, groups, options.tolerance);
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
