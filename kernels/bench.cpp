// orrery-bench: measures a GPU in minutes and writes CSV. See validate/measured/README.md for the method and the
// schema.
#include <malloc.h>

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <cstdlib>

#include "kernels/bench_options.hpp"
#include "kernels/cluster.hpp"
#include "kernels/glob.hpp"
#include "kernels/run_rows.hpp"
#include "kernels/table.hpp"

namespace orrery {
namespace {

Table table_of_this_machine() {
  const int gpus = gpu_count();
  if (gpus == 0) return make_table(1, "none", "none");
  cudaDeviceProp properties{};
  ORRERY_CUDA(cudaGetDeviceProperties(&properties, 0));
  return make_table(gpus, gpu_key(properties.name), link_name());
}

std::vector<const Row*> chosen(const Table& table, const BenchOptions& options) {
  for (const std::string& pattern : options.only) {
    const bool some =
        std::any_of(table.rows.begin(), table.rows.end(), [&](const Row& row) { return matches(row.name, pattern); });
    if (!some) throw std::invalid_argument("--only \"" + pattern + "\" matches no row (--list names them)");
  }
  std::vector<const Row*> rows;
  for (const Row& row : table.rows) {
    const bool named = std::any_of(options.only.begin(), options.only.end(),
                                   [&](const std::string& pattern) { return matches(row.name, pattern); });
    const bool of_set = options.list || (options.full ? row.in_full : row.quick);
    if (options.only.empty() ? of_set : named) rows.push_back(&row);
  }
  return rows;
}

void list(const Table& table, const std::vector<const Row*>& rows) {
  for (const Group& group : table.groups) {
    const auto count =
        std::count_if(rows.begin(), rows.end(), [&](const Row* row) { return row->group == group.name; });
    std::printf("%s: %s (%zu rows)\n", group.name.c_str(), group.what.c_str(), static_cast<size_t>(count));
    for (const Row* row : rows) {
      if (row->group != group.name) continue;
      std::printf("  %-62s %10s FLOP %10s B  %s%s\n", row->name.c_str(), format_number(row->flops).c_str(),
                  format_number(row->bytes).c_str(), row->what.c_str(),
                  row->quick     ? " [quick]"
                  : row->in_full ? ""
                                 : " [only by name]");
    }
  }
}

// To stderr, so that a list stays a list.
void say_what_is_left_out(const Table& table) {
  for (const Group& group : table.groups) {
    if (!group.missing.empty()) {
      std::fprintf(stderr, "%s: left out (%s)\n", group.name.c_str(), group.missing.c_str());
    }
  }
}

int run(const std::vector<std::string>& arguments) {
  const BenchOptions options = parse_bench_options(arguments);
  if (options.help) {
    std::fputs(kBenchUsage, stdout);
    return 0;
  }
  const Table table = options.planned_gpus > 0
                          ? make_table(options.planned_gpus, options.planned_gpu, options.planned_link)
                          : table_of_this_machine();
  say_what_is_left_out(table);
  const std::vector<const Row*> rows = chosen(table, options);
  if (options.list) {
    list(table, rows);
    return 0;
  }
  if (options.planned_gpus > 0) {
    plan_rows(table, rows, options);
    return 0;
  }
  const int gpus = gpu_count();
  if (gpus == 0) throw std::runtime_error("no GPU is visible, so nothing can be measured (--list works without one)");
  if (options.device >= gpus) {
    throw std::invalid_argument("--device " + std::to_string(options.device) + ": GPUs 0 to " +
                                std::to_string(gpus - 1) + " are visible");
  }
  return run_rows(table, rows, options);
}

}  // namespace
}  // namespace orrery

int main(int argc, char** argv) {
  // Before CUDA starts: every stream its own hardware queue, so that streams do not wait for each other by accident;
  // and NVLink multicast off unless asked for, because the rings do not use it and NCCL's rows shall be comparable.
  setenv("CUDA_DEVICE_MAX_CONNECTIONS", "32", 0);
  setenv("NCCL_NVLS_ENABLE", "0", 0);
  // Checks copy tensors to the host by the hundred: memory that goes back to the system costs five times the copy.
  mallopt(M_MMAP_THRESHOLD, 1 << 30);
  mallopt(M_TRIM_THRESHOLD, 2'000'000'000);
  for (int signal : {SIGINT, SIGTERM}) {
    std::signal(signal, [](int received) {
      orrery::interrupted = true;
      std::signal(received, SIG_DFL);  // a second one ends the program at once
    });
  }
  try {
    return orrery::run(std::vector<std::string>(argv + 1, argv + argc));
  } catch (const std::exception& error) {
    std::fprintf(stderr, "orrery-bench: %s\n", error.what());
    return 2;
  }
}
