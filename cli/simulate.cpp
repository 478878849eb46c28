#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <system_error>
#include <vector>

#include "cli/commands.hpp"
#include "cli/output_file.hpp"
#include "cli/report_writers.hpp"
#include "cli/runs.hpp"
#include "cli/sweep_workers.hpp"
#include "scenarios/step_scenario.hpp"
#include "sim/chrome_trace.hpp"

namespace orrery {
namespace {

struct SimulateOptions {
  std::string scenario;
  std::string format = "text";
  std::string trace;
  bool traces = false;
  std::string engine = "auto";
  int runs = 0;     // one, of the scenario's own seed
  int threads = 0;  // by the machine
};

constexpr std::array engines = {Engine::automatic, Engine::event, Engine::dependency, Engine::lumped};

Engine simulation_engine(const std::string& name) {
  return *std::find_if(engines.begin(), engines.end(), [&](Engine engine) { return name_of(engine) == name; });
}

void check_trace_name(const SimulateOptions& options) {
  if (options.trace.empty()) {
    throw std::runtime_error("--trace is empty (it names the file to write), write e.g. --trace trace.json");
  }
  std::error_code error;  // that one of them does not exist is not a mistake here
  if (std::filesystem::equivalent(options.trace, options.scenario, error)) {
    throw std::runtime_error(fmt::format(
        "{}: --trace names the scenario itself (it would be overwritten), name another file", options.trace));
  }
}

template <class AnyProgram>
Report trace_program(const Scenario& scenario, const AnyProgram& program, Engine engine, const std::string& name) {
  OutputFile file(name);
  ChromeTrace trace(file.stream(), program, scenario.cluster);
  const SimulationResult result = simulate(program, scenario, {.engine = engine, .sink = &trace});
  trace.finish();
  file.keep();
  return summarize(scenario, program, result, 0);
}

std::string one_report(const SimulateOptions& options, const Scenario& scenario, Engine engine,
                       std::chrono::steady_clock::time_point start) {
  Report report = !options.traces       ? predict(scenario, {.engine = engine})
                  : scenario.whole_step ? trace_program(scenario, build_step(scenario), engine, options.trace)
                                        : trace_program(scenario, build_program(scenario), engine, options.trace);
  report.wall_s = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return options.format == "json"  ? json_report(scenario, report)
         : options.format == "csv" ? csv_report(scenario, report)
                                   : text_report(scenario, report);
}

std::string report_of_runs(const SimulateOptions& options, const Scenario& scenario, Engine engine) {
  if (options.traces)
    throw std::runtime_error("--runs and --trace exclude each other (a trace is of one run), drop one");
  const int threads = options.threads > 0 ? options.threads : default_threads(1);
  const Runs runs = simulate_runs(scenario, engine, options.runs, threads);
  return options.format == "json"  ? runs_json(scenario, runs)
         : options.format == "csv" ? runs_csv(scenario, runs)
                                   : runs_text(scenario, runs);
}

void run(const SimulateOptions& options) {
  if (options.traces) check_trace_name(options);
  const auto start = std::chrono::steady_clock::now();
  const Scenario scenario = load_scenario(options.scenario);
  const Engine engine = simulation_engine(options.engine);
  const std::string text =
      options.runs > 0 ? report_of_runs(options, scenario, engine) : one_report(options, scenario, engine, start);
  if (std::fwrite(text.data(), 1, text.size(), stdout) != text.size()) {
    throw std::runtime_error("standard output could not be written (is the disk full?)");
  }
}

}  // namespace

void add_simulate(CLI::App& app) {
  auto options = std::make_shared<SimulateOptions>();
  CLI::App* command = app.add_subcommand("simulate", "Simulate one scenario: step time, overlap, and what limits it");
  command->add_option("scenario", options->scenario, "Scenario file, e.g. scenarios/examples/lwm_7b_1m_ring.toml")
      ->required();
  command->add_option("--format", options->format, "text, json or csv")
      ->check(CLI::IsMember({"text", "json", "csv"}))
      ->capture_default_str();
  std::vector<std::string> names;
  for (const Engine engine : engines) names.emplace_back(name_of(engine));
  command
      ->add_option("--engine", options->engine,
                   "event, dependency, lumped, or the cheapest that applies (auto); all give the same times")
      ->check(CLI::IsMember(names))
      ->capture_default_str();
  const CLI::Option* trace =
      command->add_option("--trace", options->trace, "Write a Chrome trace (opens in Perfetto) to this file");
  constexpr int most_runs = 1'000'000;
  CLI::Option* runs =
      command->add_option("--runs", options->runs,
                          "Simulate so many times, each with the next seed of the scenario's jitter, and "
                          "report quantiles");
  runs->check(CLI::Range(1, most_runs));
  command->add_option("--threads", options->threads, "Threads for --runs (default: one for each core)")
      ->check(CLI::Range(1, 4096))
      ->needs(runs);
  command->callback([options, trace] {
    options->traces = trace->count() > 0;
    run(*options);
  });
}

}  // namespace orrery
