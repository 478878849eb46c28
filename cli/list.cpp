#include <fmt/format.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "cli/commands.hpp"
#include "scenarios/hardware.hpp"
#include "scenarios/layout.hpp"
#include "scenarios/model.hpp"
#include "scenarios/pattern.hpp"
#include "scenarios/preset_files.hpp"
#include "scenarios/reader.hpp"
#include "scenarios/schedule.hpp"
#include "sim/topologies.hpp"

namespace orrery {
namespace {

void print_row(std::string_view name, std::string_view description) {
  fmt::print("  {:<36} {}\n", name, description);
}

template <class Row>
void print_table(std::span<const Row> rows) {
  for (const Row& row : rows) print_row(row.name, row.description);
}

/// Data files of one kind; a folder may hold several kinds.
void print_files(std::string_view folder, std::string_view kind) {
  for (const std::string& name : known_names(folder)) {
    const Table table = Table::parse_file(resolve(name, folder));
    if (table.has("kind") && table.string("kind") != kind) continue;
    print_row(name, table.string("description"));
  }
}

struct Section {
  const char* name;
  std::function<void()> print;
};

const std::vector<Section>& sections() {
  static const std::vector<Section> all = {
      {"patterns", [] { print_table(primitive_kinds()); }},
      {"schedules", [] { print_table(schedules()); }},
      {"layouts", [] { print_table(layouts()); }},
      {"topologies", [] { print_table(topologies()); }},
      {"implementations", [] { print_files("implementations", "implementation"); }},
      {"profiles", [] { print_files("profiles", "profile"); }},
      {"gpus", [] { print_files("hardware", "gpu"); }},
      {"links", [] { print_files("hardware", "link"); }},
      {"models", [] { print_files("models", "model"); }},
      {"reach", [] { print_files("reach", "reach"); }},
      {"examples", [] { print_files("examples", "scenario"); }},
      {"steps", [] { print_files("steps", "scenario"); }},
      {"claims", [] { print_files("claims", "claim"); }},
  };
  return all;
}

}  // namespace

void add_list(CLI::App& app) {
  auto wanted = std::make_shared<std::string>();
  CLI::App* command = app.add_subcommand("list", "List what scenario files can name");
  std::vector<std::string> names;
  for (const Section& section : sections()) names.emplace_back(section.name);
  command->add_option("what", *wanted, fmt::format("One of {}; all if left out", fmt::join(names, ", ")))
      ->check(CLI::IsMember(names));
  command->callback([wanted] {
    for (const Section& section : sections()) {
      if (!wanted->empty() && *wanted != section.name) continue;
      fmt::print("{}\n", section.name);
      section.print();
    }
  });
}

}  // namespace orrery
