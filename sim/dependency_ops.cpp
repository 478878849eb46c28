// What happens to an op of many ranks in the dependency tier, from its first wait to its end.
#include <algorithm>
#include <cmath>

#include "sim/dependency_engine.hpp"
#include "sim/tick_vectors.hpp"

namespace orrery {
namespace {

double whole_ticks(double seconds) {
  const double value = std::round(seconds * ticks_per_second);
  if (!(value < ticks::largest)) throw NotApplicable{"simulated time goes beyond 2^53 ps"};
  return value;
}

void gather(std::vector<double>& to, const std::vector<double>& from, const ColumnSet& set) {
  set.each_piece(
      [&](std::size_t i, std::size_t column, std::size_t n) { std::copy_n(from.data() + column, n, to.data() + i); });
}

void scatter(const std::vector<double>& from, std::vector<double>& to, const ColumnSet& set) {
  set.each_piece(
      [&](std::size_t i, std::size_t column, std::size_t n) { std::copy_n(from.data() + i, n, to.data() + column); });
}

}  // namespace

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
    if (history.forgotten(set, count)) throw TooShallow{{depths_.history * 2, depths_.comm}};
    history.wait(set, count, time);
  }
}

/// Goes through the op as far as it gets; true if to its end.
bool DependencyEngine::attempt(Task& task) {
  const auto stream = static_cast<std::size_t>(task.op->stream);
  if (!available(task, static_cast<WaitStage>(task.stage))) return false;
  Rows& time = work_;
  work_begun_.resize(task.columns.count());
  if (task.stage == 0) {
    time.gather(stream_end_[stream], task.columns);
  } else {
    time.gather(time_[stream], task.columns);
    gather(work_begun_, begun_[stream], task.columns);
  }
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
    if (begun_[stream].empty()) {
      begun_[stream].resize(n_);
      time_[stream] = Rows(rows_, n_);
    }
    time.scatter(time_[stream], task.columns);
    scatter(work_begun_, begun_[stream], task.columns);
    return false;
  }
}

void DependencyEngine::begin(const Task& task, Rows& time) {
  const CompiledOp& op = *task.op;
  double* const now = time.row(0);
  if (has_launches_) {
    task.columns.each([&](std::size_t i, std::size_t column) {
      const double issue = task.block->host_time[column] + static_cast<double>(op.issue);
      if (issue <= now[i]) return;
      now[i] = issue;
      for (std::size_t r = 1; r < rows_; ++r) time.row(r)[i] = 0;
      time.row(rows_ - 1)[i] = issue;
    });
  }
  double& first_begin = phases_[op.phase].first_begin;
  first_begin = std::min(first_begin, ticks::copy_and_least(work_begun_.data(), now, task.columns.count()));
  raise(task, op.started, time);
  if (op.duration > 0) take_duration(task, time);
}

void DependencyEngine::take_duration(const Task& task, Rows& time) {
  const CompiledOp& op = *task.op;
  const auto duration = static_cast<double>(op.duration);
  if (!(duration < ticks::largest)) throw NotApplicable{"simulated time goes beyond 2^53 ps"};
  const int category_row = row_of_category_[op.category];
  double* const share = category_row > 0 ? time.row(static_cast<std::size_t>(category_row)) : nullptr;
  const std::size_t n = task.columns.count();
  if (perturbation_ == nullptr || op.stream != Stream::compute) {
    ticks::add_into(time.row(0), duration, n);
    if (share != nullptr) ticks::add_into(share, duration, n);
    return;
  }
  buffer_.resize(n);
  task.columns.each_piece([&](std::size_t i, std::size_t column, std::size_t some) {
    // A piece of more than one column has one for each rank.
    perturbation_->durations(op.duration, columns_.representative(column), task.block->number, op.index,
                             buffer_.data() + i, some);
  });
  ticks::add_into(time.row(0), buffer_.data(), n);
  if (share != nullptr) ticks::add_into(share, buffer_.data(), n);
}

void DependencyEngine::send(const Task& task, Rows& time) {
  const CompiledOp& op = *task.op;
  const bool alone = op.message_count == 1;
  if (!alone) departed_ = time;
  bool travels = false;
  for (std::int32_t m = op.first_message; m < op.first_message + op.message_count; ++m) {
    const CompiledMessage& message = task.block->compiled->messages[static_cast<std::size_t>(m)];
    if (message.route < 0) {
      raise(task, message.delivered, alone ? time : departed_);
    } else if (!travels) {
      if (!alone) time = departed_;
      deliver(task, m, time);
      travels = true;
    } else {
      delivered_ = departed_;
      deliver(task, m, delivered_);
      time.max_into(delivered_, ColumnSet(0, time.columns(), time.columns()));
    }
  }
}

