// What the steps of ranks in lock step are, and which ends they wait for.
#include <algorithm>
#include <cstdlib>
#include <utility>

#include "sim/lock_step.hpp"

namespace orrery {
namespace {

constexpr std::int64_t least_segment = 32;

bool same(RelativeSignal a, RelativeSignal b) {
  return a.signal == b.signal && (a.signal < 0 || a.distance == b.distance);
}

/// But for how long they take.
bool same_order(const CompiledBlock& block, const CompiledOp& a, const CompiledOp& b) {
  if (a.stream != b.stream || !same(a.started, b.started) || a.waits_until != b.waits_until ||
      a.message_count != b.message_count)
    return false;
  for (int w = 0; w < a.waits_until[0]; ++w) {
    const CompiledWait &x = a.waits[static_cast<std::size_t>(w)], &y = b.waits[static_cast<std::size_t>(w)];
    if (x.count != y.count || !same(x.signal, y.signal)) return false;
  }
  for (std::size_t i = 0; i < a.finished.size(); ++i) {
    if (!same(a.finished[i], b.finished[i])) return false;
  }
  return a.message_count == 0 || same(block.messages[static_cast<std::size_t>(a.first_message)].delivered,
                                      block.messages[static_cast<std::size_t>(b.first_message)].delivered);
}

}  // namespace

void DependencyEngine::LockStep::add_block(std::int64_t number, std::vector<Step>& steps) {
  const std::shared_ptr<OpenBlock> block = engine_.open(number);
  const std::vector<CompiledSet>& sets = block->compiled->sets;
  if (static_cast<std::int64_t>(sets.size() - 1) * least_segment >= n_) throw NotInLockStep{};
  for (const CompiledSet& set : sets) {
    if (set.ranks.stride != 1 || set.op_count != sets.front().op_count) throw NotInLockStep{};
  }
  const std::size_t first = steps.size();
  repeat_old_ends(block, steps);
  for (std::int32_t i = 0; i < sets.front().op_count; ++i) add_step(block, i, steps);
  ahead_reach_ = 0;
  for (std::size_t s = first; s < steps.size(); ++s) {
    for (int w = 0; w < steps[s].wait_count; ++w) {
      const std::int32_t distance = steps[s].waits[static_cast<std::size_t>(w)].distance;
      ahead_reach_ = std::max<std::int64_t>(ahead_reach_, std::abs(distance));
    }
  }
}

void DependencyEngine::LockStep::repeat_old_ends(const std::shared_ptr<OpenBlock>& block, std::vector<Step>& steps) {
  for (Ordinal& last : last_on_stream_) {
    if (last < 0 || next_ - last < depth() / 2) continue;
    check_age(last);
    Step& step = steps.emplace_back();
    step.block = block;
    step.before = last;
    step.number = last = next_++;
  }
}

bool DependencyEngine::LockStep::takes_no_time(const CompiledBlock& block, const CompiledOp& op) {
  return op.duration == 0 &&
         (op.message_count == 0 || block.messages[static_cast<std::size_t>(op.first_message)].route < 0);
}

void DependencyEngine::LockStep::add_step(const std::shared_ptr<OpenBlock>& block, std::int32_t place,
                                          std::vector<Step>& steps) {
  const CompiledBlock& compiled = *block->compiled;
  const CompiledOp& op = compiled.ops[static_cast<std::size_t>(compiled.sets.front().first_op + place)];
  const auto stream = static_cast<std::size_t>(op.stream);
  if (op.waits_until[2] > op.waits_until[0] || op.message_count > 1 || op.started.signal >= 0 ||
      (op.stream == Stream::compute && op.message_count > 0)) {
    throw NotInLockStep{};
  }
  Step step;
  step.block = block;
  step.before = last_on_stream_[stream];
  for (int w = 0; w < op.waits_until[0]; ++w) {
    const Source end = source(*block, op.waits[static_cast<std::size_t>(w)]);
    if (end.op != none) step.waits[static_cast<std::size_t>(step.wait_count++)] = end;
  }
  if (step.before != none) check_age(step.before);
  bool changes_nothing = step.wait_count == 0 && step.before != none;
  for (const CompiledSet& set : compiled.sets) {
    const CompiledOp& other = compiled.ops[static_cast<std::size_t>(set.first_op + place)];
    if (!same_order(compiled, op, other)) throw NotInLockStep{};
    changes_nothing = changes_nothing && takes_no_time(compiled, other) && other.phase == phase_on_stream_[stream];
    phase_on_stream_[stream] = other.phase;
    step.segments.push_back({set.ranks.first, set.ranks.first + set.ranks.count, set.first_op + place});
  }
  for (const Segment& segment : step.segments) {
    if (compiled.ops[static_cast<std::size_t>(segment.op)].phase != op.phase) phase_on_stream_[stream] = -1;
  }
  engine_.evaluations_ += engine_.n_;
  if (!changes_nothing) last_on_stream_[stream] = step.number = next_++;
  if (op.message_count == 1)
    raise(compiled.messages[static_cast<std::size_t>(op.first_message)].delivered, last_on_stream_[stream]);
  for (const RelativeSignal& signal : op.finished) raise(signal, last_on_stream_[stream]);
  if (!changes_nothing) steps.push_back(std::move(step));
}

void DependencyEngine::LockStep::raise(RelativeSignal signal, Ordinal op) {
  if (signal.signal < 0) return;
  const auto number = static_cast<std::size_t>(signal.signal);
  if (!engine_.survey_.one_raiser[number]) throw NotInLockStep{};
  Raises& raises = raises_[number];
  ++raises.count;
  raises.latest[static_cast<std::size_t>(raises.count) % raises.latest.size()] = {op, signal.distance};
}

DependencyEngine::LockStep::Source DependencyEngine::LockStep::source(const OpenBlock& block,
                                                                      const CompiledWait& wait) const {
  const auto signal = static_cast<std::size_t>(wait.signal.signal);
  const std::int64_t count = wait.count + (block.counts_before.empty() ? 0 : block.counts_before[signal]);
  if (count <= 0) return {};
  const Raises& raises = raises_[signal];
  const auto remembered = static_cast<std::int64_t>(raises.latest.size());
  if (count > raises.count || count <= raises.count - remembered) throw NotInLockStep{};
  const Raise& raise = raises.latest[static_cast<std::size_t>(count) % raises.latest.size()];
  check_age(raise.op);
  std::int64_t distance = wait.signal.distance - raise.distance;
  if (distance > n_ / 2) distance -= n_;
  if (distance < -n_ / 2) distance += n_;
  return {raise.op, static_cast<std::int32_t>(distance)};
}

void DependencyEngine::LockStep::check_age(Ordinal op) const {
  if (next_ - op <= greatest_age()) return;
  if (engine_.depths_.history >= 16) throw NotInLockStep{};  // that would take more memory than signals do
  throw TooShallow{{engine_.depths_.history * 2, engine_.depths_.comm}};
}

}  // namespace orrery
