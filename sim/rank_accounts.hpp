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

/// For how long at least one of some stretches of time is under way. They come in the order of their begins: with their
/// end, or open until they are left. Without branches, which nobody could predict.
class Cover {
 public:
  void add(Ticks begin, Ticks end) {
    if (__builtin_expect_with_probability(open_ == 0, 1, 0.999))
      sum_ += std::max<Ticks>(end - std::max(begin, until_), 0);
    until_ = std::max(until_, end);
  }
  void enter(Ticks now) { sum_ -= std::max(now, until_) & mask(open_++ == 0); }
  void leave(Ticks now) {
    until_ = std::max(until_, now);
    sum_ += until_ & mask(--open_ == 0);
  }

  /// Once nothing is open any more.
  Ticks sum() const { return sum_; }

 private:
  static Ticks mask(bool condition) { return -static_cast<Ticks>(condition); }

  Ticks sum_ = 0;    // up to until_ while nothing is open, else less what is under way since then
  Ticks until_ = 0;  // where the stretches with an end lead to
  std::int64_t open_ = 0;
};

/// How long communication of a rank is under way, and how long communication or compute.
class alignas(64) RankClock {
 public:
  void compute(Ticks begin, Ticks end) { any_.add(begin, end); }
  void enter_compute(Ticks now) { any_.enter(now); }
  void leave_compute(Ticks now) { any_.leave(now); }
  void comm(Ticks begin, Ticks end) {
    comm_.add(begin, end);
    any_.add(begin, end);
  }
  void enter_comm(Ticks now) {
    comm_.enter(now);
    any_.enter(now);
  }
  void leave_comm(Ticks now) {
    comm_.leave(now);
    any_.leave(now);
  }

  Ticks comm() const { return comm_.sum(); }
  Ticks any() const { return any_.sum(); }

 private:
  Cover comm_, any_;
};

/// Times of all ranks by account. Ops are booked when they begin if their end is known by then, else when they end.
class Accounts {
 public:
  Accounts(Rank ranks, std::span<const Account> accounts)
      : accounts_(accounts.begin(), accounts.end()),
        clocks_(static_cast<std::size_t>(ranks)),
        kinds_(accounts.size()),
        busy_(clocks_.size() * accounts.size()),
        bounds_(accounts.size()) {}

  RankClock& clock(Rank rank) { return clocks_[static_cast<std::size_t>(rank)]; }
  const RankClock& clock(Rank rank) const { return clocks_[static_cast<std::size_t>(rank)]; }

  void begin(std::uint16_t account, Ticks now) {
    Bounds& bounds = bounds_[account];
    bounds.first_begin = std::min(bounds.first_begin, now);
  }
  void add(Rank rank, std::uint16_t account, Ticks begin, Ticks end) {
    busy_[static_cast<std::size_t>(rank) * kinds_ + account] += end - begin;
    Bounds& bounds = bounds_[account];
    bounds.last_end = std::max(bounds.last_end, end);
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
  std::size_t kinds_;        // of accounts
  std::vector<Ticks> busy_;  // by rank and account
  std::vector<Bounds> bounds_;
};

}  // namespace orrery
