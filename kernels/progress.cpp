#include "kernels/progress.hpp"

#include <unistd.h>

#include <algorithm>
#include <cstdio>

namespace orrery {

std::string minutes(double seconds) {
  const long whole = std::max(0L, static_cast<long>(seconds + 0.5));
  char text[32];
  std::snprintf(text, sizeof text, "%ld:%02ld", whole / 60, whole % 60);
  return text;
}

Progress::Progress(int rows, double expected_s) : rows_(rows), expected_s_(expected_s), terminal_(isatty(2)) {}

void Progress::begin_row(const std::string& name) {
  if (terminal_) draw(name);
}

void Progress::end_row(double expected_s) {
  ++done_;
  expected_done_s_ += expected_s;
  if (!terminal_ && (done_ * 10 / std::max(1, rows_)) != ((done_ - 1) * 10 / std::max(1, rows_))) {
    draw("");
    std::fputc('\n', stderr);
  }
}

void Progress::clear() {
  if (terminal_) std::fputs("\r\033[K", stderr);
}

void Progress::draw(const std::string& name) {
  const double elapsed = std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
  const double left = expected_s_ - expected_done_s_;
  const double remaining = expected_done_s_ > 1 ? left * elapsed / expected_done_s_ : left;
  const int width = 24, full = rows_ ? width * done_ / rows_ : width;
  std::string bar(static_cast<size_t>(full), '#');
  bar.resize(width, '.');
  std::fprintf(stderr, "%s[%s] %d/%d, %s left  %s", terminal_ ? "\r\033[K" : "", bar.c_str(), done_, rows_,
               minutes(remaining).c_str(), name.substr(0, 60).c_str());
  std::fflush(stderr);
}

}  // namespace orrery
