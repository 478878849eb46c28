#include <fmt/format.h>

#include <chrono>
#include <cstdio>
#include <fstream>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>

#include "cli/commands.hpp"
#include "cli/report_writers.hpp"
#include "sim/chrome_trace.hpp"

namespace orrery {
namespace {

struct SimulateOptions {
  std::string scenario;
  std::string format = "text";
  std::string trace;
};

SimulationResult simulate_with_trace(const AttentionProgram& program, const Cluster& cluster, const std::string& file) {
  std::ofstream out(file, std::ios::binary);
  if (!out) throw std::runtime_error(fmt::format("{}: cannot be written (does the folder exist?)", file));
  ChromeTrace trace(out, program, cluster);
  SimulationResult result = simulate(program, cluster, &trace);
  trace.finish();
  out.close();
  if (!out) throw std::runtime_error(fmt::format("{}: could not be written whole (is the disk full?)", file));
  return result;
}

void run(const SimulateOptions& options) {
  const auto start = std::chrono::steady_clock::now();
  const Scenario scenario = load_scenario(options.scenario);
  const AttentionProgram program = build_program(scenario);
  const SimulationResult result = options.trace.empty() ? simulate(program, scenario.cluster)
                                                        : simulate_with_trace(program, scenario.cluster, options.trace);
  const double wall_s = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  const Report report = summarize(scenario, program, result, wall_s);
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
  command->add_option("--trace", options->trace, "Write a Chrome trace (opens in Perfetto) to this file");
  command->callback([options] { run(*options); });
}

}  // namespace orrery
