// A line on a terminal that says how far the work is, how fast it goes and how long it will take.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

namespace orrery {

/// "[#####     ]  50 %  1200/2400  61/s  0:20 left"; `started` of the `done` were there before.
std::string progress_line(std::int64_t done, std::int64_t started, std::int64_t total, double seconds);

/// On standard error, if that is a terminal; otherwise it does nothing.
class ProgressBar {
 public:
  ProgressBar(std::int64_t started, std::int64_t total);
  ~ProgressBar();  // removes the line
  ProgressBar(const ProgressBar&) = delete;
  ProgressBar& operator=(const ProgressBar&) = delete;

  void show(std::int64_t done);

 private:
  using Clock = std::chrono::steady_clock;
  bool on_terminal_;
  std::int64_t started_, total_;
  Clock::time_point begin_, shown_;
};

}  // namespace orrery
