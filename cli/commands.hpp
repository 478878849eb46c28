// The subcommands. Each adds itself to the program and, when chosen, runs after parsing.
#pragma once

#include <CLI/CLI.hpp>

namespace orrery {

void add_simulate(CLI::App& app);
void add_size(CLI::App& app);
void add_sweep(CLI::App& app);
void add_fit(CLI::App& app);
void add_claim(CLI::App& app);
void add_list(CLI::App& app);
void add_box(CLI::App& app);
void add_reach(CLI::App& app);
void add_bench(CLI::App& app);
void add_validate(CLI::App& app);

}  // namespace orrery
