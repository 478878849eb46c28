// What a rank of each pipeline stage holds from visit to visit of its step.
#pragma once

#include <string>
#include <vector>

#include "scenarios/step_program.hpp"
#include "sim/simulate.hpp"

namespace orrery {

struct MemoryPoint {
  StepVisit visit;
  Memory memory;
  std::string what() const;  // "microbatch 2, layer 7, backward"
};

/// All visits of a stage in the order of its work. Their largest peak is that of memory_of, which counts in closed
/// form.
std::vector<MemoryPoint> memory_over_time(const StepProgram& program, int stage);

/// The point where the step needs most: the first such of the stage that memory_of names.
MemoryPoint fullest_point(const StepProgram& program);

/// When the first rank of each stage begins and ends its visits: takes the spans of a simulation.
class VisitTimes : public SpanSink {
 public:
  explicit VisitTimes(const StepProgram& program);
  void ops(std::span<const Span> spans) override;
  void links(std::span<const LinkSpan>) override {}

  struct Time {
    Ticks start = 0, end = 0;
    bool ran = false;  // a visit without ops takes no time
  };
  /// In the order of memory_over_time.
  const std::vector<Time>& of(int stage) const { return times_[static_cast<std::size_t>(stage)]; }

 private:
  const StepProgram& program_;
  std::vector<std::vector<StepVisit>> visits_;  // by stage
  std::vector<std::vector<Time>> times_;
};

}  // namespace orrery
