#include "kernels/bench_options.hpp"

#include <algorithm>
#include <charconv>
#include <cstddef>
#include <stdexcept>

namespace orrery {

const char* const kBenchUsage =
    "orrery-bench: measure kernels and links of the GPUs at hand, and write CSV files.\n\n"
    "  --list           the rows and what each measures; with --only, those that match\n"
    "  --only PATTERN   rows whose name matches: a part of the name, or a glob with * and ?; may be repeated; as long "
    "as\n"
    "                   in --full only with --full, and without heating the GPU first\n"
    "  --quick          a small set of rows, under 2 minutes on one GPU (the default)\n"
    "  --full           every row that --list does not mark [only by name], under 8 minutes on one GPU\n"
    "  --output DIR     where the CSV files go (default: validate/measured/<gpu> for the whole of --full, otherwise\n"
    "                   validate/measured/<gpu>_part)\n"
    "  --device N       the GPU for the rows that need one (default: 0)\n"
    "  --plan G:N:L     measures nothing: writes the rows of N GPUs G joined by L, e.g. h200_sxm:4:nvlink4, without "
    "times,\n"
    "                   so that they can be predicted before they are measured (needs --output)\n\n"
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

constexpr int kMostGpus = 256;  // of one host; rows of links grow with the square

void set_plan(BenchOptions& options, const std::string& text) {
  const size_t first = text.find(':'), second = text.find(':', first + 1);
  int gpus = 0;
  if (second != std::string::npos) {
    const auto [end, error] = std::from_chars(text.data() + first + 1, text.data() + second, gpus);
    if (error != std::errc() || end != text.data() + second) gpus = 0;
  }
  if (first == 0 || gpus < 1 || gpus > kMostGpus || second + 1 == text.size() ||
      text.find(':', second + 1) != std::string::npos) {
    throw std::invalid_argument("--plan \"" + text + "\" is not a GPU, a number of them (at most " +
                                std::to_string(kMostGpus) + ") and a link (h200_sxm:4:nvlink4)");
  }
  options.planned_gpu = text.substr(0, first);
  options.planned_gpus = gpus;
  options.planned_link = text.substr(second + 1);
}

}  // namespace

BenchOptions parse_bench_options(const std::vector<std::string>& arguments) {
  BenchOptions options;
  options.command = "orrery-bench";
  for (const std::string& argument : arguments) options.command += " " + argument;
  for (size_t i = 0; i < arguments.size(); ++i) {
    const std::string& option = arguments[i];
    if (option != "--only" && std::find(arguments.begin(), arguments.begin() + static_cast<std::ptrdiff_t>(i),
                                        option) != arguments.begin() + static_cast<std::ptrdiff_t>(i)) {
      throw std::invalid_argument(option + " is given twice");
    }
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
    } else if (option == "--plan") {
      set_plan(options, value());
    } else if (option == "--help" || option == "-h") {
      options.help = true;
    } else {
      throw std::invalid_argument("\"" + option + "\" is not an option (see --help)");
    }
  }
  if (options.planned_gpus > 0 && options.output.empty()) {
    throw std::invalid_argument("--plan needs --output DIR, since its files hold no measurements");
  }
  return options;
}

std::string output_folder(const BenchOptions& options, const std::string& gpu) {
  if (!options.output.empty()) return options.output;
  return "validate/measured/" + gpu + (options.complete() ? "" : "_part");
}

}  // namespace orrery
