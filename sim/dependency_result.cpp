// The other half of the dependency tier: jumping over repetitions, and the sums at the end.
#include <algorithm>
#include <utility>

#include "sim/dependency_engine.hpp"
#include "sim/tick_vectors.hpp"

namespace orrery {

template <class Time, class Sum>
void DependencyEngine::each(Time time, Sum sum) {
  for (Rows& ends : stream_end_) {
    for (std::size_t r = 0; r < rows_; ++r) {
      for (std::size_t c = 0; c < n_; ++c) time(ends.row(r)[c], r);
    }
  }
  for (SignalHistory& signal : signals_) signal.each_time(time);
  for (double& host : host_time_) time(host, 0);
  const auto plain_time = [&](double& value) { time(value, 0); };
  comm_.each(plain_time, sum);
  for (PhaseBounds& bounds : phases_) plain_time(bounds.last_end);
  const auto each_sum = [&](std::vector<double>& sums) { std::for_each(sums.begin(), sums.end(), sum); };
  for (auto& [key, kind] : kinds_) {
    each_sum(kind.fixed.steps());
    each_sum(kind.varying);
    for (auto& [flight, count] : kind.flights) each_sum(count.steps());
  }
  for (auto& [key, flight] : flights_) each_sum(flight.sent.steps());
}

DependencyEngine::Snapshot DependencyEngine::take_snapshot(std::int64_t number) {
  Snapshot snapshot;
  snapshot.number = number;
  each(
      [&](double& time, std::size_t row) {
        snapshot.times.push_back(time);
        snapshot.rows.push_back(row);
      },
      [&](double& sum) { snapshot.sums.push_back(sum); });
  for (const SignalHistory& signal : signals_) snapshot.counts.push_back(signal.counts());
  return snapshot;
}

/// If the blocks from the last one of this shape up to here come again, and everything stands as it did then but for a
/// shift in time, then so it will after each further repetition: (max, +) systems are linear. What has not moved must
/// lie so far back that nothing can be waiting for it.
void DependencyEngine::try_to_jump(std::int64_t& number) {
  const std::int64_t blocks = blocks_.blocks();
  const bool noisy = perturbation_ != nullptr && perturbation_->noisy();
  if (noisy || !stalled_.empty() || program_.shapes() == blocks || number == 0) return;
  const std::int64_t shape = program_.shape(number);
  if (shape == program_.shape(number - 1) + 1) return;  // in the middle of something
  const auto known = snapshots_.find(shape);
  std::int64_t repetitions = 0;
  if (known != snapshots_.end()) {
    const std::int64_t before = known->second.number, period = number - before;
    std::int64_t same = 0;
    while (number + same < blocks && program_.shape(number + same) == program_.shape(before + same % period)) ++same;
    repetitions = same / period;
    if (repetitions > 0 && jump(known->second, repetitions)) {
      number += repetitions * period;
      snapshots_.clear();
      return;
    }
    if (repetitions == 0) {
      snapshots_.erase(known);
      return;
    }
  }
  snapshots_.insert_or_assign(shape, take_snapshot(number));
}

bool DependencyEngine::jump(const Snapshot& before, std::int64_t repetitions) {
  const Snapshot now = take_snapshot(0);
  if (now.times.size() != before.times.size() || now.sums.size() != before.sums.size()) return false;
  // The ends of the streams come first; those that moved are the ones in use.
  std::vector<double> shift(rows_, -1);
  double earliest = ticks::largest;
  for (std::size_t i = 0; i < now.times.size(); ++i) {
    const double moved = now.times[i] - before.times[i];
    const std::size_t row = now.rows[i];
    if (i < streams_per_rank * rows_ * n_ && row == 0 && moved > 0) earliest = std::min(earliest, before.times[i]);
    if (shift[row] < 0 && moved > 0) shift[row] = moved;
  }
  for (std::size_t i = 0; i < now.times.size(); ++i) {
    const double moved = now.times[i] - before.times[i];
    const bool with_the_rest = moved == std::max(shift[now.rows[i]], 0.0);
    const bool left_behind = moved == 0 && (now.rows[i] > 0 || now.times[i] <= earliest);
    if (!with_the_rest && !left_behind) return false;
  }
  std::size_t i = 0, j = 0;
  const auto times = static_cast<double>(repetitions);
  each([&](double& time, std::size_t) { time += times * (now.times[i] - before.times[i]), ++i; },
       [&](double& sum) { sum += times * (now.sums[j] - before.sums[j]), ++j; });
  for (std::size_t s = 0; s < signals_.size(); ++s) {
    std::vector<std::int64_t> raises = now.counts[s];
    for (std::size_t c = 0; c < raises.size(); ++c) raises[c] = (raises[c] - before.counts[s][c]) * repetitions;
    if (!raises.empty()) signals_[s].skip(raises);
  }
  return true;
}

SimulationResult DependencyEngine::result() {
  const std::int64_t ranks = blocks_.ranks();
  for (const Rows& ends : stream_end_) {
    for (std::size_t c = 0; c < n_; ++c) {
      if (!(ends.row(0)[c] < ticks::largest)) throw NotApplicable{"simulated time goes beyond 2^53 ps"};
    }
  }
  SimulationResult result;
  result.events = evaluations_;
  result.critical_path.by_category.resize(row_of_category_.size());
  std::size_t last_column = 0, last_stream = 0;
  double end = -1;
  for (std::int64_t rank = 0; rank < ranks; ++rank) {
    const auto column = static_cast<std::size_t>(columns_.column_of(static_cast<Rank>(rank)));
    for (std::size_t stream = 0; stream < streams_per_rank; ++stream) {
      if (!(stream_end_[stream].row(0)[column] > end)) continue;
      end = stream_end_[stream].row(0)[column];
      last_column = column;
      last_stream = stream;
    }
  }
  comm_.finish(end);
  check_comm_order();
  if (ranks > 0) {
    result.end = static_cast<Ticks>(end);
    const auto part = [&](std::size_t row) {
      return static_cast<Ticks>(stream_end_[last_stream].row(row)[last_column]);
    };
    if (has_launches_) result.critical_path.launch = part(rows_ - 1);
    Ticks rest = result.end - result.critical_path.launch;
    Ticks* remainder = nullptr;
    for (std::size_t c = 0; c < row_of_category_.size(); ++c) {
      Ticks& share = result.critical_path.by_category[c];
      if (row_of_category_[c] < 0) remainder = &share;
      if (row_of_category_[c] > 0) share = part(static_cast<std::size_t>(row_of_category_[c]));
      rest -= share;
    }
    if (remainder != nullptr) *remainder = rest;
  }
  add_ranks(result);
  add_phases(result);
  add_messages(result);
  return result;
}

/// By column.
std::vector<double> DependencyEngine::busy(const OpKind& kind) const {
  std::vector<double> busy = kind.varying;
  busy.resize(n_);
  kind.fixed.each([&](std::size_t column, double time) { busy[column] += time; });
  for (const auto& [flight, count] : kind.flights) {
    const auto& [messages, source] = flight;
    count.each([&, flight_time = messages->whole.data(), distance = source](std::size_t column, double times) {
      if (times > 0) busy[column] += times * flight_time[columns_.shifted(column, distance)];
    });
  }
  return busy;
}

void DependencyEngine::add_ranks(SimulationResult& result) const {
  const Rank ranks = blocks_.ranks();
  result.ranks.resize(static_cast<std::size_t>(ranks));
  for (RankTotals& totals : result.ranks) totals.category_busy.resize(row_of_category_.size());
  for (const auto& [key, kind] : kinds_) {
    const auto [stream, category, phase] = key;
    const std::vector<double> time = busy(kind);
    for (Rank rank = 0; rank < ranks; ++rank) {
      RankTotals& totals = result.ranks[static_cast<std::size_t>(rank)];
      const auto ticks = static_cast<Ticks>(time[static_cast<std::size_t>(columns_.column_of(rank))]);
      totals.stream_busy[static_cast<std::size_t>(stream)] += ticks;
      totals.category_busy[static_cast<std::size_t>(category)] += ticks;
    }
  }
  for (Rank rank = 0; rank < ranks; ++rank) {
    const auto column = static_cast<std::size_t>(columns_.column_of(rank));
    RankTotals& totals = result.ranks[static_cast<std::size_t>(rank)];
    totals.compute = totals.stream_busy[static_cast<std::size_t>(Stream::compute)];
    totals.comm = static_cast<Ticks>(comm_.comm(column));
    totals.exposed_comm = static_cast<Ticks>(comm_.exposed(column, static_cast<double>(totals.compute)));
    totals.idle = result.end - totals.compute - totals.exposed_comm;
  }
}

void DependencyEngine::add_phases(SimulationResult& result) const {
  const std::size_t phases = phases_.size();
  result.phases.resize(phases);
  std::vector<Ticks> all(n_ * phases * 2);  // by column and phase: compute, transfers
  for (const auto& [key, kind] : kinds_) {
    const auto [stream, category, phase] = key;
    const std::size_t is_transfer = stream == static_cast<int>(Stream::compute) ? 0 : 1;
    const std::vector<double> time = busy(kind);
    for (std::size_t c = 0; c < n_; ++c) {
      all[(c * phases + static_cast<std::size_t>(phase)) * 2 + is_transfer] += static_cast<Ticks>(time[c]);
    }
  }
  for (std::size_t p = 0; p < phases; ++p) {
    PhaseTotals& totals = result.phases[p];
    if (phases_[p].last_end >= 0) {
      totals.start = static_cast<Ticks>(phases_[p].first_begin);
      totals.end = static_cast<Ticks>(phases_[p].last_end);
    }
    for (Rank rank = 0; rank < blocks_.ranks(); ++rank) {
      const Ticks* const of_rank = &all[(static_cast<std::size_t>(columns_.column_of(rank)) * phases + p) * 2];
      totals.compute_busy += to_seconds(of_rank[0]);
      totals.comm_busy += to_seconds(of_rank[1]);
    }
  }
}

void DependencyEngine::add_messages(SimulationResult& result) const {
  result.links.resize(cluster_.links().size());
  for (const auto& [key, flight] : flights_) {
    const auto [route, size] = key;
    std::vector<double> sent;
    flight.sent.each([&](std::size_t, double messages) { sent.push_back(messages); });
    for (Rank rank = 0; rank < blocks_.ranks(); ++rank) {
      const auto column = static_cast<std::size_t>(columns_.column_of(rank));
      if (!(sent[column] > 0)) continue;
      const Bytes bytes = Bytes::from_si(sent[column] * size);
      const Rank to = blocks_.wrap(rank, blocks_.routes().distance(route));
      result.ranks[static_cast<std::size_t>(rank)].sent += bytes;
      result.ranks[static_cast<std::size_t>(to)].received += bytes;
      for (const LinkId link : blocks_.routes().at(route, rank).route->links) {
        result.links[static_cast<std::size_t>(link)].bytes += bytes;
        result.links[static_cast<std::size_t>(link)].busy += static_cast<Ticks>(sent[column] * flight.moving[column]);
      }
    }
  }
}

}  // namespace orrery
