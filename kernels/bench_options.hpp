// The command line of orrery-bench. By hand, because the bench builds with nothing but the CUDA toolkit.
#pragma once
#include <string>
#include <vector>

namespace orrery {

struct BenchOptions {
  bool list = false, full = false, help = false;
  std::vector<std::string> only;
  std::string output;  // empty: see output_folder
  int device = 0;
  // --plan: the rows of a machine with so many such GPUs, without times. 0 GPUs: measure.
  int planned_gpus = 0;
  std::string planned_gpu, planned_link;
  std::string command;  // as typed, for the header of the files

  // Every row, so that the files stand for the GPU.
  bool complete() const { return full && only.empty(); }
};

extern const char* const kBenchUsage;

// Throws std::invalid_argument with a sentence for the user.
BenchOptions parse_bench_options(const std::vector<std::string>& arguments);
// Where the files go if --output does not say: a partial set never replaces the files of a complete one.
std::string output_folder(const BenchOptions& options, const std::string& gpu);

}  // namespace orrery
