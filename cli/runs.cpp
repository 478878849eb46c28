#include "cli/runs.hpp"

#include <tbb/enumerable_thread_specific.h>
#include <tbb/global_control.h>
#include <tbb/parallel_for.h>
#include <tbb/task_arena.h>

#include <exception>
#include <mutex>
#include <stdexcept>

#include "scenarios/step_scenario.hpp"

namespace orrery {
namespace {

/// What a thread has of its own: routes are found when they are asked for, and a program has the clock of its run.
template <class AnyProgram>
struct Own {
  Own(const Scenario& s, AnyProgram (*build)(const Scenario&)) : scenario(s), program(build(scenario)) {}
  Scenario scenario;
  AnyProgram program;
};

template <class AnyProgram>
void run_all(const Scenario& scenario, AnyProgram (*build)(const Scenario&), Engine engine, Runs& runs) {
  tbb::enumerable_thread_specific<Own<AnyProgram>> copies([&] { return Own<AnyProgram>(scenario, build); });
  std::mutex mutex;
  std::exception_ptr failure;
  std::size_t failed = runs.count();
  tbb::parallel_for(std::size_t{0}, runs.count(), [&](std::size_t run) {
    {
      const std::lock_guard lock(mutex);
      if (run > failed) return;
    }
    try {
      auto& [own, program] = copies.local();
      const Perturbation draws = own.variation.perturbation->with_seed(runs.first_seed + run);
      const PoweredResult result = simulate_step(program, own, {.engine = engine, .perturbation = &draws});
      const Report report = summarize(own, program, result, 0);
      for (std::size_t q = 0; q < runs.values.size(); ++q) runs.values[q][run] = run_quantities()[q].of(report);
      const std::lock_guard lock(mutex);
      ++runs.engines[report.engine];
    } catch (...) {
      const std::lock_guard lock(mutex);
      if (run >= failed) return;
      failed = run;
      failure = std::current_exception();
    }
  });
  if (failure) std::rethrow_exception(failure);
}

}  // namespace

Runs simulate_runs(const Scenario& scenario, Engine engine, int runs, int threads) {
  if (!scenario.variation.jitter) {
    throw std::invalid_argument(
        scenario.file.string() +
        ": --runs needs jitter (without it all runs are the same), add e.g. [variation] jitter = "
        "{distribution = \"lognormal\", sigma = 0.02, seed = 1}");
  }
  Runs all;
  all.first_seed = scenario.variation.jitter->seed;
  all.values.assign(run_quantities().size(), std::vector<double>(static_cast<std::size_t>(runs)));
  const tbb::global_control limit(tbb::global_control::max_allowed_parallelism, static_cast<std::size_t>(threads));
  tbb::task_arena(threads).execute([&] {
    if (scenario.whole_step)
      return run_all<StepProgram>(
          scenario, [](const Scenario& s) { return build_step(s); }, engine, all);
    run_all<AttentionProgram>(
        scenario, [](const Scenario& s) { return build_program(s); }, engine, all);
  });
  return all;
}

}  // namespace orrery
