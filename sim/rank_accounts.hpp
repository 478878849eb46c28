// Who did what for how long: the time accounts behind RankTotals and PhaseTotals.
#pragma once

#include <algorithm>

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

/// First start, last end and sums of one phase. Ops are booked as they happen, so times only grow.
class PhaseClock {
 public:
  void start(Ticks now) {
    if (!seen_) totals_.start = now;
    seen_ = true;
  }
  void end(Stream stream, Ticks begin, Ticks now) {
    totals_.end = now;
    (stream == Stream::compute ? totals_.compute_busy : totals_.comm_busy) += now - begin;
  }
  const PhaseTotals& totals() const { return totals_; }

 private:
  PhaseTotals totals_;
  bool seen_ = false;
};

}  // namespace orrery
