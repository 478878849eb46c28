// The program of a whole step: layers with all their matrices around the attention of AttentionProgram, embedding,
// head, loss and optimizer, over data, tensor, pipeline and context parallel ranks. Generated block by block like
// attention alone.
//
// A rank works off slots (one microbatch through one chunk of layers, forward or backward; see pipeline_order.hpp). A
// slot is a sequence of visits: what precedes the layers, each layer (with recomputation: forward again, then
// backward), what follows them. A visit is one block, or for a layer the blocks of its attention.
//
// Streams: tensor parallelism and the decode step's reduction on `collective`, FSDP on `copy_in`, pipeline on
// `network`. Neglected: a collective waits for its neighbours on the ring, not for all members, which do the same at
// the same time anyway; what only streams through HBM (embedding, optimizer) and transfers do not slow each other.
#pragma once

#include <map>
#include <memory>
#include <span>
#include <string>
#include <tuple>
#include <vector>

#include "scenarios/attention_program.hpp"
#include "scenarios/pipeline_order.hpp"
#include "scenarios/rank_groups.hpp"
#include "scenarios/step_costs.hpp"

namespace orrery {

struct StepProgramInput {
  /// One sequence (or a microbatch of them) on the context ranks of one tensor rank: its share of the heads.
  AttentionProgramInput attention;
  MemoryInput shape;
  FlopsPerSecond fp8_rate{};  // see StepCostInput
  Placement placement = usual_placement;
  Rank node_size = 1;  // ranks that share a fast network
  /// Data-parallel replicas that each simulated one stands for: they do the same, so a few show what all do. Their
  /// collectives count all members.
  int folds = 1;
  /// The same of the sequence: `attention` is that of a ring of so many times fewer groups, and tokens, than `shape`,
  /// and each of its steps stands for `steps` of them: it computes and sends as much.
  int context_folds = 1;
  int steps = 1;
  Seconds local_latency, node_latency;  // of a hop inside a node, between nodes
};

std::span<const std::string> step_category_names();

/// One turn of a stage's work: a layer of a microbatch, or what precedes or follows the layers of a chunk.
struct StepVisit {
  enum class Kind : std::uint8_t { begin, forward, recompute, backward, end };
  Kind kind = Kind::begin;
  int microbatch = 0;
  int layer = 0;        // of the model
  bool forward = true;  // pass of the slot it is in
  bool last_chunk = false;
  std::int64_t first_block = 0;
};

class StepProgram final : public KernelProgram {
 public:
  /// Throws std::invalid_argument if degrees, layers and microbatches do not fit together.
  explicit StepProgram(StepProgramInput input);

  Rank ranks() const override { return grid_.ranks(); }
  std::int64_t blocks() const override { return slot_blocks_ * slots_; }
  std::span<const std::string> signals() const override { return signals_; }
  std::span<const std::string> categories() const override;
  std::span<const std::string> phases() const override;
  void generate(Rank rank, std::int64_t block, OpBuffer& buffer) const override;
  void partition(std::int64_t block, std::vector<RankSet>& sets) const override;
  std::int64_t shapes() const override;
  std::int64_t shape(std::int64_t block) const override;
  std::span<const std::int64_t> counts_before(std::int64_t block) const override;
  std::string describe(Rank rank, std::int64_t block, std::int32_t index) const override;

  void cap_clock(ClockCap cap) override;
  KernelWork kernel_work(Rank rank) const override;
  std::vector<KernelWork> kernel_work_of_ranks() const override;

  const StepProgramInput& input() const { return input_; }
  const AttentionProgram& attention() const { return attention_; }
  int stages() const { return degrees_.pipeline; }
  int stage_of(Rank rank) const { return grid_.at(rank, Axis::pipeline); }
  Rank first_rank(int stage) const { return grid_.moved(0, Axis::pipeline, stage); }
  /// In the order in which the stage's ranks do them.
  std::vector<StepVisit> visits_of(int stage) const;
  /// Of a step of all ranks; recomputation counts as executed only.
  AttentionProgram::FlopTotals flops_of(Rank rank) const;

