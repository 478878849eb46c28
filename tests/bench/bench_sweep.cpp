// Times sweeps: what they cost beyond the simulations, and what a second MPI process gains. Prints rows for
// bench_table.
//   bench_sweep ORRERY FOLDER_OF_SPACES [MPIRUN]
#include <fmt/format.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "scenarios/report.hpp"
#include "scenarios/sweep_space.hpp"

namespace {

using namespace orrery;
namespace fs = std::filesystem;

// The quickest of so many counts: neighbours on the machine only slow.
constexpr int runs = 3, short_runs = 15;

double cpu_seconds(int who) {
  rusage usage{};
  getrusage(who, &usage);
  const auto seconds = [](const timeval& t) {
    return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_usec) * 1e-6;
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

void shell(const std::string& command) {
  if (std::system((command + " >/dev/null").c_str()) != 0) throw std::runtime_error(command + " failed");
}

class Folder {
 public:
  Folder() {
    std::string pattern = (fs::temp_directory_path() / "orrery_bench_XXXXXX").string();
    if (mkdtemp(pattern.data()) == nullptr) throw std::runtime_error("no temporary folder");
    path_ = pattern;
  }
  ~Folder() { fs::remove_all(path_); }
  const fs::path& path() const { return path_; }

 private:
  fs::path path_;
};

/// CPU time of a sweep on one thread, from start to end of its process, beyond that of the simulations alone: scenarios
/// are read before. Waiting for the disk is not in it.
double overhead(const std::string& program, const std::string& file) {
  const Folder folder;
  const std::string results = folder.path() / "r.sqlite";
  const SweepSpace space(SweepText::read(file));
  std::vector<Scenario> scenarios;
  for (std::int64_t n = 1; n <= space.cases(); ++n) scenarios.push_back(read_scenario(space.scenario(n)));
  double sweep = 1e9, simulations = 1e9;
  for (int i = 0; i < short_runs; ++i) {
    fs::remove(results);
    double start = cpu_seconds(RUSAGE_CHILDREN);
    shell(program + " sweep " + file + " --threads 1 -o " + results);
    sweep = std::min(sweep, cpu_seconds(RUSAGE_CHILDREN) - start);
    start = cpu_seconds(RUSAGE_SELF);
    for (const Scenario& scenario : scenarios) predict(scenario);
    simulations = std::min(simulations, cpu_seconds(RUSAGE_SELF) - start);
  }
  return (sweep / simulations - 1) * 100;
}

/// Time of one MPI process over that of two, one thread each.
double speedup(const std::string& program, const std::string& mpirun) {
  const Folder folder;
  const std::string space = folder.path() / "space.toml", results = folder.path() / "r.sqlite";
  std::ofstream(space) << "base = \"llama3_8b_128k_zigzag_h200\"\n[random]\nsamples = 1000\nseed = 1\n"
                       << "workload.tokens = {log = [\"64K\", \"1M\"], multiple_of = \"4K\"}\n";
  double seconds[2] = {1e9, 1e9};
  for (int i = 0; i < runs; ++i) {
    for (int processes = 1; processes <= 2; ++processes) {
      fs::remove(results);
      const auto start = std::chrono::steady_clock::now();
      shell(fmt::format(
          "OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 {} -n {} {} sweep {} --threads 1 -o {}", mpirun,
          processes, program, space, results));
      double& best = seconds[processes - 1];
      best = std::min(best, std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
    }
  }
  return seconds[0] / seconds[1];
}

void print_row(const char* name, double value, const char* unit, double must, double aim) {
  fmt::print("{{\"name\": \"{}\", \"value\": {:.4g}, \"unit\": \"{}\", \"must\": {}, \"aim\": {}}}\n", name, value,
             unit, must, aim);
  std::fflush(stdout);
}

}  // namespace

int main(int argc, char** argv) {
  try {
    if (argc < 3) throw std::runtime_error("usage: bench_sweep ORRERY FOLDER_OF_SPACES [MPIRUN]");
    const std::string program = argv[1], spaces = argv[2];
    print_row("sweep_overhead_percent", overhead(program, spaces + "/context_and_layout.toml"), "%", 5, 2);
    if (argc > 3) print_row("mpi2_speedup", speedup(program, argv[3]), "x", 1.8, 1.95);
    return 0;
  } catch (const std::exception& error) {
    fmt::print(stderr, "bench_sweep: {}\n", error.what());
    return 2;
  }
}
