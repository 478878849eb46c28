#include "scenarios/memory_over_time.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>

namespace orrery {
namespace {

MemoryMoment::Kind moment_of(StepVisit::Kind kind) {
  switch (kind) {
    case StepVisit::Kind::forward:
      return MemoryMoment::Kind::forward;
    case StepVisit::Kind::recompute:
      return MemoryMoment::Kind::recompute;
    case StepVisit::Kind::backward:
      return MemoryMoment::Kind::backward;
    case StepVisit::Kind::begin:
    case StepVisit::Kind::end:
      break;
  }
  return MemoryMoment::Kind::between;
}

}  // namespace

std::string MemoryPoint::what() const {
  constexpr std::array<const char*, 5> names = {"before the layers", "forward", "forward again", "backward",
                                                "after the layers"};
  const std::string kind = names[static_cast<std::size_t>(visit.kind)];
  const bool layer = visit.kind != StepVisit::Kind::begin && visit.kind != StepVisit::Kind::end;
  if (layer) return fmt::format("microbatch {}, layer {}, {}", visit.microbatch + 1, visit.layer + 1, kind);
  return fmt::format("microbatch {}, {}, {}", visit.microbatch + 1, kind, visit.forward ? "forward" : "backward");
}

std::vector<MemoryPoint> memory_over_time(const StepProgram& program, int stage) {
  using Kind = StepVisit::Kind;
  const MemoryInput& in = program.input().shape;
  const StageMemory memory(in, stage);
  const std::vector<StepVisit> visits = program.visits_of(stage);
  const bool training = in.pass == StepPass::training;
  std::vector<MemoryPoint> points;
  double kept = 0;
  for (const StepVisit& visit : visits) {
    MemoryMoment moment;
    const bool fills = training && visit.kind == Kind::forward;
    moment.kept_layers = kept + (fills ? 1 : 0);
    moment.kind = moment_of(visit.kind);
    moment.gathered_layers = moment.kind == MemoryMoment::Kind::between ? 1 : 2;  // the next one is on its way
    // From the head's product to its gradient; an inference step has it at the end.
    moment.logits = visit.last_chunk && (visit.forward ? visit.kind == Kind::end : visit.kind == Kind::begin);
    points.push_back({visit, memory.at(moment)});
    if (fills) ++kept;
    if (visit.kind == Kind::backward) --kept;
  }
  return points;
}

MemoryPoint fullest_point(const StepProgram& program) {
  const std::vector<MemoryPoint> points = memory_over_time(program, memory_of(program.input().shape).stage);
  // What is computed again is there until its backward pass ends.
  const auto key = [](const MemoryPoint& p) {
    return std::pair(p.memory.peak(), p.visit.kind == StepVisit::Kind::backward);
  };
  return *std::max_element(points.begin(), points.end(),
                           [&](const MemoryPoint& a, const MemoryPoint& b) { return key(a) < key(b); });
}

VisitTimes::VisitTimes(const StepProgram& program) : program_(program) {
  for (int stage = 0; stage < program.stages(); ++stage) {
    visits_.push_back(program.visits_of(stage));
    times_.emplace_back(visits_.back().size());
  }
}

void VisitTimes::ops(std::span<const Span> spans) {
  for (const Span& span : spans) {
    const int stage = program_.stage_of(span.rank);
    if (span.rank != program_.first_rank(stage) || span.stream != Stream::compute) continue;
    const std::vector<StepVisit>& visits = visits_[static_cast<std::size_t>(stage)];
    const auto next =
        std::upper_bound(visits.begin(), visits.end(), span.block,
                         [](std::int64_t block, const StepVisit& visit) { return block < visit.first_block; });
    Time& time = times_[static_cast<std::size_t>(stage)][static_cast<std::size_t>(next - visits.begin() - 1)];
    time.start = time.ran ? std::min(time.start, span.start) : span.start;
    time.end = std::max(time.end, span.end);
    time.ran = true;
  }
}

}  // namespace orrery
