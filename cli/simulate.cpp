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
#include "cli/memory_csv.hpp"
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
  std::string memory;
  bool follows_memory = false;
  std::string engine = "auto";
  int runs = 0;     // one, of the scenario's own seed
  int threads = 0;  // by the machine
};

constexpr std::array engines = {Engine::automatic, Engine::event, Engine::dependency, Engine::lumped};

Engine simulation_engine(const std::string& name) {
  return *std::find_if(engines.begin(), engines.end(), [&](Engine engine) { return name_of(engine) == name; });
}

/// Of an option that names a file to write.
void check_output_name(const std::string& name, std::string_view option, const std::string& scenario) {
  if (name.empty()) {
    throw std::runtime_error(fmt::format("{0} is empty (it names the file to write), write e.g. {0} {1}", option,
                                         option == "--trace" ? "trace.json" : "memory.csv"));
  }
  std::error_code error;  // that one of them does not exist is not a mistake here
  if (std::filesystem::equivalent(name, scenario, error)) {
    throw std::runtime_error(
        fmt::format("{}: {} names the scenario itself (it would be overwritten), name another file", name, option));
  }
}

/// Passes spans on to several.
class Sinks : public SpanSink {
 public:
  void add(SpanSink& sink) { sinks_.push_back(&sink); }
  void ops(std::span<const Span> spans) override {
    for (SpanSink* sink : sinks_) sink->ops(spans);
  }
  void links(std::span<const LinkSpan> spans) override {
    for (SpanSink* sink : sinks_) sink->links(spans);
  }

 private:
  std::vector<SpanSink*> sinks_;
};

PoweredResult simulate_into(Sinks& sinks, KernelProgram& program, const Scenario& scenario,
                            const SimulateOptions& options) {
  const SimulationOptions how{.engine = simulation_engine(options.engine), .sink = &sinks};
  if (!options.traces) return simulate_step(program, scenario, how);
  OutputFile file(options.trace);
  ChromeTrace trace(file.stream(), program, scenario.cluster);
  sinks.add(trace);
  PoweredResult result = simulate_step(program, scenario, how);
  trace.finish();
  file.keep();
  return result;
}

Report traced_attention(const Scenario& scenario, const SimulateOptions& options) {
  if (options.follows_memory) {
    throw std::runtime_error(
        fmt::format("{}: --memory follows a whole step (this one is of less), write scope = \"step\" or leave it out",
                    scenario.file.string()));
  }
  AttentionProgram program = build_program(scenario);
  Sinks sinks;
  return summarize(scenario, program, simulate_into(sinks, program, scenario, options), 0);
}

Report traced_step(const Scenario& scenario, const SimulateOptions& options) {
  StepProgram program = build_step(scenario);
  Sinks sinks;
  if (!options.follows_memory) return summarize(scenario, program, simulate_into(sinks, program, scenario, options), 0);
  OutputFile file(options.memory);
  VisitTimes times(program);
  sinks.add(times);
  const PoweredResult result = simulate_into(sinks, program, scenario, options);
  write_memory_csv(file.stream(), program, times);
  file.keep();
  return summarize(scenario, program, result, 0);
}

std::string one_report(const SimulateOptions& options, const Scenario& scenario, Engine engine,
                       std::chrono::steady_clock::time_point start) {
  Report report = !options.traces && !options.follows_memory ? predict(scenario, {.engine = engine})
                  : scenario.whole_step                      ? traced_step(scenario, options)
                                                             : traced_attention(scenario, options);
  report.wall_s = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return options.format == "json"  ? json_report(scenario, report)
         : options.format == "csv" ? csv_report(scenario, report)
                                   : text_report(scenario, report);
}

std::string report_of_runs(const SimulateOptions& options, const Scenario& scenario, Engine engine) {
  if (options.traces || options.follows_memory) {
    throw std::runtime_error(fmt::format("--runs and {0} exclude each other ({0} is of one run), drop one",
                                         options.traces ? "--trace" : "--memory"));
  }
  const int threads = options.threads > 0 ? options.threads : default_threads(1);
  const Runs runs = simulate_runs(scenario, engine, options.runs, threads);
  return options.format == "json"  ? runs_json(scenario, runs)
         : options.format == "csv" ? runs_csv(scenario, runs)
                                   : runs_text(scenario, runs);
}

void run(const SimulateOptions& options) {
  if (options.traces) check_output_name(options.trace, "--trace", options.scenario);
  if (options.follows_memory) check_output_name(options.memory, "--memory", options.scenario);
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
  const CLI::Option* memory =
      command->add_option("--memory", options->memory, "Of a whole step: write what a rank holds over time, as CSV");
  command->callback([options, trace, memory] {
    options->traces = trace->count() > 0;
    options->follows_memory = memory->count() > 0;
    run(*options);
  });
}

}  // namespace orrery
