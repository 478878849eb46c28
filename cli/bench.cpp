#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <string>
#include <vector>

#include "cli/commands.hpp"

namespace orrery {
namespace {

namespace fs = std::filesystem;

// Becomes orrery-bench, so that Ctrl-C and the exit code are its own.
[[noreturn]] void run_bench(std::vector<std::string> arguments) {
  const fs::path program = fs::read_symlink("/proc/self/exe").parent_path() / "orrery-bench";
  if (!fs::exists(program)) {
    throw std::runtime_error(
        fmt::format("{} does not exist (it is built where nvcc is found); install the CUDA toolkit and build again, or "
                    "run kernels/measure.sh on the machine with the GPU",
                    program.string()));
  }
  std::string name = program.string();
  std::vector<char*> argv{name.data()};
  for (std::string& argument : arguments) argv.push_back(argument.data());
  argv.push_back(nullptr);
  execv(program.c_str(), argv.data());
  throw std::runtime_error(fmt::format("{} could not be started ({})", program.string(), std::strerror(errno)));
}

}  // namespace

void add_bench(CLI::App& app) {
  CLI::App* command = app.add_subcommand("bench", "Measure the GPUs at hand; its options are those of orrery-bench");
  command->prefix_command();  // everything behind `bench` is passed on, --help as well
  command->set_help_flag();
  command->callback([command] { run_bench(command->remaining()); });
}

}  // namespace orrery
