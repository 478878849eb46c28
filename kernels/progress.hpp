// The bar on a terminal: rows done, the row in progress, the time that remains.
#pragma once
#include <chrono>
#include <string>

namespace orrery {

class Progress {
 public:
  // `expected_s` is the sum of all rows' guesses; what was measured so far corrects it.
  Progress(int rows, double expected_s);
  void begin_row(const std::string& name);
  void end_row(double expected_s);
  void clear();

 private:
  void draw(const std::string& name);

  int rows_, done_ = 0;
  double expected_s_, expected_done_s_ = 0;
  bool terminal_;
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

std::string minutes(double seconds);  // 2:05

}  // namespace orrery
