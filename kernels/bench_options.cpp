#include "kernels/bench_options.hpp"

#include <charconv>
#include <stdexcept>

namespace orrery {

const char* const kBenchUsage =
    "orrery-bench: measure kernels and links of the GPUs at hand, and write CSV files.\n\n"
    "  --list           the rows and what each measures; with --only, those that match\n"
    "  --only PATTERN   rows whose name matches: a part of the name, or a glob with * and ?; may be repeated\n"
    "  --quick          a small set of rows, under 2 minutes on one GPU (the default)\n"
    "  --full           every row, under 8 minutes on one GPU\n"
    "  --output DIR     where the CSV files go (default: validate/measured/<gpu> for the whole of --full, otherwise\n"
    "                   validate/measured/<gpu>_part)\n"
    "  --device N       the GPU for the rows that need one (default: 0)\n\n"
    "Ctrl-C keeps the rows already measured.\n";

namespace {

int device_number(const std::string& text) {
  int number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || end != text.data() + text.size() || number < 0) {
    throw std::invalid_argument("--device \"" + text + "\" is not the number of a GPU (0, 1, ...)");
  }
  return number;
}

}  // namespace

BenchOptions parse_bench_options(const std::vector<std::string>& arguments) {
  BenchOptions options;
  options.command = "orrery-bench";
  for (const std::string& argument : arguments) options.command += " " + argument;
  for (size_t i = 0; i < arguments.size(); ++i) {
    const std::string& option = arguments[i];
    auto value = [&]() -> const std::string& {
      if (i + 1 == arguments.size() || arguments[i + 1].empty()) {
        throw std::invalid_argument(option + " needs a value (see --help)");
      }
      return arguments[++i];
    };
    if (option == "--list") {
      options.list = true;
    } else if (option == "--quick") {
      options.full = false;
    } else if (option == "--full") {
      options.full = true;
    } else if (option == "--only") {
      options.only.push_back(value());
    } else if (option == "--output") {
      options.output = value();
    } else if (option == "--device") {
      options.device = device_number(value());
    } else if (option == "--help" || option == "-h") {
      options.help = true;
    } else {
      throw std::invalid_argument("\"" + option + "\" is not an option (see --help)");
    }
  }
  return options;
}

std::string output_folder(const BenchOptions& options, const std::string& gpu) {
  if (!options.output.empty()) return options.output;
  return "validate/measured/" + gpu + (options.complete() ? "" : "_part");
}

}  // namespace orrery
