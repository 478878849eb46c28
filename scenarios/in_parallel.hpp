// Independent pieces of work on several threads.
#pragma once

#include <atomic>
#include <cstddef>
#include <future>
#include <vector>

namespace orrery {

/// Calls work(0) ... work(count - 1), each once, in no order.
template <class Work>
void in_parallel(std::size_t count, int threads, Work work) {
  std::atomic<std::size_t> next{0};
  const auto take = [&] {
    for (std::size_t i = next++; i < count; i = next++) work(i);
  };
  std::vector<std::future<void>> helpers;
  for (int t = 1; t < threads; ++t) helpers.push_back(std::async(std::launch::async, take));
  take();
  for (std::future<void>& helper : helpers) helper.get();
}

}  // namespace orrery
