#include "cli/progress_bar.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>

namespace orrery {

std::string progress_line(std::int64_t done, std::int64_t started, std::int64_t total, double seconds) {
  constexpr int width = 30;
  const double fraction = static_cast<double>(done) / static_cast<double>(std::max<std::int64_t>(total, 1));
  const auto filled = static_cast<std::size_t>(fraction * width);
  std::string line =
      fmt::format("[{:{}}] {:3.0f} %  {}/{}", std::string(filled, '#'), width, 100 * fraction, done, total);
  if (done == started || seconds <= 0) return line;
  const double rate = static_cast<double>(done - started) / seconds;
  const auto left = static_cast<std::int64_t>(static_cast<double>(total - done) / rate);
  line += fmt::format("  {:.3g}/s  ", rate);
  line += left < 3600 ? fmt::format("{}:{:02} left", left / 60, left % 60)
                      : fmt::format("{}:{:02}:{:02} left", left / 3600, left / 60 % 60, left % 60);
  return line;
}

ProgressBar::ProgressBar(std::int64_t started, std::int64_t total)
    : on_terminal_(::isatty(STDERR_FILENO) == 1), started_(started), total_(total), begin_(Clock::now()) {
  show(started);
}

ProgressBar::~ProgressBar() {
  if (on_terminal_) fmt::print(stderr, "\r\x1b[K");
}

void ProgressBar::show(std::int64_t done) {
  constexpr std::chrono::milliseconds pause{100};
  const Clock::time_point now = Clock::now();
  if (!on_terminal_ || (done < total_ && now - shown_ < pause)) return;
  shown_ = now;
  fmt::print(stderr, "\r{}\x1b[K",
             progress_line(done, started_, total_, std::chrono::duration<double>(now - begin_).count()));
  std::fflush(stderr);
}

}  // namespace orrery
