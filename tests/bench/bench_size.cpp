// How many candidates of a search for a cluster are bounded in closed form, per second on one core.
#include <fmt/format.h>

#include <chrono>

#include "scenarios/preset_files.hpp"
#include "scenarios/size_bound.hpp"

int main() {
  using namespace orrery;
  SizeProblem problem;
  problem.model = load_model("llama3_70b");
  problem.tokens = 1 << 20;
  problem.batch = 16;
  problem.primitives = {{}};
  for (const char* name : {"a100_80_sxm", "h100_sxm"}) {
    GpuOption option;
    option.gpu = load_gpu(name);
    option.profile = load_profile(name, name);
    option.link = load_link(option.gpu.links.front());
    problem.gpus.push_back(option);
  }
  problem.network = load_link("infiniband_ndr");
  problem.implementation = load_implementation("ideal");
  problem.prepare();
  const std::vector<Candidate> candidates = candidates_of(problem);
  double sum = 0;  // so that no work is left out
  std::size_t count = 0;
  const auto start = std::chrono::steady_clock::now();
  std::chrono::duration<double> spent{};
  while (spent.count() < 0.5) {
    for (const Candidate& candidate : candidates) sum += bound_of(problem, candidate).time.si();
    count += candidates.size();
    spent = std::chrono::steady_clock::now() - start;
  }
  if (!(sum > 0)) return 2;
  fmt::print(
      "{{\"name\": \"size_candidates_per_s\", \"value\": {}, \"unit\": \"1/s\", \"must\": 100000, \"aim\": 1000000}}\n",
      static_cast<double>(count) / spent.count());
}
