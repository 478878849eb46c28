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
/// end, or open until they are left. What is counted is the gaps between them, which takes the fewest steps: without
/// branches, which nobody could predict.
class Cover {
 public:
  bool is_open() const { return open_ > 0; }
  void add(Ticks begin, Ticks end) {
    if (is_open()) {
      until_ = std::max(until_, end);
    } else {
      add_alone(begin, end);
    }
  }
  /// Precondition: nothing is open.
  void add_alone(Ticks begin, Ticks end) {
    gaps_ += std::max<Ticks>(begin - until_, 0);
    until_ = std::max(until_, end);
  }
  void enter(Ticks now) { gaps_ += std::max<Ticks>(now - until_, 0) & -static_cast<Ticks>(open_++ == 0); }
  void leave(Ticks now) {
    until_ = std::max(until_, now);
    --open_;
  }

  /// Once nothing is open any more.
  Ticks sum() const { return until_ - gaps_; }

 private:
  Ticks gaps_ = 0;   // up to until_, or to where what is open began
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
    if (any_.is_open()) {
      comm_.add(begin, end);
      any_.add(begin, end);
    } else {  // so is comm_ not
      comm_.add_alone(begin, end);
      any_.add_alone(begin, end);
    }
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
    if (now < bounds.first_begin) [[unlikely]]
      bounds.first_begin = now;
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
