#include "kernels/rank_pool.hpp"

namespace orrery {

RankPool::RankPool(int ranks) {
  for (int r = 0; r < ranks; ++r) threads_.emplace_back([this, r] { loop(r); });
}

RankPool::~RankPool() {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    stop_ = true;
  }
  wake_.notify_all();
  for (std::thread& t : threads_) t.join();
}

void RankPool::start(std::function<void(int)> task) {
  std::lock_guard<std::mutex> lock(mutex_);
  task_ = std::move(task);
  error_ = nullptr;
  failed_ = false;
  running_ = size();
  ++generation_;
  wake_.notify_all();
}

void RankPool::wait() {
  std::unique_lock<std::mutex> lock(mutex_);
  done_.wait(lock, [this] { return running_ == 0; });
  if (error_) std::rethrow_exception(error_);
}

void RankPool::loop(int rank) {
  int seen = 0;
  while (true) {
    std::function<void(int)> task;
    {
      std::unique_lock<std::mutex> lock(mutex_);
      wake_.wait(lock, [&] { return stop_ || generation_ != seen; });
      if (stop_) return;
      seen = generation_;
      task = task_;
    }
    std::exception_ptr error;
    try {
      task(rank);
    } catch (...) {
      error = std::current_exception();
      failed_ = true;
    }
    std::lock_guard<std::mutex> lock(mutex_);
    if (error && !error_) error_ = error;
    if (--running_ == 0) done_.notify_all();
  }
}

}  // namespace orrery
