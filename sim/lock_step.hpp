// The fast way of the dependency tier, for programs whose ranks all run the same ops (of different lengths): which op
// of which rank an op waits for is then the same for all ranks but for the rank's number. So no signals are kept, only
// the ends of the latest ops; and where an op waits for near ranks alone, a tile of ranks can run many steps ahead of
// the others while its times stay in the cache.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <vector>

#include "sim/dependency_engine.hpp"
#include "sim/tick_vectors.hpp"

namespace orrery {

class DependencyEngine::LockStep {
 public:
  explicit LockStep(DependencyEngine& engine);

  /// Throws NotInLockStep if the program is not one of these, or TooShallow.
  void run();

 private:
  using Ordinal = std::int64_t;  // of the ops that are worked off, from 0
  static constexpr Ordinal none = -1;

  /// The end of an op, `distance` ranks away.
  struct Source {
    Ordinal op = none;
    std::int32_t distance = 0;  // at most half of the ranks, in either direction
  };
  struct Segment {
    std::int64_t first = 0, end = 0;  // ranks
    std::int32_t op = 0;              // index into CompiledBlock::ops
  };
  struct Step {
    std::shared_ptr<OpenBlock> block;
    Ordinal number = none;
    Ordinal before = none;  // on its stream
    std::array<Source, Op::max_waits> waits;
    int wait_count = 0;
    std::vector<Segment> segments;  // none: the end of `before` is repeated, lest it be forgotten
  };
  /// Ranks.
  struct Range {
    std::int64_t first = 0, end = 0;
  };

  void add_block(std::int64_t number, std::vector<Step>& steps);
  void add_step(const std::shared_ptr<OpenBlock>& block, std::int32_t place, std::vector<Step>& steps);
  void repeat_old_ends(const std::shared_ptr<OpenBlock>& block, std::vector<Step>& steps);
  void raise(RelativeSignal signal, Ordinal op);
  Source source(const OpenBlock& block, const CompiledWait& wait) const;
  void check_age(Ordinal op) const;
  static bool takes_no_time(const CompiledBlock& block, const CompiledOp& op);

  void run_band(std::int64_t& number);
  void run_tile(std::vector<Range>& ranges, std::int64_t first, std::int64_t end, std::size_t from_step);
  Range trimmed(const Step& step, const std::vector<Range>& ranges) const;
  void run_between(const std::vector<Range>& left, const std::vector<Range>& right, std::int64_t round);

  void work(const Step& step, Range ranks);
  void work_segment(const Step& step, const Segment& segment, std::int64_t first, std::size_t n);
  void note_intervals(const Step& step, const Segment& segment, Range ranks);
  void note_comm(const double* begins, const double* ends, Range ranks, std::int32_t distance);
  void count_intervals();
  /// What the step waits for, from this rank on.
  ticks::Sources sources_of(const Step& step, std::int64_t first);
  Ordinal depth() const { return static_cast<Ordinal>(depth_); }
  /// Of an end that is waited for.
  Ordinal greatest_age() const { return depth() - depth() / 4; }
  double* end_of(Ordinal op, std::int64_t rank) {
    const std::size_t slot = op < 0 ? depth_ : static_cast<std::size_t>(op) & (depth_ - 1);
    return ends_.data() + slot * (rows_ + 1) * apart_ + rank;
  }
  double* begin_of(Ordinal op, std::int64_t rank) { return end_of(op, rank) + rows_ * apart_; }

  DependencyEngine& engine_;
  const std::int64_t n_;  // ranks
  const std::size_t rows_;
  const std::size_t apart_;  // from one row to the next; not a multiple of what falls into one place of the cache
  const std::size_t depth_;  // ends that are remembered
  ticks::Vector ends_;       // by op modulo depth_, row, rank, with a last row for the begins; then zeros

  Ordinal next_ = 0;
  std::array<Ordinal, streams_per_rank> last_on_stream_;
  std::array<int, streams_per_rank> phase_on_stream_;
  struct Raise {
    Ordinal op = none;
    std::int32_t distance = 0;  // from the rank of the op to that of the signal
  };
  struct Raises {
    std::int64_t count = 0;
    std::array<Raise, 64> latest;  // by count
  };
  std::vector<Raises> raises_;  // by signal

  std::vector<Step> band_;
  std::vector<Step> ahead_;       // of the block after the band, which needs the whole of it
  std::int64_t ahead_reach_ = 0;  // how far away the farthest end lies that one of its steps needs
  std::int64_t reach_ = 0;        // likewise, of the band
  ticks::Vector taken_, zeros_;
  // For the accounts of communication: what has been worked off since they were brought up to date.
  std::vector<CommAccounts::Intervals> intervals_;
  Ordinal first_interval_ = none;  // of a step
  std::vector<std::vector<double>> startup_ends_;
};

}  // namespace orrery
