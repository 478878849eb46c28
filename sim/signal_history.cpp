#include "sim/signal_history.hpp"

#include <algorithm>

#include "sim/tick_vectors.hpp"

namespace orrery {

void Rows::gather(const Rows& from, const ColumnSet& set) {
  resize(from.rows(), set.count());
  set.each_piece([&](std::size_t i, std::size_t column, std::size_t n) {
    for (std::size_t r = 0; r < from.rows(); ++r) std::copy_n(from.row(r) + column, n, row(r) + i);
  });
}

void Rows::scatter(Rows& to, const ColumnSet& set) const {
  set.each_piece([&](std::size_t i, std::size_t column, std::size_t n) {
    for (std::size_t r = 0; r < to.rows(); ++r) std::copy_n(row(r) + i, n, to.row(r) + column);
  });
}

void Rows::max_into(const Rows& other, const ColumnSet& set) {
  set.each_piece([&](std::size_t i, std::size_t column, std::size_t n) {
    ticks::take_greater(row(0) + i, columns_, other.row(0) + column, other.columns_, rows(), n);
  });
}

SignalHistory::SignalHistory(std::size_t depth, std::size_t rows, std::size_t columns, bool one_raiser)
    : counts_(columns),
      one_raiser_(one_raiser),
      latest_(depth, Rows(rows, columns)),
      waited_for_(depth, -1),
      unordered_(depth, -1) {}

bool SignalHistory::reached(const ColumnSet& set, std::int64_t count) const {
  bool all = greatest_count_ >= count;
  set.each_piece([&](std::size_t, std::size_t column, std::size_t n) {
    all = all && ticks::all_at_least(counts_.data() + column, count, n);
  });
  return all;
}

bool SignalHistory::forgotten(const ColumnSet& set, std::int64_t count) const {
  const std::int64_t most = count + static_cast<std::int64_t>(latest_.size());
  bool any = false;
  if (greatest_count_ >= most) set.each([&](std::size_t, std::size_t column) { any = any || counts_[column] >= most; });
  return any;
}

void SignalHistory::wait(const ColumnSet& set, std::int64_t count, Rows& time) {
  const std::size_t s = slot(count);
  if (unordered_[s] == count) throw NotApplicable{"several ops raise a signal in an order that depends on their times"};
  waited_for_[s] = count;
  time.max_into(latest_[s], set);
}

void SignalHistory::raise(const ColumnSet& set, const Rows& time) {
  set.each_piece([&](std::size_t i, std::size_t column, std::size_t n) {
    const std::int64_t count = counts_[column] + 1;
    const Rows& before = latest_[slot(count - 1)];
    const bool in_order = ticks::all_equal(counts_.data() + column, count - 1, n) &&
                          (one_raiser_ || count == 1 || !ticks::any_less(time.row(0) + i, before.row(0) + column, n));
    if (!in_order) {
      for (std::size_t j = 0; j < n; ++j) raise_one(column + j, time, i + j);
      return;
    }
    Rows& latest = latest_[slot(count)];
    for (std::size_t r = 0; r < latest.rows(); ++r) std::copy_n(time.row(r) + i, n, latest.row(r) + column);
    std::fill_n(counts_.begin() + static_cast<std::ptrdiff_t>(column), n, count);
    greatest_count_ = std::max(greatest_count_, count);
  });
}

void SignalHistory::raise_one(std::size_t column, const Rows& time, std::size_t i) {
  const std::int64_t count = ++counts_[column];
  greatest_count_ = std::max(greatest_count_, count);
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
    greatest_count_ = std::max(greatest_count_, counts_[c]);
    for (std::int64_t back = 0; back < depth && back < count; ++back) {
      const Rows& from = before[slot(count - back)];
      Rows& to = latest_[slot(counts_[c] - back)];
      for (std::size_t r = 0; r < to.rows(); ++r) to.row(r)[c] = from.row(r)[c];
    }
  }
}

}  // namespace orrery
