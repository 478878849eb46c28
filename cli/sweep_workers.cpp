#include "cli/sweep_workers.hpp"

#include <tbb/info.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

namespace orrery {

SweepWorkers::SweepWorkers(int threads, bool caller_waits, std::function<CaseResult(std::int64_t)> run)
    : threads_(threads),
      runs_itself_(caller_waits && threads == 1),
      run_(std::move(run)),
      limit_(tbb::global_control::max_allowed_parallelism, static_cast<std::size_t>(threads) + 1),
      arena_(threads, 0) {}

SweepWorkers::~SweepWorkers() {
  Outcome outcome;
  for (; in_flight_ > 0 && !runs_itself_; --in_flight_) finished_.pop(outcome);
}

void SweepWorkers::start(std::int64_t number) {
  ++in_flight_;
  if (runs_itself_) return own_.push_back(number);
  arena_.enqueue([this, number] {
    Outcome outcome;
    try {
      outcome.result = run_(number);
    } catch (...) {
      outcome.error = std::current_exception();
    }
    finished_.push(std::move(outcome));
  });
}

CaseResult SweepWorkers::take(Outcome outcome) {
  --in_flight_;
  if (outcome.error) std::rethrow_exception(outcome.error);
  return std::move(outcome.result);
}

CaseResult SweepWorkers::wait() {
  if (runs_itself_) {
    const std::int64_t number = own_.front();
    own_.pop_front();
    --in_flight_;
    return run_(number);
  }
  Outcome outcome;
  finished_.pop(outcome);
  return take(std::move(outcome));
}

std::optional<CaseResult> SweepWorkers::poll() {
  Outcome outcome;
  if (!finished_.try_pop(outcome)) return std::nullopt;
  return take(std::move(outcome));
}

int default_threads(int processes) {
  const auto cores = static_cast<int>(::sysconf(_SC_NPROCESSORS_ONLN));
  return std::max(1, std::min(tbb::info::default_concurrency(), cores / processes));
}

}  // namespace orrery
