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
  double must_s, aim_s;
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

double peak_bytes() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<double>(usage.ru_maxrss) * 1024;
}

void print(const char* name, double value, const char* unit, double must, double aim) {
  fmt::print("{{\"name\": \"{}\", \"value\": {:.6g}, \"unit\": \"{}\", \"must\": {}, \"aim\": {}}}\n", name, value,
             unit, must, aim);
}

}  // namespace

int main() {
  constexpr Case cases[] = {
      {"reach_intervals_1m", ReachEngine::intervals, Index{1} << 20, 0.01, 0.001},
      {"reach_intervals_1g", ReachEngine::intervals, 1'000'000'000, 1, 0.001},
      {"reach_bitset_1m", ReachEngine::bitset, Index{1} << 20, 2, 0.1},
  };
  for (const Case& c : cases) {
    double best = seconds(c);
    for (int repeat = 1; repeat < 5; ++repeat) best = std::min(best, seconds(c));
    print(c.name, best, "s", c.must_s, c.aim_s);
  }
  print("reach_bitset_1m_memory", peak_bytes(), "B", 1e9, 1e8);
  return 0;
}
