// Who did what for how long: the time accounts behind RankTotals and PhaseTotals.
#pragma once

#include <algorithm>
#include <vector>

#include "sim/simulate.hpp"

namespace orrery {

/// Splits a rank's time by whether compute, communication, both or neither are under way.
class RankClock {
 public:
  void enter_compute(Ticks now) { change(computing_, +1, now); }
  void leave_compute(Ticks now) { change(computing_, -1, now); }
  void enter_comm(Ticks now) { change(communicating_, +1, now); }
  void leave_comm(Ticks now) { change(communicating_, -1, now); }

  /// Fills in the four times that add up to `end`.
  void close(Ticks end, RankTotals& totals) {
    book(end);
    totals.compute = compute_;
    totals.comm = comm_;
    totals.exposed_comm = exposed_comm_;
    totals.idle = end - compute_ - exposed_comm_;
  }

 private:
  void change(std::int32_t& running, std::int32_t by, Ticks now) {
    const bool was_running = running > 0;
    running += by;
    if (was_running == (running > 0)) return;
    running -= by;
    book(now);
    running += by;
  }

  void book(Ticks now) {
    const Ticks elapsed = now - since_;
    since_ = now;
    if (computing_ > 0) compute_ += elapsed;
    if (communicating_ > 0) comm_ += elapsed;
    if (communicating_ > 0 && computing_ == 0) exposed_comm_ += elapsed;
  }

  std::int32_t computing_ = 0;
  std::int32_t communicating_ = 0;
  Ticks since_ = 0;
  Ticks compute_ = 0;
  Ticks comm_ = 0;
  Ticks exposed_comm_ = 0;
};

/// All sums of a simulation but those of links.
class Accounts {
 public:
  Accounts(Rank ranks, std::size_t categories, std::size_t phases)
      : categories_(categories),
        clocks_(static_cast<std::size_t>(ranks)),
        sent_(clocks_.size()),
        received_(clocks_.size()),
        category_busy_(clocks_.size() * categories),
        stream_busy_(clocks_.size() * streams_per_rank),
        last_end_(stream_busy_.size()),
        phase_busy_(clocks_.size() * phases * 2),
        phases_(phases) {}

  RankClock& clock(Rank rank) { return clocks_[static_cast<std::size_t>(rank)]; }

  /// Ops are booked as they happen, so times only grow.
  void start(std::uint8_t phase, Ticks now) {
    Phase& bounds = phases_[phase];
    if (!bounds.seen) bounds = {now, now, true};
  }
  void end(std::size_t stream, std::uint8_t category, std::uint8_t phase, Ticks begin, Ticks now) {
    const std::size_t rank = stream / streams_per_rank;
    const std::size_t is_transfer = stream % streams_per_rank == static_cast<std::size_t>(Stream::compute) ? 0 : 1;
    category_busy_[rank * categories_ + category] += now - begin;
    stream_busy_[stream] += now - begin;
    phase_busy_[(rank * phases_.size() + phase) * 2 + is_transfer] += now - begin;
    last_end_[stream] = now;
    phases_[phase].end = now;
  }
  void moved(Rank source, Rank destination, double bytes) {
    sent_[static_cast<std::size_t>(source)] += bytes;
    received_[static_cast<std::size_t>(destination)] += bytes;
  }

  /// The stream (rank * streams_per_rank + stream) whose last op ends last, of several the first; -1 without ranks.
  std::int64_t last_stream() const;
  /// Fills in end, ranks and phases.
  void close(SimulationResult& result);

 private:
  std::size_t categories_;
  std::vector<RankClock> clocks_;
  std::vector<double> sent_, received_;  // bytes
  std::vector<Ticks> category_busy_, stream_busy_, last_end_;
  std::vector<Ticks> phase_busy_;  // by rank and phase: compute, transfers
  struct Phase {
    Ticks start = 0, end = 0;
    bool seen = false;
  };
  std::vector<Phase> phases_;
};

}  // namespace orrery
