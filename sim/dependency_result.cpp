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
  for (auto& [key, sums] : sums_) {
    for (double& end : sums.last_end) time(end, 0);
    for (double& busy : sums.busy) sum(busy);
  }
  for (double& compute : compute_) sum(compute);
  for (std::vector<double>& bytes : route_bytes_) std::for_each(bytes.begin(), bytes.end(), sum);
  for (std::vector<double>& moving : route_moving_) std::for_each(moving.begin(), moving.end(), sum);
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
  if (perturbation_ != nullptr || !stalled_.empty() || program_.shapes() == blocks || number == 0) return;
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
  const Rows& compute_end = stream_end_[static_cast<std::size_t>(Stream::compute)];
  const std::vector<double> ends(n_, end);
  comm_.add_gap({0, n_, n_}, compute_end.row(0), ends.data());
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
  add_links(result);
  return result;
}

void DependencyEngine::add_ranks(SimulationResult& result) const {
  const Rank ranks = blocks_.ranks();
  result.ranks.resize(static_cast<std::size_t>(ranks));
  for (Rank rank = 0; rank < ranks; ++rank) {
    const auto column = static_cast<std::size_t>(columns_.column_of(rank));
    RankTotals& totals = result.ranks[static_cast<std::size_t>(rank)];
    totals.compute = static_cast<Ticks>(compute_[column]);
    totals.comm = static_cast<Ticks>(comm_.comm(column));
    totals.exposed_comm = static_cast<Ticks>(comm_.exposed(column));
    totals.idle = result.end - totals.compute - totals.exposed_comm;
    totals.category_busy.resize(row_of_category_.size());
    for (const auto& [key, sums] : sums_) {
      const auto [stream, category, phase] = key;
      totals.stream_busy[static_cast<std::size_t>(stream)] += static_cast<Ticks>(sums.busy[column]);
      totals.category_busy[static_cast<std::size_t>(category)] += static_cast<Ticks>(sums.busy[column]);
    }
    for (std::size_t route = 0; route < route_bytes_.size(); ++route) {
      const Bytes bytes = Bytes::from_si(route_bytes_[route][column]);
      const Rank to = blocks_.wrap(rank, blocks_.routes().distance(static_cast<RouteTable::Column>(route)));
      totals.sent += bytes;
      result.ranks[static_cast<std::size_t>(to)].received += bytes;
    }
  }
}

void DependencyEngine::add_phases(SimulationResult& result) const {
  const std::size_t phases = program_.phases().size();
  result.phases.resize(phases);
  std::vector<bool> seen(phases);
  std::vector<Ticks> busy(n_ * phases * 2);  // by column and phase: compute, transfers
  for (const auto& [key, sums] : sums_) {
    const auto [stream, category, phase] = key;
    const auto p = static_cast<std::size_t>(phase);
    PhaseTotals& totals = result.phases[p];
    const auto first = static_cast<Ticks>(*std::min_element(sums.first_begin.begin(), sums.first_begin.end()));
    totals.start = seen[p] ? std::min(totals.start, first) : first;
    seen[p] = true;
    totals.end =
        std::max(totals.end, static_cast<Ticks>(*std::max_element(sums.last_end.begin(), sums.last_end.end())));
    const std::size_t is_transfer = stream == static_cast<int>(Stream::compute) ? 0 : 1;
    for (std::size_t c = 0; c < n_; ++c) busy[(c * phases + p) * 2 + is_transfer] += static_cast<Ticks>(sums.busy[c]);
  }
  for (std::size_t p = 0; p < phases; ++p) {
    for (Rank rank = 0; rank < blocks_.ranks(); ++rank) {
      const Ticks* const of_rank = &busy[(static_cast<std::size_t>(columns_.column_of(rank)) * phases + p) * 2];
      result.phases[p].compute_busy += to_seconds(of_rank[0]);
      result.phases[p].comm_busy += to_seconds(of_rank[1]);
    }
  }
}

void DependencyEngine::add_links(SimulationResult& result) const {
  result.links.resize(cluster_.links().size());
  for (std::size_t route = 0; route < route_bytes_.size(); ++route) {
    for (Rank rank = 0; rank < blocks_.ranks(); ++rank) {
      const auto column = static_cast<std::size_t>(columns_.column_of(rank));
      if (!(route_bytes_[route][column] > 0)) continue;
      const CachedRoute& path = blocks_.routes().at(static_cast<RouteTable::Column>(route), rank);
      for (const LinkId link : path.route->links) {
        result.links[static_cast<std::size_t>(link)].bytes += Bytes::from_si(route_bytes_[route][column]);
        result.links[static_cast<std::size_t>(link)].busy += static_cast<Ticks>(route_moving_[route][column]);
      }
    }
  }
}

}  // namespace orrery
