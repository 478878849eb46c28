// One host thread for every rank, kept alive between runs (a thread's first use of a GPU and of cuDNN is slow).
#pragma once
#include <atomic>
#include <condition_variable>
#include <exception>
#include <functional>
#include <mutex>
#include <stdexcept>
#include <thread>
#include <vector>

namespace orrery {

class RankPool {
 public:
  explicit RankPool(int ranks);
  ~RankPool();
  RankPool(const RankPool&) = delete;
  RankPool& operator=(const RankPool&) = delete;

  int size() const { return static_cast<int>(threads_.size()); }
  // Starts task(rank) on every thread.
  void start(std::function<void(int)> task);
  // Waits for all; rethrows the first failure.
  void wait();
  void run(std::function<void(int)> task) {
    start(std::move(task));
    wait();
  }
  // True once a task failed, so that the others stop waiting for its events.
  bool failed() const { return failed_; }

 private:
  void loop(int rank);

  std::vector<std::thread> threads_;
  std::mutex mutex_;
  std::condition_variable wake_, done_;
  std::function<void(int)> task_;
  int generation_ = 0, running_ = 0;
  bool stop_ = false;
  std::atomic<bool> failed_{false};
  std::exception_ptr error_;
};

// Counts the events one thread has recorded, so that another makes its stream wait only for an event that is already
// in its stream (waiting for an event never recorded would not wait at all).
class Recorded {
 public:
  void reset() { count_.store(0, std::memory_order_relaxed); }
  void advance_to(int count) { count_.store(count, std::memory_order_release); }
  void await(int count, const RankPool& pool) const {
    while (count_.load(std::memory_order_acquire) < count) {
      if (pool.failed()) throw std::runtime_error("another rank failed");
      std::this_thread::yield();
    }
  }

 private:
  std::atomic<int> count_{0};
};

}  // namespace orrery
