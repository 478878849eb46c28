#include "kernels/run_rows.hpp"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <filesystem>
#include <future>
#include <map>
#include <set>
#include <thread>

#include "kernels/cluster.hpp"
#include "kernels/progress.hpp"
#include "kernels/workload.hpp"
#if ORRERY_HAVE_CUDNN
#include <cudnn.h>
#endif
#if ORRERY_HAVE_NCCL
#include <nccl.h>
#endif

namespace orrery {
namespace {

using Clock = std::chrono::steady_clock;
double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

std::string cuda_version(int v) {
  return std::to_string(v / 1000) + "." + std::to_string(v % 1000 / 10);
}

Fields header(const Rig& rig, const BenchOptions& options) {
  int runtime = 0, driver = 0;
  ORRERY_CUDA(cudaRuntimeGetVersion(&runtime));
  ORRERY_CUDA(cudaDriverGetVersion(&driver));
  char date[64];
  const std::time_t now = std::time(nullptr);
  std::strftime(date, sizeof date, "%Y-%m-%dT%H:%M:%SZ", std::gmtime(&now));
  Fields f{{"gpu", rig.properties.name},
           {"gpus", std::to_string(gpu_count())},
           {"link", link_name()},
           {"driver", rig.monitor->driver_version()},
           {"cuda", "runtime " + cuda_version(runtime) + ", driver " + cuda_version(driver)}};
#if ORRERY_HAVE_CUDNN
  f.push_back({"cudnn", std::to_string(cudnnGetVersion())});
#else
  f.push_back({"cudnn", "none"});
#endif
#if ORRERY_HAVE_NCCL
  int nccl = 0;
  ncclGetVersion(&nccl);
  f.push_back({"nccl", std::to_string(nccl)});
  const char* nvls = std::getenv("NCCL_NVLS_ENABLE");
  f.push_back({"nccl_nvls_enable", nvls ? nvls : "unset"});
#else
  f.push_back({"nccl", "none"});
#endif
  f.push_back({"sm", std::to_string(rig.properties.multiProcessorCount)});
  f.push_back({"clocks", "SM at most " + format_number(rig.monitor->max_sm_clock_mhz()) + " MHz, memory " +
                             format_number(rig.monitor->memory_clock_mhz()) + " MHz, not locked"});
  f.push_back({"power_limit_w", format_number(rig.monitor->power_limit_w())});
  f.push_back({"date", date});
  f.push_back({"host_cores", std::to_string(std::thread::hardware_concurrency())});
  f.push_back({"data", "normal, sigma 1, fixed seeds"});
  f.push_back({"command", options.command});
  return f;
}

// Compiling takes about a second a plan: all plans at once, by all cores, before anything is timed.
void compile_plans(const std::vector<const Row*>& rows, int device) {
  std::vector<const Row*> work;
  for (const Row* row : rows) {
    if (row->prepare) work.push_back(row);
  }
  const auto start = Clock::now();
  std::atomic<size_t> next{0};
  std::vector<std::thread> threads;
  const size_t most = std::max(1u, std::thread::hardware_concurrency());
  for (size_t t = 0; t < std::min(most, work.size()); ++t) {
    threads.emplace_back([&] {
      for (size_t i = next++; i < work.size() && !interrupted; i = next++) {
        try {
          work[i]->prepare(device);
        } catch (const std::exception&) {
          // The row says why when it runs.
        }
      }
    });
  }
  for (std::thread& t : threads) t.join();
  if (!work.empty()) {
    std::fprintf(stderr, "compiled the plans of %zu rows in %.1f s\n", work.size(), seconds_since(start));
  }
}

// A cold chip leaks less and clocks higher under the same power limit: a run from cold would differ from one that
// follows another. The GPU computes until its temperature has not risen for 5 s, and rests until the clock is back.
void heat(Rig& rig, double most_s) {
  ORRERY_CUDA(cudaSetDevice(rig.device));
  const auto gemm = make_workload("gemm", rig.device, rig.stream);
  const auto start = Clock::now();
  double highest = 0, highest_at = 0;
  while (!interrupted && seconds_since(start) < most_s && seconds_since(start) - highest_at < 5) {
    for (int i = 0; i < 100; ++i) gemm->launch(rig.stream);
    rig.stream.sync();
    const double now = rig.monitor->now().temperature_c;
    if (now > highest) {
      highest = now;
      highest_at = seconds_since(start);
    }
  }
  std::this_thread::sleep_for(std::chrono::seconds(2));
  std::fprintf(stderr, "heated to %s C in %.1f s\n", format_number(highest).c_str(), seconds_since(start));
}

// The files of one run.
class Files {
 public:
  Files(const Table& table, const std::string& folder, const Fields& head) {
    std::error_code error;
    std::filesystem::create_directories(folder, error);
    if (error || ::access(folder.c_str(), W_OK) != 0) {
      throw std::invalid_argument("--output \"" + folder + "\" is not a folder that can be written (" +
                                  (error ? error.message() : std::strerror(errno)) + "), name another");
    }
    for (const Group& group : table.groups) {
      groups_[group.name] = &group;
      lines_[group.name].reset(new CsvWriter(folder + "/" + group.name + ".csv", head, group.columns));
      steps_[group.name].reset(new CsvWriter(folder + "/" + group.name + "_steps.csv", head, group.step_columns));
    }
  }