/// Takes `time` from the departure of the message to its delivery.
void DependencyEngine::deliver(const Task& task, std::int32_t number, Rows& time) {
  const CompiledOp& op = *task.op;
  const CompiledMessage& message = task.block->compiled->messages[static_cast<std::size_t>(number)];
  const Flight& flight = *task.block->flights[static_cast<std::size_t>(number)];
  const ColumnSet& set = task.columns;
  const ColumnSet sources = columns_.shifted(set, message.source);
  const int row = row_of_category_[op.category];
  double* const now = time.row(0);
  double* const share = row > 0 ? time.row(static_cast<std::size_t>(row)) : nullptr;
  const double* from = work_begun_.data();  // a message counts as under way from the start of its op
  if (op.stream == Stream::compute) {       // but there from when it leaves
    buffer_.assign(now, now + set.count());
    from = buffer_.data();
  }
  sources.each_piece([&](std::size_t i, std::size_t source, std::size_t n) {
    ticks::add_into(now + i, flight.whole.data() + source, n);
    if (share != nullptr) ticks::add_into(share + i, flight.whole.data() + source, n);
  });
  comm_.add_comm(sources, from, now);
  comm_.add_comm(columns_.shifted(set, message.destination), from, now);
  raise(task, message.delivered, time);
}

void DependencyEngine::finish(const Task& task, const Rows& time) {
  const CompiledOp& op = *task.op;
  const ColumnSet& set = task.columns;
  Rows& stream_end = stream_end_[static_cast<std::size_t>(op.stream)];
  const double* const now = time.row(0);
  OpKind* const varying = task.block->varying[static_cast<std::size_t>(task.op - task.block->compiled->ops.data())];
  const bool computes =
      op.stream == Stream::compute && (op.duration > 0 || op.message_count > 0 || op.waits_until[2] > 0);
  double& last_end = phases_[op.phase].last_end;
  set.each_piece([&](std::size_t i, std::size_t column, std::size_t n) {
    const double* const begun = work_begun_.data() + i;
    if (varying != nullptr) ticks::add_difference(varying->varying.data() + column, now + i, begun, n);
    if (computes) comm_.add_compute({column, n, n_}, begun, now + i);
    last_end = std::max(last_end, ticks::copy_and_greatest(stream_end.row(0) + column, now + i, n));
    for (std::size_t r = 1; r < rows_; ++r) std::copy_n(time.row(r) + i, n, stream_end.row(r) + column);
  });
  if (op.stream != Stream::compute && op.duration > 0 && !sends_its_own(task)) {
    // Start-up counts as communication of the rank that issues the transfer.
    buffer_ = work_begun_;
    ticks::add_into(buffer_.data(), static_cast<double>(op.duration), set.count());
    comm_.add_comm(set, work_begun_.data(), buffer_.data());
  }
  evaluations_ += set.count();
  for (const RelativeSignal& signal : op.finished) raise(task, signal, time);
}

/// Is a message from the rank that issues the op under way all the time?
bool DependencyEngine::sends_its_own(const Task& task) {
  const std::vector<CompiledMessage>& messages = task.block->compiled->messages;
  const auto first = messages.begin() + task.op->first_message;
  return std::any_of(first, first + task.op->message_count, [](const CompiledMessage& message) {
    return message.route >= 0 && (message.source == 0 || message.destination == 0);
  });
}

void DependencyEngine::raise(const Task& task, RelativeSignal signal, const Rows& time) {
  if (signal.signal < 0) return;
  const auto number = static_cast<std::size_t>(signal.signal);
  SignalHistory& history = signals_[number];
  if (history.empty()) history = SignalHistory(depths_.history, rows_, n_, survey_.one_raiser[number]);
  history.raise(columns_.shifted(task.columns, signal.distance), time);
}

DependencyEngine::Flight& DependencyEngine::flight(const CompiledMessage& message) {
  const auto known = flights_.find({message.route, message.size});
  if (known != flights_.end()) return known->second;
  Flight flight{{}, {}, ColumnSums(n_)};
  for (std::size_t c = 0; c < n_; ++c) {
    const CachedRoute& route = blocks_.routes().at(message.route, columns_.representative(c));
    flight.moving.push_back(whole_ticks(message.size / route.bandwidth));
    flight.whole.push_back(flight.moving.back() + static_cast<double>(route.latency));
  }
  return flights_.emplace(std::pair(message.route, message.size), std::move(flight)).first->second;
}

DependencyEngine::OpKind& DependencyEngine::kind_of(const CompiledOp& op) {
  const std::tuple key{static_cast<int>(op.stream), static_cast<int>(op.category), static_cast<int>(op.phase)};
  const auto known = kinds_.find(key);
  if (known != kinds_.end()) return known->second;
  return kinds_.emplace(key, OpKind{ColumnSums(n_), {}, {}}).first->second;
}

}  // namespace orrery
