// orrery: predicts how attention runs on GPU clusters.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <exception>
#include <string>

#include "cli/commands.hpp"
#include "scenarios/data_files.hpp"

namespace {

constexpr int exit_failure = 2;

/// "orrery simulate", or "orrery" if no subcommand was recognised.
std::string chosen(const CLI::App& app) {
  std::string name = app.get_name();
  for (const CLI::App* command : app.get_subcommands()) name += " " + command->get_name();
  return name;
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{"Predicts how attention runs on GPU clusters: time, communication, and why.", "orrery"};
  app.set_version_flag("--version", ORRERY_VERSION);
  app.require_subcommand(1);
  orrery::add_simulate(app);
  orrery::add_sweep(app);
  orrery::add_fit(app);
  orrery::add_validate(app);
  orrery::add_list(app);
  orrery::add_reach(app);
  orrery::add_bench(app);
  try {
    app.parse(argc, argv);
    if (std::fflush(stdout) != 0) throw std::runtime_error("standard output could not be written (is the disk full?)");
  } catch (const CLI::Success& request) {  // --help, --version
    return app.exit(request);
  } catch (const CLI::RuntimeError& status) {  // a subcommand did its work and says no
    return status.get_exit_code();
  } catch (const CLI::ParseError& error) {
    fmt::print(stderr, "orrery: {}, see {} --help\n", orrery::in_one_line(error.what()), chosen(app));
    return exit_failure;
  } catch (const std::exception& error) {
    fmt::print(stderr, "orrery: {}\n", error.what());
    return exit_failure;
  }
  return 0;
}