  // Rows measured in rounds are written after each: what is there stays after a crash.
  void write(const Row& row, const Outcome& outcome) {
    std::vector<Fields> lines;
    for (const Fields& more : outcome.rows.empty() ? std::vector<Fields>{{}} : outcome.rows) {
      Fields line = keys(row);
      line.insert(line.end(), outcome.values.begin(), outcome.values.end());
      line.insert(line.end(), more.begin(), more.end());
      line.push_back({"status", "ok"});
      lines.push_back(std::move(line));
    }
    put(row, lines);
    for (const Fields& step : outcome.steps) steps_[row.group]->write(step);
  }

  void write_planned(const Row& row) {
    Fields line = keys(row);
    line.push_back({"status", "planned"});
    lines_[row.group]->write(line);
  }

  void write_failure(const Row& row, const std::string& reason) {
    Fields line = keys(row);
    line.push_back({"status", "failed"});
    line.push_back({"reason", reason});
    put(row, {line});
  }

 private:
  void put(const Row& row, const std::vector<Fields>& lines) {
    CsvWriter& file = *lines_[row.group];
    std::vector<size_t>& written = written_[&row];
    for (size_t i = 0; i < lines.size(); ++i) {
      if (i < written.size()) {
        file.replace(written[i], lines[i]);
      } else {
        written.push_back(file.write(lines[i]));
      }
    }
  }

  Fields keys(const Row& row) const {
    Fields line = row.keys;
    const std::vector<std::string>& columns = groups_.at(row.group)->columns;
    auto has = [&](const char* name) { return std::find(columns.begin(), columns.end(), name) != columns.end(); };
    if (has("flops") && row.flops > 0) line.push_back({"flops", format_count(row.flops)});
    if (has("bytes") && row.bytes > 0) line.push_back({"bytes", format_count(row.bytes)});
    return line;
  }

  std::map<std::string, const Group*> groups_;
  std::map<std::string, std::unique_ptr<CsvWriter>> lines_, steps_;
  std::map<const Row*, std::vector<size_t>> written_;
};

}  // namespace

std::vector<const Row*> in_rounds(const std::vector<const Row*>& rows) {
  double whole = 0, at = 0;
  for (const Row* row : rows) whole += row->rounds == 1 ? row->expected_s : 0;
  std::vector<std::pair<double, const Row*>> turns;
  for (const Row* row : rows) {
    if (row->rounds == 1) {
      turns.push_back({(at + row->expected_s / 2) / whole, row});
      at += row->expected_s;
      continue;
    }
    for (int round = 0; round < row->rounds; ++round)
      turns.push_back({static_cast<double>(round) / (row->rounds - 1), row});
  }
  std::stable_sort(turns.begin(), turns.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
  std::vector<const Row*> order;
  for (const auto& turn : turns) order.push_back(turn.second);
  return order;
}

void plan_rows(const Table& table, const std::vector<const Row*>& rows, const BenchOptions& options) {
  Files files(table, options.output, {{"command", options.command}});
  for (const Row* row : rows) files.write_planned(*row);
}

int run_rows(const Table& table, const std::vector<const Row*>& rows, const BenchOptions& options) {
  const auto start = Clock::now();
  Rig rig(options.device);
  if (!options.full) rig.options.cap_s = 0.1;
  const std::string folder = output_folder(options, table.gpu);
  Files files(table, folder, header(rig, options));
  auto compiled = std::async(std::launch::async, [&] { compile_plans(rows, options.device); });
  if (options.complete()) heat(rig, 20);
  compiled.get();

  const std::vector<const Row*> turns = in_rounds(rows);
  double expected = 0;
  for (const Row* row : turns) expected += row->expected_s / row->rounds;
  Progress progress(static_cast<int>(turns.size()), expected);
  std::map<std::string, double> group_s;
  std::map<const Row*, int> turns_of;
  std::set<const Row*> measured, failed;
  for (const Row* row : turns) {
    if (interrupted) break;
    if (failed.count(row)) continue;
    progress.begin_row(row->name);
    const auto row_start = Clock::now();
    try {
      ORRERY_CUDA(cudaSetDevice(options.device));
      const Outcome outcome = row->run(rig);
      files.write(*row, outcome);
      measured.insert(row);
      if (++turns_of[row] == row->rounds) {
        progress.clear();
        std::printf("%-70s %10s %s\n", row->name.c_str(), format_number(outcome.headline).c_str(),
                    outcome.headline_unit.c_str());
      }
    } catch (const Interrupted&) {
      break;
    } catch (const std::exception& error) {
      failed.insert(row);
      measured.erase(row);
      files.write_failure(*row, error.what());
      progress.clear();
      std::printf("%-70s FAILED: %s\n", row->name.c_str(), error.what());
      cudaGetLastError();
      if (cudaDeviceSynchronize() != cudaSuccess) {  // e.g. an illegal address: nothing of this process runs any more
        std::printf("The GPU takes no more work from this process; measure the rows not reached with --only.\n");
        break;
      }
    }
    std::fflush(stdout);
    group_s[row->group] += seconds_since(row_start);
    progress.end_row(row->expected_s / row->rounds);
  }
  progress.clear();
  std::fprintf(stderr, "%zu rows measured, %zu failed, %zu not reached, %s, files in %s\n", measured.size(),
               failed.size(), rows.size() - measured.size() - failed.size(), minutes(seconds_since(start)).c_str(),
               folder.c_str());
  for (const auto& [group, seconds] : group_s)
    std::fprintf(stderr, "  %-12s %s\n", group.c_str(), minutes(seconds).c_str());
  return interrupted ? 130 : failed.empty() ? 0 : 1;
}

}  // namespace orrery
