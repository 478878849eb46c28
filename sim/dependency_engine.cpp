#include "sim/dependency_engine.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "sim/tick_vectors.hpp"

namespace orrery {
namespace {

// A program whose ops wait for so much that comes later is better off with events.
constexpr std::size_t most_stalled = 20000;
constexpr std::size_t split_above = 64;

double whole_ticks(double seconds) {
  const double value = std::round(seconds * ticks_per_second);
  if (!(value < ticks::largest)) throw NotApplicable{"simulated time goes beyond 2^53 ps"};
  return value;
}

}  // namespace

/// A block some of whose ops are in work.
struct DependencyEngine::OpenBlock {
  BlockStore* store = nullptr;
  std::int64_t number = 0;
  CompiledBlock* compiled = nullptr;
  std::span<const std::int64_t> counts_before;
  std::vector<double> host_time;  // by column, at the start of the block; empty if no op has a launch cost

  OpenBlock() = default;
  OpenBlock(const OpenBlock&) = delete;
  OpenBlock& operator=(const OpenBlock&) = delete;
  ~OpenBlock() {
    if (compiled != nullptr) store->release(compiled);
  }
};

DependencyEngine::DependencyEngine(BlockStore& blocks, const Cluster& cluster, const Survey& survey,
                                   const Columns& columns, const Perturbation* perturbation, Depths depths)
    : blocks_(blocks),
      program_(blocks.program()),
      cluster_(cluster),
      columns_(columns),
      perturbation_(perturbation),
      n_(columns.count()),
      has_launches_(survey.has_launches),
      row_of_category_(program_.categories().size(), 0),
      signals_(program_.signals().size()),
      depths_(depths),
      comm_(n_, depths.union_window),
      compute_(n_) {
  bool first = true;
  for (std::size_t c = 0; c < row_of_category_.size(); ++c) {
    if (!survey.takes_time[c]) continue;
    row_of_category_[c] = first ? -1 : static_cast<int>(rows_++);
    first = false;
  }
  if (has_launches_) ++rows_;  // the last row
  host_time_.resize(has_launches_ ? n_ : 0);
  stream_end_.assign(streams_per_rank, Rows(rows_, n_));
  time_.assign(streams_per_rank, Rows(rows_, n_));
  begun_.assign(streams_per_rank, std::vector<double>(n_));
  blocked_.assign(streams_per_rank, std::vector<std::uint8_t>(n_));
  route_bytes_.assign(blocks.routes().columns(), std::vector<double>(n_));
  route_moving_ = route_bytes_;
}

SimulationResult DependencyEngine::run() {
  for (std::int64_t number = 0; number < blocks_.blocks(); ++number) {
    try_to_jump(number);
    if (number < blocks_.blocks()) work_off(number);
    check_comm_order();
  }
  if (!stalled_.empty()) split_stalled();
  if (!stalled_.empty()) throw NotApplicable{"some ops can never start"};
  return result();
}

void DependencyEngine::check_comm_order() const {
  if (!comm_.in_order()) throw TooShallow{{depths_.history, depths_.union_window * 2}};
}

std::shared_ptr<DependencyEngine::OpenBlock> DependencyEngine::open(std::int64_t number) {
  auto block = std::make_shared<OpenBlock>();
  block->store = &blocks_;
  block->number = number;
  block->compiled = blocks_.acquire(number);
  block->counts_before = program_.counts_before(number);
  block->host_time = host_time_;
  return block;
}

/// Ops in the order of their place in the block, so that those of different ranks keep step.
void DependencyEngine::work_off(std::int64_t number) {
  const std::shared_ptr<OpenBlock> block = open(number);
  const CompiledBlock& compiled = *block->compiled;
  std::vector<ColumnSet> columns;
  std::int32_t most_ops = 0;
  for (const CompiledSet& set : compiled.sets) {
    columns.push_back(columns_.of(set.ranks));
    most_ops = std::max(most_ops, set.op_count);
  }
  for (std::int32_t i = 0; i < most_ops; ++i) {
    for (std::size_t s = 0; s < compiled.sets.size(); ++s) {
      const CompiledSet& set = compiled.sets[s];
      if (i >= set.op_count || columns[s].count() == 0) continue;
      Task task{block, columns[s], &compiled.ops[static_cast<std::size_t>(set.first_op + i)]};
      if (is_blocked(task) || !attempt(task)) stall(std::move(task));
    }
  }
  for (std::size_t s = 0; has_launches_ && s < compiled.sets.size(); ++s) {
    const auto host_time = static_cast<double>(compiled.sets[s].host_time);
    columns[s].each([&](std::size_t, std::size_t column) { host_time_[column] += host_time; });
  }
  retry_stalled();
  if (stalled_.size() > split_above) split_stalled();
  if (stalled_.size() > most_stalled) throw NotApplicable{"ops wait for others that come far later"};
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

std::int64_t DependencyEngine::count_of(const Task& task, const CompiledWait& wait) const {
  const auto signal = static_cast<std::size_t>(wait.signal.signal);
  return wait.count + (task.block->counts_before.empty() ? 0 : task.block->counts_before[signal]);
}

bool DependencyEngine::available(const Task& task, WaitStage stage) {
  const int begin = stage == WaitStage::start ? 0 : task.op->waits_until[static_cast<std::size_t>(stage) - 1];
  for (int w = begin; w < task.op->waits_until[static_cast<std::size_t>(stage)]; ++w) {
    const CompiledWait& wait = task.op->waits[static_cast<std::size_t>(w)];
    const std::int64_t count = count_of(task, wait);
    if (count <= 0) continue;
    const SignalHistory& history = signals_[static_cast<std::size_t>(wait.signal.signal)];
    if (history.empty() || !history.reached(columns_.shifted(task.columns, wait.signal.distance), count)) return false;
  }
  return true;
}

void DependencyEngine::wait_for(const Task& task, WaitStage stage, Rows& time) {
  const int begin = stage == WaitStage::start ? 0 : task.op->waits_until[static_cast<std::size_t>(stage) - 1];
  for (int w = begin; w < task.op->waits_until[static_cast<std::size_t>(stage)]; ++w) {
    const CompiledWait& wait = task.op->waits[static_cast<std::size_t>(w)];
    const std::int64_t count = count_of(task, wait);
    if (count <= 0) continue;
    SignalHistory& history = signals_[static_cast<std::size_t>(wait.signal.signal)];
    const ColumnSet set = columns_.shifted(task.columns, wait.signal.distance);
    if (history.forgotten(set, count)) throw TooShallow{{depths_.history * 2, depths_.union_window}};
    history.wait(set, count, time);
  }
}

/// Goes through the op as far as it gets; true if to its end.
bool DependencyEngine::attempt(Task& task) {
  const auto stream = static_cast<std::size_t>(task.op->stream);
  if (!available(task, static_cast<WaitStage>(task.stage))) return false;
  Rows& time = work_;
  time.gather(task.stage == 0 ? stream_end_[stream] : time_[stream], task.columns);
  while (true) {
    wait_for(task, static_cast<WaitStage>(task.stage), time);
    if (task.stage == 0) begin(task, time);
    if (task.stage == 1) send(task, time);
    if (task.stage == 2) {
      finish(task, time);
      return true;
    }
    ++task.stage;
    if (available(task, static_cast<WaitStage>(task.stage))) continue;
    time.scatter(time_[stream], task.columns);
    return false;
  }
}

void DependencyEngine::begin(const Task& task, Rows& time) {
  const CompiledOp& op = *task.op;
  const ColumnSet& set = task.columns;
  double* const now = time.row(0);
  if (has_launches_) {
    set.each([&](std::size_t i, std::size_t column) {
      const double issue = task.block->host_time[column] + static_cast<double>(op.issue);
      if (issue <= now[i]) return;
      now[i] = issue;
      for (std::size_t r = 1; r < rows_; ++r) time.row(r)[i] = 0;
      time.row(rows_ - 1)[i] = issue;
    });
  }
  std::vector<double>& begun = begun_[static_cast<std::size_t>(op.stream)];
  set.each_piece([&](std::size_t i, std::size_t column, std::size_t n) {
    std::copy_n(now + i, n, begun.begin() + static_cast<std::ptrdiff_t>(column));
  });
  raise(task, op.started, time);
  if (op.duration == 0) return;
  const auto duration = static_cast<double>(op.duration);
  if (!(duration < ticks::largest)) throw NotApplicable{"simulated time goes beyond 2^53 ps"};
  const int row = row_of_category_[op.category];
  if (perturbation_ == nullptr || op.stream != Stream::compute) {
    ticks::add_into(now, duration, set.count());
    if (row > 0) ticks::add_into(time.row(static_cast<std::size_t>(row)), duration, set.count());
    return;
  }
  double* const share = row > 0 ? time.row(static_cast<std::size_t>(row)) : nullptr;
  set.each([&](std::size_t i, std::size_t column) {
    const auto rank = static_cast<Rank>(column);
    const auto taken = static_cast<double>(perturbation_->duration(op.duration, rank, task.block->number, op.index));
    now[i] += taken;
    if (share != nullptr) share[i] += taken;
  });
}

const DependencyEngine::Flight& DependencyEngine::flight(const CompiledMessage& message) {
  const auto [entry, is_new] = flights_.try_emplace({message.route, message.size});
  if (!is_new) return entry->second;
  Flight& flight = entry->second;
  for (std::size_t c = 0; c < n_; ++c) {
    const CachedRoute& route = blocks_.routes().at(message.route, columns_.representative(c));
    flight.moving.push_back(whole_ticks(message.size / route.bandwidth));
    flight.whole.push_back(flight.moving.back() + static_cast<double>(route.latency));
  }
  return flight;
}

void DependencyEngine::send(const Task& task, Rows& time) {
  const CompiledOp& op = *task.op;
  const bool alone = op.message_count == 1;
  if (!alone) departed_ = time;
  bool travels = false;
  for (std::int32_t m = 0; m < op.message_count; ++m) {
    const CompiledMessage& message = task.block->compiled->messages[static_cast<std::size_t>(op.first_message + m)];
    if (message.route < 0) {
      raise(task, message.delivered, alone ? time : departed_);
    } else if (!travels) {
      if (!alone) time = departed_;
      deliver(task, message, time);
      travels = true;
    } else {
      delivered_ = departed_;
      deliver(task, message, delivered_);
      time.max_into(delivered_, ColumnSet(0, time.columns(), time.columns()));
    }
  }
}

/// Takes `time` from the departure of the message to its delivery.
void DependencyEngine::deliver(const Task& task, const CompiledMessage& message, Rows& time) {
  const CompiledOp& op = *task.op;
  const ColumnSet& set = task.columns;
  const Flight& flight = this->flight(message);
  const ColumnSet sources = columns_.shifted(set, message.source);
  const int row = row_of_category_[op.category];
  double* const now = time.row(0);
  double* const share = row > 0 ? time.row(static_cast<std::size_t>(row)) : nullptr;
  double* const bytes = route_bytes_[static_cast<std::size_t>(message.route)].data();
  double* const moving = route_moving_[static_cast<std::size_t>(message.route)].data();
  from_.resize(set.count());
  if (op.stream == Stream::compute) {
    std::copy_n(now, set.count(), from_.data());
  } else {  // there a message counts as under way from the start of its op
    const std::vector<double>& begun = begun_[static_cast<std::size_t>(op.stream)];
    set.each_piece([&](std::size_t i, std::size_t column, std::size_t n) {
      std::copy_n(begun.data() + column, n, from_.data() + i);
    });
  }
  sources.each_piece([&](std::size_t i, std::size_t source, std::size_t n) {
    ticks::add_into(now + i, flight.whole.data() + source, n);
    if (share != nullptr) ticks::add_into(share + i, flight.whole.data() + source, n);
    ticks::add_into(bytes + source, message.size, n);
    ticks::add_into(moving + source, flight.moving.data() + source, n);
  });
  comm_.add_comm(sources, from_.data(), now);
  comm_.add_comm(columns_.shifted(set, message.destination), from_.data(), now);
  raise(task, message.delivered, time);
}

void DependencyEngine::finish(const Task& task, const Rows& time) {
  const CompiledOp& op = *task.op;
  const ColumnSet& set = task.columns;
  const auto stream = static_cast<std::size_t>(op.stream);
  OpSums& sums = sums_of(op);
  const double* const now = time.row(0);
  const double* const all_begun = begun_[stream].data();
  from_.resize(set.count());
  set.each_piece([&](std::size_t i, std::size_t column, std::size_t n) {
    const double* const begun = all_begun + column;
    ticks::add_difference(sums.busy.data() + column, now + i, begun, n);
    ticks::min_into(sums.first_begin.data() + column, begun, n);
    std::copy_n(now + i, n, sums.last_end.data() + column);
    if (op.stream == Stream::compute) {
      ticks::add_difference(compute_.data() + column, now + i, begun, n);
      comm_.add_gap({column, n, n_}, stream_end_[stream].row(0) + column, begun);
    } else if (op.duration > 0) {
      // Start-up counts as communication of the rank that issues the transfer.
      std::copy_n(begun, n, from_.data());
      ticks::add_into(from_.data(), static_cast<double>(op.duration), n);
      comm_.add_comm({column, n, n_}, begun, from_.data());
    }
  });
  evaluations_ += set.count();
  time.scatter(stream_end_[stream], set);
  for (const RelativeSignal& signal : op.finished) raise(task, signal, time);
}

void DependencyEngine::raise(const Task& task, RelativeSignal signal, const Rows& time) {
  if (signal.signal < 0) return;
  SignalHistory& history = signals_[static_cast<std::size_t>(signal.signal)];
  if (history.empty()) history = SignalHistory(depths_.history, rows_, n_);
  history.raise(columns_.shifted(task.columns, signal.distance), time);
}

DependencyEngine::OpSums& DependencyEngine::sums_of(const CompiledOp& op) {
  const auto [entry, is_new] = sums_.try_emplace({static_cast<int>(op.stream), op.category, op.phase});
  OpSums& sums = entry->second;
  if (is_new) {
    sums.busy.resize(n_);
    sums.first_begin.resize(n_, ticks::largest);
    sums.last_end.resize(n_, -1);
  }
  return sums;
}

}  // namespace orrery
