// The program of a training step or a forward pass: schedule, head exchange and dense work of all layers, generated
// block by block. A visit of a layer is a begin block, one block per step of the schedule, and an end block.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "scenarios/block_writer.hpp"
#include "scenarios/geometry.hpp"
#include "scenarios/implementation.hpp"
#include "scenarios/pattern.hpp"
#include "scenarios/schedule.hpp"
#include "sim/program.hpp"

namespace orrery {

struct AttentionProgramInput {
  Geometry geometry;
  Implementation implementation;
  Profile profile;
  GpuPeaks peaks;
  ClockCap clock_cap = Regime::sustained;
  LinkTimings links{};
  double element_bytes = 2;
  DenseShape dense;                 // per rank and layer, forward
  std::vector<Mask> masks;          // by pattern class
  std::vector<Mask> value_masks{};  // of patterns with gated skips: whose values are read
  std::vector<Mask> halo_masks{};   // as these two, of what a halo of whole windows fetches
  std::vector<Mask> halo_value_masks{};
  std::vector<bool> gates{};        // by pattern class: a gated skip of it reads values; empty: of none
  std::vector<int> class_of_layer;  // one entry per layer
  const ScheduleKind* schedule = nullptr;
  int inner_ring = 1;
  bool backward = false;
  bool plain_window = false;  // the pattern is one window
};

/// The masks of the pattern's classes, for the implementation that `input` has.
void set_masks(AttentionProgramInput& input, const Pattern& pattern, Index tokens, bool causal,
               const std::vector<Index>& documents);

class AttentionProgram final : public KernelProgram {
 public:
  explicit AttentionProgram(AttentionProgramInput input);
  AttentionProgram(const AttentionProgram&) = delete;  // the schedule refers to the input in here
  AttentionProgram& operator=(const AttentionProgram&) = delete;

  Rank ranks() const override { return input_.geometry.ranks(); }
  std::int64_t blocks() const override { return block_of_visit_.back(); }
  std::span<const std::string> signals() const override { return signals_; }
  std::span<const std::string> categories() const override { return category_names(); }
  std::span<const std::string> phases() const override;
  void generate(Rank rank, std::int64_t block, OpBuffer& buffer) const override;
  void partition(std::int64_t block, std::vector<RankSet>& sets) const override;
  std::int64_t shapes() const override { return shapes_; }
  std::int64_t shape(std::int64_t block) const override;
  std::span<const std::int64_t> counts_before(std::int64_t block) const override;
  std::string describe(Rank rank, std::int64_t block, std::int32_t index) const override;

  void cap_clock(ClockCap cap) override { cost_.clock_cap = cap; }
  KernelWork kernel_work(Rank rank) const override { return work_of(rank).kernels; }
  std::vector<KernelWork> kernel_work_of_ranks() const override;

  /// The actions behind the ops of a block, in the same order; optionally adds up their work.
  std::vector<Action> actions(Rank rank, std::int64_t block, OpBuffer& buffer, WorkTotals* totals = nullptr) const;

  /// Work of one rank over the whole program, summed up over the blocks of a visit of each kind. For all ranks that is
  /// ranks x steps blocks; flops_of gives the FLOPs of it from the counts the schedule has made already.
  WorkTotals work_of(Rank rank) const;
  struct FlopTotals {
    Flops useful, executed;
  };
  FlopTotals flops_of(Rank rank) const;

  int steps(const Visit& visit) const { return schedule_->steps(visit); }
  /// For programs that attention is a part of: the blocks 0 .. steps + 1 of a visit they made, and its raises.
  /// `places`: the ranks of the cluster that those of this program are.
  void write_block(Rank rank, const Visit& visit, int block_in_visit, RankSet places, OpBuffer& buffer,
                   WorkTotals* totals = nullptr) const;
  SignalCounts raises(const Visit& visit) const;
  std::int64_t block_of_step(const Visit& visit, int step) const {
    return block_of_visit_[static_cast<std::size_t>(visit.number)] + 1 + step;
  }

  const AttentionProgramInput& input() const { return input_; }
  std::span<const Visit> visits() const { return visits_; }
  /// Visits of one phase and pattern class do the same: the first of them, and how many there are.
  struct VisitKind {
    std::size_t first = 0;
    int count = 0;
    std::int64_t first_shape = 0;  // of its blocks
  };
  std::span<const VisitKind> visit_kinds() const { return visit_kinds_; }

 private:
  RankSet all_ranks() const { return {0, 1, ranks()}; }
  BlockWriter writer_of(const Visit& visit, OpBuffer& buffer, RankSet places) const;
  void partition_by_work(std::int64_t block, std::vector<RankSet>& sets) const;
  void write(Rank rank, std::int64_t block, BlockWriter& writer, const Visit& visit, int block_in_visit) const;
  void write_begin(Rank rank, const Visit& visit, BlockWriter& writer) const;
  void write_end(Rank rank, const Visit& visit, BlockWriter& writer) const;
  void write_exchange(Rank rank, const Visit& visit, bool into_heads, BlockWriter& writer) const;
  int exchange_messages(Phase phase, bool into_heads) const;
  WorkTotals work_of_visit(Rank rank, const Visit& visit) const;
  const Visit& visit_of(std::int64_t block) const;

  AttentionProgramInput input_;
  std::unique_ptr<AttentionCosts> costs_ = std::make_unique<AttentionCosts>();
  CostContext cost_;
  std::unique_ptr<Schedule> schedule_;
  std::vector<std::string> signals_;
  std::vector<Visit> visits_;
  std::vector<VisitKind> visit_kinds_;
  std::vector<std::int64_t> block_of_visit_;  // first block of each visit, and the number of blocks
  // Visits of one phase and pattern class are the same but for the counts before them.
  std::vector<std::int64_t> shape_of_visit_;  // of its first block
  std::int64_t shapes_ = 0;
};

}  // namespace orrery
