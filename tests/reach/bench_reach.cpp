// Times the engines of reach. One JSON line for each figure: name, value, unit, and what it must and should be.
#include <fmt/format.h>
#include <sys/resource.h>

#include <algorithm>
#include <chrono>

#include "scenarios/reach.hpp"

namespace {

using namespace orrery;

struct Case {
  const char* name;
  ReachEngine engine;
  Index tokens;
  const char* unit;
  double units_per_second, must, aim;
};

/// Rule A with k = 256, pi = 4096 in 64 layers, from the last token.
double seconds(const Case& c) {
  const auto start = std::chrono::steady_clock::now();
  const ReachPattern pattern = pi_pattern("A", {256, 4096}, true, false);
  const ReachRun run = run_reach(make_problem(pattern, {c.tokens, c.tokens - 1, 64, {}}, ReachView::lo), c.engine);
  const double taken = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  if (run.layers.back().earlier.max_lag != std::min<Index>(c.tokens - 1, 64 * 4096)) throw std::runtime_error(c.name);
  return taken;
}

double peak_megabytes() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<double>(usage.ru_maxrss) * 1024 / 1e6;
}

void print(const char* name, double value, const char* unit, double must, double aim) {
  fmt::print("{{\"name\": \"{}\", \"value\": {:.6g}, \"unit\": \"{}\", \"must\": {}, \"aim\": {}}}\n", name, value,
             unit, must, aim);
}

}  // namespace

int main() {
  constexpr Case cases[] = {
      {"reach_intervals_1m_ms", ReachEngine::intervals, Index{1} << 20, "ms", 1e3, 10, 1},
      {"reach_1g_intervals_s", ReachEngine::intervals, 1'000'000'000, "s", 1, 1, 0.001},
      {"reach_bitset_1m_s", ReachEngine::bitset, Index{1} << 20, "s", 1, 2, 0.1},
  };
  for (const Case& c : cases) {
    double best = seconds(c);
    for (int repeat = 1; repeat < 5; ++repeat) best = std::min(best, seconds(c));
    print(c.name, best * c.units_per_second, c.unit, c.must, c.aim);
  }
  print("reach_bitset_peak_mb", peak_megabytes(), "MB", 1000, 100);
  return 0;
}
