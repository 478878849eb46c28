// orrery-bench: measures a GPU in minutes and writes CSV. See validate/measured/README.md for the method and the
// schema.
#include <sys/stat.h>

#include <csignal>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <fstream>
#include <map>
#include <thread>

#include "kernels/cluster.hpp"
#include "kernels/glob.hpp"
#include "kernels/progress.hpp"
#include "kernels/table.hpp"
#if ORRERY_HAVE_CUDNN
#include <cudnn.h>
#endif
#if ORRERY_HAVE_NCCL
#include <nccl.h>
#endif

namespace orrery {
namespace {

struct Arguments {
  bool list = false, full = false, help = false;
  std::vector<std::string> only;
  std::string output;
  int device = 0;
  std::string command = "orrery-bench";
};

const char* kUsage =
    "orrery-bench: measure kernels and links of the GPUs at hand, and write CSV files.\n\n"
    "  --list           the rows and what each measures; with --only, those that match\n"
    "  --only PATTERN   rows whose name matches: a part of the name, or a glob with * and ?; may be repeated\n"
    "  --quick          a small set of rows, under 2 minutes on one GPU (the default)\n"
    "  --full           every row, under 8 minutes on one GPU\n"
    "  --output DIR     where the CSV files go (default: validate/measured/<gpu>)\n"
    "  --device N       the GPU for the rows that need one (default: 0)\n";

Arguments parse(int argc, char** argv) {
  Arguments a;
  for (int i = 1; i < argc; ++i) {
    const std::string arg = argv[i];
    a.command += " " + arg;
    auto value = [&]() -> std::string {
      if (i + 1 >= argc) throw std::invalid_argument(arg + " needs a value");
      a.command += std::string(" ") + argv[i + 1];
      return argv[++i];
    };
    if (arg == "--list")
      a.list = true;
    else if (arg == "--quick")
      a.full = false;
    else if (arg == "--full")
      a.full = true;
    else if (arg == "--only")
      a.only.push_back(value());
    else if (arg == "--output")
      a.output = value();
    else if (arg == "--device")
      a.device = std::stoi(value());
    else if (arg == "--help" || arg == "-h")
      a.help = true;
    else
      throw std::invalid_argument("unknown option " + arg + " (see --help)");
  }
  return a;
}

Table make_table() {
  Table table;
  const int gpus = gpu_count();
  table.gpus = std::max(1, gpus);
  table.gpu = "none";
  table.link = "none";
  if (gpus > 0) {
    cudaDeviceProp properties{};
    ORRERY_CUDA(cudaGetDeviceProperties(&properties, 0));
    table.gpu = gpu_key(properties.name);
    table.link = link_name();
  }
  add_overhead_rows(table);
  add_attention_rows(table);
  add_memory_rows(table);
  add_gemm_rows(table);
  add_link_rows(table);
  add_nccl_rows(table);
  add_overlap_rows(table);
  add_ring_rows(table);
  add_power_rows(table);
  return table;
}

std::string version(int v, int major_unit, int minor_unit) {
  return std::to_string(v / major_unit) + "." + std::to_string(v % major_unit / minor_unit);
}

Fields header(const Rig& rig, const Arguments& arguments) {
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
           {"cuda", "runtime " + version(runtime, 1000, 10) + ", driver " + version(driver, 1000, 10)}};
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
  f.push_back({"command", arguments.command});
  return f;
}

void list(const Table& table, const std::vector<const Row*>& rows) {
  for (const Group& group : table.groups) {
    size_t count = 0;
    for (const Row* row : rows) count += row->group == group.name;
    std::printf("%s: %s (%zu rows)%s%s\n", group.name.c_str(), group.what.c_str(), count,
                group.missing.empty() ? "" : "; left out: ", group.missing.c_str());
    for (const Row* row : rows) {
      if (row->group != group.name) continue;
      std::printf("  %-62s %10s FLOP %10s B  %s%s\n", row->name.c_str(), format_number(row->flops).c_str(),
                  format_number(row->bytes).c_str(), row->what.c_str(), row->quick ? " [quick]" : "");
    }
  }
#if !ORRERY_HAVE_CUDNN
  std::printf("built without cuDNN: no attention blocks, no rings\n");
#endif
#if !ORRERY_HAVE_NCCL
  std::printf("built without NCCL: no collectives, no NCCL transport\n");
#endif
  if (gpu_count() == 0) std::printf("no GPU is visible: nothing can be measured here\n");
}

void make_folders(const std::string& path) {
  for (size_t at = path.find('/', 1); at != std::string::npos; at = path.find('/', at + 1)) {
    mkdir(path.substr(0, at).c_str(), 0777);
  }
  mkdir(path.c_str(), 0777);
}

void compile_plans(const std::vector<const Row*>& rows, int device) {
  std::vector<const Row*> work;
  for (const Row* row : rows) {
    if (row->prepare) work.push_back(row);
  }
  if (work.empty()) return;
  const auto start = std::chrono::steady_clock::now();
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
  std::fprintf(stderr, "compiled the plans of %zu rows in %.1f s\n", work.size(),
               std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
}

int measure_rows(const Table& table, const std::vector<const Row*>& rows, const Arguments& arguments) {
  Rig rig(arguments.device);
  if (!arguments.full) {
    rig.options.cap_s = 0.1;
    rig.options.warmup_s = 0.15;
  }
  const std::string folder = arguments.output.empty() ? "validate/measured/" + table.gpu : arguments.output;
  make_folders(folder);
  const Fields head = header(rig, arguments);
  std::map<std::string, std::unique_ptr<CsvWriter>> files, steps;
  for (const Group& group : table.groups) {
    files[group.name].reset(new CsvWriter(folder + "/" + group.name + ".csv", head, group.columns));
    steps[group.name].reset(new CsvWriter(folder + "/" + group.name + "_steps.csv", head, group.step_columns));
    if (!group.missing.empty()) std::fprintf(stderr, "%s: left out, %s\n", group.name.c_str(), group.missing.c_str());
  }
  compile_plans(rows, arguments.device);

  double expected = 0;
  for (const Row* row : rows) expected += row->expected_s;
  Progress progress(static_cast<int>(rows.size()), expected);
  const auto start = std::chrono::steady_clock::now();
  int failed = 0, done = 0;
  for (const Row* row : rows) {
    if (interrupted) break;
    progress.begin_row(row->name);
    ORRERY_CUDA(cudaSetDevice(arguments.device));
    Fields line = row->keys;
    auto has = [&](const Group& g, const char* column) {
      return std::find(g.columns.begin(), g.columns.end(), column) != g.columns.end();
    };
    const Group& group =
        *std::find_if(table.groups.begin(), table.groups.end(), [&](const Group& g) { return g.name == row->group; });
    if (has(group, "flops") && row->flops > 0) line.push_back({"flops", format_count(row->flops)});
    if (has(group, "bytes") && row->bytes > 0) line.push_back({"bytes", format_count(row->bytes)});
    try {
      const Outcome outcome = row->run(rig);
      std::vector<Fields> lines = outcome.rows;
      if (lines.empty()) lines.push_back({});
      for (const Fields& more : lines) {
        Fields whole = line;
        whole.insert(whole.end(), outcome.values.begin(), outcome.values.end());
        whole.insert(whole.end(), more.begin(), more.end());
        whole.push_back({"status", "ok"});
        files[row->group]->write(whole);
      }
      for (const Fields& step : outcome.steps) steps[row->group]->write(step);
      ++done;
      progress.clear();
      std::printf("%-70s %10s %s\n", row->name.c_str(), format_number(outcome.headline).c_str(),
                  outcome.headline_unit.c_str());
    } catch (const Interrupted&) {
      break;
    } catch (const std::exception& error) {
      ++failed;
      line.push_back({"status", "failed"});
      line.push_back({"reason", error.what()});
      files[row->group]->write(line);
      progress.clear();
      std::printf("%-70s FAILED: %s\n", row->name.c_str(), error.what());
      cudaGetLastError();
    }
    std::fflush(stdout);
    progress.end_row(row->expected_s);
  }
  progress.clear();
  std::fprintf(stderr, "%d rows measured, %d failed, %zu not reached, %s, files in %s\n", done, failed,
               rows.size() - static_cast<size_t>(done + failed),
               minutes(std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count()).c_str(),
               folder.c_str());
  return interrupted ? 130 : failed ? 1 : 0;
}

int run(int argc, char** argv) {
  const Arguments arguments = parse(argc, argv);
  if (arguments.help) {
    std::fputs(kUsage, stdout);
    return 0;
  }
  const Table table = make_table();
  std::vector<const Row*> rows;
  for (const Row& row : table.rows) {
    bool wanted = arguments.only.empty() ? arguments.full || arguments.list || row.quick : false;
    for (const std::string& pattern : arguments.only) wanted = wanted || matches(row.name, pattern);
    if (wanted) rows.push_back(&row);
  }
  if (arguments.list) {
    list(table, rows);
    return 0;
  }
  if (rows.empty()) {
    std::fprintf(stderr, "error: no row matches (see --list)\n");
    return 2;
  }
  if (gpu_count() == 0) {
    std::fprintf(stderr, "error: no GPU is visible (the driver reports none); --list works without one\n");
    return 2;
  }
  return measure_rows(table, rows, arguments);
}

}  // namespace
}  // namespace orrery

int main(int argc, char** argv) {
  // Before CUDA starts: every stream its own hardware queue, so that streams do not wait for each other by accident;
  // and NVLink multicast off unless asked for, because the rings do not use it and NCCL's rows shall be comparable.
  setenv("CUDA_DEVICE_MAX_CONNECTIONS", "32", 0);
  setenv("NCCL_NVLS_ENABLE", "0", 0);
  std::signal(SIGINT, [](int) { orrery::interrupted = true; });
  std::signal(SIGTERM, [](int) { orrery::interrupted = true; });
  try {
    return orrery::run(argc, argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "error: %s\n", error.what());
    return 2;
  }
}
