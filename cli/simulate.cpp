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

SimulationResult simulate_with_trace(const Program& program, const Cluster& cluster, Engine engine,
                                     const std::string& name) {
  OutputFile file(name);
  ChromeTrace trace(file.stream(), program, cluster);
  SimulationResult result = simulate(program, cluster, {.engine = engine, .sink = &trace});
  trace.finish();
  file.keep();
  return result;
}

void run(const SimulateOptions& options) {
  if (options.traces) check_trace_name(options);
  const auto start = std::chrono::steady_clock::now();
  const Scenario scenario = load_scenario(options.scenario);
  const Engine engine = simulation_engine(options.engine);
  const auto predict = [&](const auto& program) {
    const SimulationResult result = options.traces
                                        ? simulate_with_trace(program, scenario.cluster, engine, options.trace)
                                        : simulate(program, scenario.cluster, {.engine = engine});
    const double wall_s = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    return summarize(scenario, program, result, wall_s);
  };
  const Report report = scenario.whole_step ? predict(build_step(scenario)) : predict(build_program(scenario));
  const std::string text = options.format == "json"  ? json_report(scenario, report)
                           : options.format == "csv" ? csv_report(scenario, report)
                                                     : text_report(scenario, report);
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
  command->callback([options, trace] {
    options->traces = trace->count() > 0;
    run(*options);
  });
}

}  // namespace orrery
