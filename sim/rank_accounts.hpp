// Who did what for how long: the time accounts behind RankTotals and PhaseTotals, kept while the simulation runs.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <span>
#include <vector>

#include "sim/block_store.hpp"
#include "sim/simulate.hpp"

namespace orrery {

/// How long communication of a rank is under way, and how much of that while its compute stream stands still. A stretch
/// counts its end minus its begin, each as it comes. Without branches, which nobody could predict.
class alignas(32) RankClock {
 public:
  void enter_compute(Ticks now) {
    exposed_comm_ += now & mask(communicating_ != 0);
    not_computing_ = 0;
  }
  void leave_compute(Ticks now) {
    exposed_comm_ -= now & mask(communicating_ != 0);
    not_computing_ = ~Ticks{0};
  }
  void enter_comm(Ticks now) {
    const Ticks begin = now & mask(communicating_++ == 0);
    comm_ -= begin;
    exposed_comm_ -= begin & not_computing_;
  }
  void leave_comm(Ticks now) {
    const Ticks end = now & mask(--communicating_ == 0);
    comm_ += end;
    exposed_comm_ += end & not_computing_;
  }

  /// Once nothing is under way any more.
  Ticks comm() const { return comm_; }
  Ticks exposed_comm() const { return exposed_comm_; }

 private:
  static Ticks mask(bool condition) { return -static_cast<Ticks>(condition); }

  Ticks comm_ = 0;
  Ticks exposed_comm_ = 0;
  Ticks not_computing_ = ~Ticks{0};  // all bits or none
  std::int64_t communicating_ = 0;   // messages
};

/// Times of all ranks by account. Ops are booked as they happen, so times only grow.
class Accounts {
 public:
  Accounts(Rank ranks, std::span<const Account> accounts)
      : accounts_(accounts.begin(), accounts.end()),
        clocks_(static_cast<std::size_t>(ranks)),
        busy_(clocks_.size() * accounts.size()),
        bounds_(accounts.size()) {}

  RankClock& clock(Rank rank) { return clocks_[static_cast<std::size_t>(rank)]; }
  const RankClock& clock(Rank rank) const { return clocks_[static_cast<std::size_t>(rank)]; }

  void begin(std::uint16_t account, Ticks now) {
    Bounds& bounds = bounds_[account];
    bounds.first_begin = std::min(bounds.first_begin, now);
  }
  void end(Rank rank, std::uint16_t account, Ticks begin, Ticks now) {
    busy_[static_cast<std::size_t>(rank) * accounts_.size() + account] += now - begin;
    bounds_[account].last_end = now;
  }

  /// Fills in the times of ranks, whose end is that of the result, and phases.
  void close(std::size_t categories, std::size_t phases, SimulationResult& result) const;

 private:
  struct Bounds {
    Ticks first_begin = std::numeric_limits<Ticks>::max();
    Ticks last_end = 0;
  };

  std::vector<Account> accounts_;
  std::vector<RankClock> clocks_;
  std::vector<Ticks> busy_;  // by rank and account
  std::vector<Bounds> bounds_;
};

}  // namespace orrery
