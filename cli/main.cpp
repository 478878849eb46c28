// orrery: predicts how attention runs on GPU clusters.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <exception>
#include <string>
#include <vector>

#include "cli/commands.hpp"
#include "scenarios/data_files.hpp"
#include "scenarios/nearest.hpp"

namespace {

constexpr int exit_failure = 2;

/// "orrery simulate", or "orrery" if no subcommand was recognised.
std::string chosen(const CLI::App& app) {
  std::string name = app.get_name();
  for (const CLI::App* command : app.get_subcommands()) name += " " + command->get_name();
  return name;
}

std::vector<std::string> commands_of(const CLI::App& app) {
  std::vector<std::string> names;
  for (const CLI::App* command : app.get_subcommands([](const CLI::App*) { return true; })) {
    names.push_back(command->get_name());
  }
  return names;
}

std::vector<std::string> options_of(const CLI::App& app) {
  std::vector<std::string> names;
  for (const CLI::Option* option : app.get_options()) {
    for (const std::string& name : option->get_lnames()) names.push_back("--" + name);
  }
  return names;
}

/// What is wrong with the command line: a command or option that does not exist, with the nearest that does, an option
/// that is there too often, or else what CLI11 says.
std::string complaint(const CLI::App& app, const CLI::ParseError& error) {
  const bool has_command = !app.get_subcommands().empty();
  const CLI::App& place = has_command ? *app.get_subcommands().front() : app;
  for (const std::string& word : place.remaining()) {
    const std::string name = orrery::in_one_line(word.substr(0, word.find('=')));
    if (name.starts_with("-")) {
      return fmt::format("{} has no option {}, {}", place.get_name(), name, orrery::suggest(name, options_of(place)));
    }
    if (!has_command) return fmt::format("there is no command {}, {}", name, orrery::suggest(name, commands_of(app)));
  }
  for (const CLI::Option* option : place.get_options()) {
    const int most = option->get_items_expected_max(), given = static_cast<int>(option->count());
    if (most > 0 && given > most) return fmt::format("{} has {} values (it takes {})", option->get_name(), given, most);
  }
  return orrery::in_one_line(error.what());
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{"Predicts how attention runs on GPU clusters: time, communication, and why.", "orrery"};
  app.set_version_flag("--version", ORRERY_VERSION);
  app.require_subcommand(1);
  orrery::add_simulate(app);
  orrery::add_size(app);
  orrery::add_sweep(app);
  orrery::add_fit(app);
  orrery::add_validate(app);
  orrery::add_list(app);
  orrery::add_box(app);
  orrery::add_claim(app);
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
    fmt::print(stderr, "orrery: {}, see {} --help\n", complaint(app, error), chosen(app));
    return exit_failure;
  } catch (const std::exception& error) {
    fmt::print(stderr, "orrery: {}\n", orrery::in_one_line(error.what()));
    return exit_failure;
  }
  return 0;
}
