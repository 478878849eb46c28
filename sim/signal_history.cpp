#include "sim/signal_history.hpp"

#include <algorithm>

#include "sim/tick_vectors.hpp"

namespace orrery {

void Rows::gather(const Rows& from, const ColumnSet& set) {
  resize(from.rows(), set.count);
  for (std::size_t r = 0; r < from.rows(); ++r) {
    const double* source = from.row(r);
    if (set.list.empty()) {
      std::copy_n(source + set.first, set.count, row(r));
    } else {
      for (std::size_t i = 0; i < set.count; ++i) row(r)[i] = source[set.list[i]];
    }
  }
}

void Rows::scatter(Rows& to, const ColumnSet& set) const {
  for (std::size_t r = 0; r < to.rows(); ++r) {
    double* target = to.row(r);
    if (set.list.empty()) {
      std::copy_n(row(r), set.count, target + set.first);
    } else {
      for (std::size_t i = 0; i < set.count; ++i) target[set.list[i]] = row(r)[i];
    }
  }
}

void Rows::max_into(const Rows& other, const ColumnSet& set, Rows& scratch) {
  const Rows* source = &other;
  std::size_t first = set.first;
  if (!set.list.empty()) {
    scratch.gather(other, set);
    source = &scratch;
    first = 0;
  }
  const double* later = source->row(0) + first;
  for (std::size_t r = rows(); r-- > 0;) {  // the times last: they decide
    ticks::select_greater(row(r), source->row(r) + first, row(0), later, set.count);
  }
}

SignalHistory::SignalHistory(std::size_t depth, std::size_t rows, std::size_t columns)
    : counts_(columns), latest_(depth, Rows(rows, columns)), waited_for_(depth, -1), unordered_(depth, -1) {}

bool SignalHistory::reached(const ColumnSet& set, std::int64_t count) const {
  bool all = true;
  if (set.list.empty()) {
    for (std::size_t i = 0; i < set.count; ++i) all = all && counts_[set.first + i] >= count;
  } else {
    for (const std::int32_t column : set.list) all = all && counts_[static_cast<std::size_t>(column)] >= count;
  }
  return all;
}

bool SignalHistory::forgotten(const ColumnSet& set, std::int64_t count) const {
  const std::int64_t most = count + static_cast<std::int64_t>(latest_.size());
  bool any = false;
  if (set.list.empty()) {
    for (std::size_t i = 0; i < set.count; ++i) any = any || counts_[set.first + i] >= most;
  } else {
    for (const std::int32_t column : set.list) any = any || counts_[static_cast<std::size_t>(column)] >= most;
  }
  return any;
}

void SignalHistory::wait(const ColumnSet& set, std::int64_t count, Rows& time, Rows& scratch) {
  const std::size_t s = slot(count);
  if (unordered_[s] == count) throw NotApplicable{"several ops raise a signal in an order that depends on their times"};
  waited_for_[s] = count;
  time.max_into(latest_[s], set, scratch);
}

void SignalHistory::raise(const ColumnSet& set, const Rows& time, Rows& scratch) {
  (void)scratch;
  bool together = set.list.empty() && set.count > 0;
  if (together) {
    const std::int64_t count = counts_[set.first];
    for (std::size_t i = 0; i < set.count; ++i) together = together && counts_[set.first + i] == count;
  }
  if (together) {
    const std::int64_t count = counts_[set.first] + 1;
    Rows& latest = latest_[slot(count)];
    const bool disorder =
        count > 1 && ticks::any_less(time.row(0), latest_[slot(count - 1)].row(0) + set.first, set.count);
    if (!disorder) {
      for (std::size_t r = 0; r < latest.rows(); ++r) std::copy_n(time.row(r), set.count, latest.row(r) + set.first);
      for (std::size_t i = 0; i < set.count; ++i) counts_[set.first + i] = count;
      return;
    }
  }
  for (std::size_t i = 0; i < set.count; ++i) {
    raise_one(set.list.empty() ? set.first + i : static_cast<std::size_t>(set.list[i]), time, i);
  }
}

void SignalHistory::raise_one(std::size_t column, const Rows& time, std::size_t i) {
  const std::int64_t count = ++counts_[column];
  Rows& latest = latest_[slot(count)];
  if (count > 1 && time.row(0)[i] < latest_[slot(count - 1)].row(0)[column]) {
    note_disorder(count, column, time.row(0)[i]);
    const Rows& before = latest_[slot(count - 1)];
    for (std::size_t r = 0; r < latest.rows(); ++r) latest.row(r)[column] = before.row(r)[column];
    return;
  }
  for (std::size_t r = 0; r < latest.rows(); ++r) latest.row(r)[column] = time.row(r)[i];
}

/// The count-th raise was earlier than those before it, so their numbers are not those in time.
void SignalHistory::note_disorder(std::int64_t count, std::size_t column, double time) {
  for (std::int64_t before = count - 1; before > 0; --before) {
    if (before <= count - static_cast<std::int64_t>(latest_.size())) {
      throw NotApplicable{"several ops raise a signal in an order that depends on their times"};
    }
    const std::size_t s = slot(before);
    if (latest_[s].row(0)[column] <= time) return;
    if (waited_for_[s] == before) {
      throw NotApplicable{"several ops raise a signal in an order that depends on their times"};
    }
    unordered_[s] = before;
  }
}

void SignalHistory::skip(const std::vector<std::int64_t>& raises) {
  const std::vector<Rows> before = latest_;
  const auto depth = static_cast<std::int64_t>(latest_.size());
  for (std::size_t c = 0; c < counts_.size(); ++c) {
    const std::int64_t count = counts_[c];
    counts_[c] += raises[c];
    for (std::int64_t back = 0; back < depth && back < count; ++back) {
      const Rows& from = before[slot(count - back)];
      Rows& to = latest_[slot(counts_[c] - back)];
      for (std::size_t r = 0; r < to.rows(); ++r) to.row(r)[c] = from.row(r)[c];
    }
  }
}

}  // namespace orrery
