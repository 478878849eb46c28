#include "sim/dependency_engine.hpp"

#include <algorithm>
#include <utility>

#include "sim/lock_step.hpp"
#include "sim/tick_vectors.hpp"

namespace orrery {
namespace {

// A program whose ops wait for so much that comes later is better off with events.
constexpr std::size_t most_stalled = 20000;
constexpr std::size_t split_above = 64;

}  // namespace

DependencyEngine::DependencyEngine(BlockStore& blocks, const Cluster& cluster, const Survey& survey,
                                   const Columns& columns, const Perturbation* perturbation, Depths depths,
                                   bool may_lock_step)
    : blocks_(blocks),
      program_(blocks.program()),
      cluster_(cluster),
      survey_(survey),
      columns_(columns),
      perturbation_(perturbation),
      n_(columns.count()),
      has_launches_(survey.has_launches),
      // Where layers repeat themselves exactly, jumping over them is faster still.
      in_lock_step_(may_lock_step && !has_launches_ && static_cast<Rank>(n_) == blocks.ranks() &&
                    ((perturbation != nullptr && perturbation->noisy()) || program_.shapes() == program_.blocks())),
      row_of_category_(program_.categories().size(), 0),
      signals_(program_.signals().size()),
      depths_(depths),
      comm_(n_, depths.comm),
      phases_(program_.phases().size(), {ticks::largest, -1}) {
  bool first = true;
  for (std::size_t c = 0; c < row_of_category_.size(); ++c) {
    if (!survey.takes_time[c]) continue;
    row_of_category_[c] = first ? -1 : static_cast<int>(rows_++);
    first = false;
  }
  if (has_launches_) ++rows_;  // the last row
  host_time_.resize(has_launches_ ? n_ : 0);
  stream_end_.assign(streams_per_rank, Rows(rows_, n_));
  time_.resize(streams_per_rank);
  begun_.resize(streams_per_rank);
  blocked_.assign(streams_per_rank, std::vector<std::uint8_t>(n_));
}

SimulationResult DependencyEngine::run() {
  if (in_lock_step_) {
    LockStep(*this).run();
  } else {
    run_blocks();
  }
  return result();
}

void DependencyEngine::run_blocks() {
  for (std::int64_t number = 0; number < blocks_.blocks(); ++number) {
    try_to_jump(number);
    if (number < blocks_.blocks()) work_off(number);
    check_comm_order();
  }
  if (!stalled_.empty()) split_stalled();
  if (!stalled_.empty()) throw NotApplicable{"some ops can never start"};
}

void DependencyEngine::check_comm_order() const {
  if (!comm_.in_order()) throw TooShallow{{depths_.history, comm_.enough()}};
}

std::shared_ptr<DependencyEngine::OpenBlock> DependencyEngine::open(std::int64_t number) {
  auto block = std::make_shared<OpenBlock>();
  block->store = &blocks_;
  block->number = number;
  block->compiled = blocks_.acquire(number);
  block->counts_before = program_.counts_before(number);
  block->host_time = host_time_;
  block->flights.resize(block->compiled->messages.size());
  block->varying.resize(block->compiled->ops.size());
  for (const CompiledSet& set : block->compiled->sets) {
    const ColumnSet& columns = block->columns.emplace_back(columns_.of(set.ranks));
    if (columns.count() == 0) continue;
    for (std::int32_t i = 0; i < set.op_count; ++i) account(*block, columns, set.first_op + i);
    if (!has_launches_) continue;
    const auto host_time = static_cast<double>(set.host_time);
    columns.each([&](std::size_t, std::size_t column) { host_time_[column] += host_time; });
  }
  return block;
}

/// Adds up what does not depend on when the op runs.
void DependencyEngine::account(OpenBlock& block, const ColumnSet& columns, std::int32_t number) {
  const CompiledOp& op = block.compiled->ops[static_cast<std::size_t>(number)];
  OpKind& kind = kind_of(op);
  int travelling = 0;
  const Flight* last = nullptr;
  std::int32_t source = 0;
  for (std::int32_t m = op.first_message; m < op.first_message + op.message_count; ++m) {
    const CompiledMessage& message = block.compiled->messages[static_cast<std::size_t>(m)];
    if (message.route < 0) continue;
    Flight& flight = this->flight(message);
    flight.sent.add(columns_.shifted(columns, message.source), 1);
    block.flights[static_cast<std::size_t>(m)] = last = &flight;
    source = message.source;
    ++travelling;
  }
  const bool varies = perturbation_ != nullptr && op.stream == Stream::compute && op.duration > 0;
  if (varies || travelling > 1 || op.waits_until[2] > op.waits_until[0]) {
    kind.varying.resize(n_);
    block.varying[static_cast<std::size_t>(number)] = &kind;
    return;
  }
  if (op.duration > 0) kind.fixed.add(columns, static_cast<double>(op.duration));
  if (travelling > 0) kind.flights.try_emplace({last, source}, n_).first->second.add(columns, 1);
}

/// Ops in the order of their place in the block, so that those of different ranks keep step.
void DependencyEngine::work_off(std::int64_t number) {
  const std::shared_ptr<OpenBlock> block = open(number);
  const CompiledBlock& compiled = *block->compiled;
  std::int32_t most_ops = 0;
  for (const CompiledSet& set : compiled.sets) most_ops = std::max(most_ops, set.op_count);
  for (std::int32_t i = 0; i < most_ops; ++i) {
    for (std::size_t s = 0; s < compiled.sets.size(); ++s) {
      const CompiledSet& set = compiled.sets[s];
      if (i >= set.op_count || block->columns[s].count() == 0) continue;
      Task task{block, block->columns[s], &compiled.ops[static_cast<std::size_t>(set.first_op + i)]};
      work(task);
    }
  }
  retry_stalled();
  if (stalled_.size() > split_above) split_stalled();
  if (stalled_.size() > most_stalled) throw NotApplicable{"ops wait for others that come far later"};
}

/// In parts that stay in the nearest cache, unless the ranks may wait for each other halfway.
void DependencyEngine::work(Task& task) {
  constexpr std::size_t most_at_once = 512;
  const ColumnSet all = task.columns;
  const std::size_t at_once =
      all.is_range() && task.op->waits_until[2] == task.op->waits_until[0] ? most_at_once : all.count();
  for (std::size_t i = 0; i < all.count(); i += at_once) {
    task.stage = 0;
    if (at_once < all.count()) task.columns = all.part(i, std::min(at_once, all.count() - i));
    if (is_blocked(task) || !attempt(task)) stall(task);
  }
}

void DependencyEngine::stall(Task task) {
  std::vector<std::uint8_t>& blocked = blocked_[static_cast<std::size_t>(task.op->stream)];
  task.columns.each([&](std::size_t, std::size_t column) { blocked[column] = 1; });
  stalled_.push_back(std::move(task));
}

bool DependencyEngine::is_blocked(const Task& task) const {
  if (stalled_.empty()) return false;
  const std::vector<std::uint8_t>& blocked = blocked_[static_cast<std::size_t>(task.op->stream)];
  bool any = false;
  task.columns.each([&](std::size_t, std::size_t column) { any = any || blocked[column] != 0; });
  return any;
}

void DependencyEngine::retry_stalled() {
  for (bool progress = !stalled_.empty(); progress;) {
    progress = false;
    for (std::vector<std::uint8_t>& blocked : blocked_) std::fill(blocked.begin(), blocked.end(), 0);
    std::deque<Task> tasks;
    tasks.swap(stalled_);
    for (Task& task : tasks) {
      if (is_blocked(task)) {
        stall(std::move(task));
        continue;
      }
      const int stage = task.stage;
      const bool done = attempt(task);
      progress = progress || done || task.stage != stage;
      if (!done) stall(std::move(task));
    }
    progress = progress && !stalled_.empty();
  }
}

/// Ranks of one set may wait for each other.
void DependencyEngine::split_stalled() {
  std::deque<Task> tasks;
  tasks.swap(stalled_);
  for (const Task& task : tasks) {
    task.columns.each([&](std::size_t, std::size_t column) {
      Task one = task;
      one.columns = columns_.one(column);
      stalled_.push_back(std::move(one));
    });
  }
  retry_stalled();
}

}  // namespace orrery
