// Times whole runs of the program, file to report, each in a process of its own, and prints a table.
//   bench_table ORRERY FOLDER_OF_SCENARIOS BENCH_JSON [PROGRAM...]
// Further programs print rows of their own, a JSON object {name, value, unit, must, aim} a line.
#include <fmt/format.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

namespace {

using Json = nlohmann::ordered_json;

struct Run {
  double seconds = 0;
  double megabytes = 0;  // 10^6 bytes, peak resident memory
};

/// `arguments`: what follows the program's name, separated by blanks.
Run run_once(const std::string& program, const std::string& arguments) {
  std::vector<std::string> words = {program};
  std::istringstream stream(arguments);
  for (std::string word; stream >> word;) words.push_back(word);
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  const auto start = std::chrono::steady_clock::now();
  const pid_t child = fork();
  if (child == 0) {
    if (std::freopen("/dev/null", "w", stdout) == nullptr) _exit(127);
    execv(program.c_str(), argv.data());
    _exit(127);
  }
  int status = 0;
  rusage usage{};
  wait4(child, &status, 0, &usage);
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
    throw std::runtime_error(fmt::format("{} {} failed", program, arguments));
  return {seconds, static_cast<double>(usage.ru_maxrss) * 1024.0 / 1e6};
}

/// Median time of several runs; the memory of the largest.
Run run_often(const std::string& program, const std::string& arguments, int runs = 9) {
  std::vector<double> seconds;
  Run result;
  for (int i = 0; i < runs; ++i) {
    const Run run = run_once(program, arguments);
    seconds.push_back(run.seconds);
    result.megabytes = std::max(result.megabytes, run.megabytes);
  }
  std::nth_element(seconds.begin(), seconds.begin() + runs / 2, seconds.end());
  result.seconds = seconds[static_cast<std::size_t>(runs / 2)];
  return result;
}

Json row(const std::string& name, double value, const std::string& unit, double must, double aim) {
  return {{"name", name}, {"value", value}, {"unit", unit}, {"must", must}, {"aim", aim}};
}

void add_rows_of(const std::string& program, Json& rows) {
  FILE* pipe = popen(program.c_str(), "r");
  if (pipe == nullptr) throw std::runtime_error(program + " could not be started");
  std::string line;
  for (int c = std::fgetc(pipe); c != EOF; c = std::fgetc(pipe)) {
    if (c != '\n') {
      line += static_cast<char>(c);
      continue;
    }
    rows.push_back(Json::parse(line));
    line.clear();
  }
  if (pclose(pipe) != 0) throw std::runtime_error(program + " failed");
}

}  // namespace

int main(int argc, char** argv) {
  try {
    if (argc < 4) throw std::runtime_error("usage: bench_table ORRERY FOLDER BENCH_JSON [PROGRAM...]");
    const std::string program = argv[1], folder = argv[2];
    Json rows = Json::array();
    // ASTRA-sim takes 5.2 s and 484 MB for the same work as a task graph of 389,120 nodes.
    const std::string simulate = "simulate --format json " + folder;
    const Run ring = run_often(program, simulate + "/ring_64x32_forward.toml");
    rows.push_back(row("ring_64x32_forward_s", ring.seconds, "s", 0.25, 0.1));
    rows.push_back(row("ring_64x32_forward_mb", ring.megabytes, "MB", 300, 30));
    const Run few = run_often(program, simulate + "/llama3_8b_fsdp_64.toml");
    rows.push_back(row("llama8b_64gpu_step_s", few.seconds, "s", 0.02, 0.01));
    const Run many = run_often(program, simulate + "/llama3_8b_fsdp_4096.toml", 3);
    rows.push_back(row("llama8b_4096gpu_step_s", many.seconds, "s", 0.2, 0.1));
    const Run size = run_often(program,
                               "size --format json --model llama3_70b --context 1M --pass train --max-gpus 4096 --gpu "
                               "a100_80_sxm,h100_sxm,h200_sxm,b200_sxm,gh200,h800_sxm",
                               1);
    rows.push_back(row("size_llama70b_1m_s", size.seconds, "s", 10, 5));
    for (int i = 4; i < argc; ++i) add_rows_of(argv[i], rows);
    fmt::print("{:<32} {:>12} {:<10} {:>10} {:>10}\n", "name", "value", "unit", "must", "aim");
    for (const Json& r : rows) {
      fmt::print("{:<32} {:>12.4g} {:<10} {:>10.4g} {:>10.4g}\n", r["name"].get<std::string>(),
                 r["value"].get<double>(), r["unit"].get<std::string>(), r["must"].get<double>(),
                 r["aim"].get<double>());
    }
    std::ofstream out(argv[3]);
    out << rows.dump(2) << '\n';
    if (!out.flush()) throw std::runtime_error(fmt::format("{} could not be written", argv[3]));
    return 0;
  } catch (const std::exception& error) {
    fmt::print(stderr, "bench_table: {}\n", error.what());
    return 2;
  }
}
