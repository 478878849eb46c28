// The threads of one process that run the cases of a sweep.
#pragma once

#include <tbb/concurrent_queue.h>
#include <tbb/global_control.h>
#include <tbb/task_arena.h>

#include <deque>
#include <exception>
#include <functional>
#include <optional>

#include "cli/sweep_case.hpp"

namespace orrery {

/// Used by one thread. It does not run cases itself, unless it would only wait for a single other one: `caller_waits`
/// promises that poll() is not used.
class SweepWorkers {
 public:
  SweepWorkers(int threads, bool caller_waits, std::function<CaseResult(std::int64_t)> run);
  ~SweepWorkers();  // waits for what was started
  SweepWorkers(const SweepWorkers&) = delete;
  SweepWorkers& operator=(const SweepWorkers&) = delete;

  /// So many cases keep all threads busy while results are stored.
  int capacity() const { return 2 * threads_; }
  int in_flight() const { return in_flight_; }
  void start(std::int64_t number);
  /// A finished case, in no particular order. Rethrows what run() threw.
  CaseResult wait();  // in_flight() > 0
  std::optional<CaseResult> poll();

 private:
  struct Outcome {
    CaseResult result;
    std::exception_ptr error;
  };
  CaseResult take(Outcome outcome);

  int threads_, in_flight_ = 0;
  bool runs_itself_;
  std::deque<std::int64_t> own_;  // that it is still to run itself
  std::function<CaseResult(std::int64_t)> run_;
  tbb::concurrent_bounded_queue<Outcome> finished_;
  tbb::global_control limit_;
  tbb::task_arena arena_;
};

/// As many as the cores that this process may use, shared fairly with `processes` like it on this machine.
int default_threads(int processes);

}  // namespace orrery