 private:
  RankSet context_group_of(Rank rank) const {
    return {grid_.moved(rank, Axis::context, 0), grid_.stride(Axis::context), grid_.degree(Axis::context)};
  }
  Rank place_in_domain(const RankSet& group) const;
  using Counts = std::vector<std::int64_t>;
  using VisitKind = StepVisit::Kind;
  struct VisitPlan {
    VisitKind kind = VisitKind::begin;
    int layer = 0;
    bool use_starts = false, use_ends = false;  // of the layer's parameters
    std::int64_t first_block = 0;               // in the slot
    std::int64_t shape = 0;                     // of its first block, if there is one stage
    Counts before, before_end;                  // raises since the start of the slot, of the visit and its last block
  };
  /// A kind of slot: which layers, forward or backward, first or last of the step.
  struct SlotPlan {
    bool forward = true, first = false, last = false;
    int chunk = 0;  // of all chunks of all stages, in the order of the layers
    std::vector<VisitPlan> visits;
    Counts raised;
    std::int64_t blocks = 0;
  };
  struct Slot {
    const SlotPlan* plan = nullptr;
    int microbatch = 0;
    std::int64_t arrival = 0;  // of its input, counted at this stage
    Counts before;
  };
  class Writer;
  class VisitWriter;

  const SlotPlan& plan_of(const PipelineSlot& slot, int stage, bool first, bool last);
  void make_visits(SlotPlan& plan);
  void count_raises(SlotPlan& plan);
  void make_slots();
  void make_partition();
  int blocks_of(const VisitPlan& visit) const;
  /// Visits of a plan that are alike: of one kind and pattern, and both or neither at the first or last layer, whose
  /// parameters are gathered at other times.
  using VisitClass = std::tuple<VisitKind, int, bool, bool>;
  VisitClass class_of(const SlotPlan& plan, const VisitPlan& visit) const;
  Visit attention_visit(const VisitPlan& visit, const Counts& before) const;
  const Slot& slot_at(Rank rank, std::int64_t block) const;
  const VisitPlan* visit_at(const Slot& slot, std::int64_t block_in_slot) const;
  void write(Rank rank, const Slot& slot, const VisitPlan& visit, int block_in_visit, Counts& counts, OpBuffer& buffer,
             KernelWork* work = nullptr) const;
  KernelWork kernel_work(Rank rank, const SlotPlan& plan) const;
  void count_keys_read();
  void set_costs();
  bool decode() const { return input_.shape.pass == StepPass::decode; }
  bool training() const { return input_.shape.pass == StepPass::training; }
  bool recomputes() const;
  Flops executed_by_matrices() const;

  StepProgramInput input_;
  Degrees degrees_;
  StepCosts costs_;
  // Decode only, by pattern class and context rank: cached keys that a sequence's last token reads, and what that
  // costs.
  std::vector<std::vector<double>> keys_read_;
  std::vector<std::vector<DenseCost>> decode_attention_;
  AttentionProgram attention_;
  RankGrid grid_;
  std::vector<RingPart> tensor_, replicas_, context_;
  std::vector<std::string> signals_;
  int layers_per_chunk_ = 0;
  std::map<std::tuple<bool, int, bool, bool>, std::unique_ptr<SlotPlan>> plans_;
  std::vector<std::vector<Slot>> stages_;  // slots by stage
  std::int64_t slots_ = 0;
  std::int64_t slot_blocks_ = 0;  // of the longest; shorter ones end with empty blocks
  std::int64_t shapes_ = 0;
  std::vector<RankSet> sets_;
  std::vector<std::vector<Counts>> visit_counts_;  // one stage: by slot and visit
};

}  // namespace orrery
