// Slots and visits of a step: which there are, in which order a stage works them off, and which of their blocks are
// alike.
#include <algorithm>

#include "scenarios/step_program.hpp"

namespace orrery {

int StepProgram::blocks_of(const VisitPlan& visit) const {
  if (visit.kind == VisitKind::begin || visit.kind == VisitKind::end || decode()) return 1;
  return attention_.steps(attention_visit(visit, visit.before)) + 2;
}

Visit StepProgram::attention_visit(const VisitPlan& plan, const Counts& before) const {
  Visit visit;
  visit.number = visit.layer = plan.layer;
  visit.phase = plan.kind == VisitKind::backward ? Phase::backward : Phase::forward;
  visit.pattern_class = input_.attention.class_of_layer[static_cast<std::size_t>(plan.layer)];
  visit.before.counts.assign(before.begin(), before.begin() + static_cast<std::ptrdiff_t>(attention_.signals().size()));
  return visit;
}

StepProgram::VisitClass StepProgram::class_of(const SlotPlan& plan, const VisitPlan& visit) const {
  const bool edge = visit.kind == VisitKind::begin || visit.kind == VisitKind::end;
  const int pattern = edge ? 0 : input_.attention.class_of_layer[static_cast<std::size_t>(visit.layer)];
  const bool at_first = &visit <= &plan.visits[1], at_last = visit.layer == plan.visits[plan.visits.size() - 2].layer;
  return {visit.kind, pattern, at_first, at_last};
}

void StepProgram::make_visits(SlotPlan& plan) {
  const auto add = [&](VisitKind kind, int layer, bool starts, bool ends) {
    VisitPlan visit;
    visit.kind = kind;
    visit.layer = layer;
    visit.use_starts = starts;
    visit.use_ends = ends;
    visit.before.resize(signals_.size());
    visit.first_block = plan.blocks;
    plan.blocks += blocks_of(visit);
    plan.visits.push_back(std::move(visit));
  };
  const int first = plan.chunk * layers_per_chunk_;
  const bool again = input_.shape.recompute == Recompute::full || input_.shape.recompute == Recompute::blocks;
  add(VisitKind::begin, first, false, false);
  for (int i = 0; i < layers_per_chunk_; ++i) {
    if (plan.forward) {
      add(VisitKind::forward, first + i, true, true);
    } else {
      const int layer = first + layers_per_chunk_ - 1 - i;
      if (again) add(VisitKind::recompute, layer, true, false);
      add(VisitKind::backward, layer, !again, true);
    }
  }
  add(VisitKind::end, first, false, false);
}

/// Writes the slot once, from a rank of its stage, to see what it raises.
void StepProgram::count_raises(SlotPlan& plan) {
  const Rank rank = grid_.moved(0, Axis::pipeline, plan.chunk % degrees_.pipeline);
  Slot slot{&plan, 0, 0, {}};
  Counts counts(signals_.size());
  OpBuffer buffer;
  for (VisitPlan& visit : plan.visits) {
    const int last = blocks_of(visit) - 1;
    visit.before = visit.before_end = counts;
    buffer.begin(0);
    write(rank, slot, visit, 0, counts, buffer);
    visit.before_end = counts;
    if (last > 0) write(rank, slot, visit, last, counts, buffer);
  }
  plan.raised = counts;
}

const StepProgram::SlotPlan& StepProgram::plan_of(const PipelineSlot& slot, int stage, bool first, bool last) {
  const int chunk = slot.chunk * degrees_.pipeline + stage;
  auto& plan = plans_[{slot.forward, chunk, first, last}];
  if (plan == nullptr) {
    plan = std::make_unique<SlotPlan>();
    plan->forward = slot.forward;
    plan->first = first;
    plan->last = last;
    plan->chunk = chunk;
    make_visits(*plan);
    count_raises(*plan);
  }
  return *plan;
}

void StepProgram::make_slots() {
  const int stages = degrees_.pipeline, microbatches = input_.shape.microbatches;
  std::vector<std::vector<PipelineSlot>> orders;
  for (int stage = 0; stage < stages; ++stage)
    orders.push_back(pipeline_order(stages, stage, degrees_.virtual_stages, microbatches, training()));
  stages_.resize(static_cast<std::size_t>(stages));
  for (int stage = 0; stage < stages; ++stage) {
    // What the neighbours send, in their order: activations from the stage before, gradients from the one after.
    std::map<std::tuple<bool, int, int>, std::int64_t> arrivals;
    const int chunks = stages * degrees_.virtual_stages;
    for (const bool forward : {true, false}) {
      std::int64_t number = 0;
      const int from = (stage + (forward ? stages - 1 : 1)) % stages;
      for (const PipelineSlot& sent : orders[static_cast<std::size_t>(from)]) {
        const int chunk = sent.chunk * stages + from + (forward ? 1 : -1);
        if (sent.forward == forward && chunk >= 0 && chunk < chunks)
          arrivals[{forward, chunk, sent.microbatch}] = ++number;
      }
    }
    Counts before(signals_.size());
    for (const PipelineSlot& slot : orders[static_cast<std::size_t>(stage)]) {
      const bool first = slot.forward && slot.microbatch == 0;
      const bool last = slot.microbatch == microbatches - 1 && (!slot.forward || !training());
      const SlotPlan& plan = plan_of(slot, stage, first, last);
      const auto arrival = arrivals.find({slot.forward, plan.chunk, slot.microbatch});
      stages_[static_cast<std::size_t>(stage)].push_back(
          {&plan, slot.microbatch, arrival == arrivals.end() ? 0 : arrival->second, before});
      for (std::size_t s = 0; s < before.size(); ++s) before[s] += plan.raised[s];
      slot_blocks_ = std::max(slot_blocks_, plan.blocks);
    }
  }
  slots_ = static_cast<std::int64_t>(stages_.front().size());
  if (stages > 1) return;
  // One stage: visits repeat over layers and slots.
  std::map<std::pair<const SlotPlan*, VisitClass>, std::int64_t> known;
  shapes_ = 1;  // 0: the empty blocks that fill a slot up
  for (auto& [key, plan] : plans_) {
    for (VisitPlan& visit : plan->visits) {
      const auto [shape, is_new] = known.try_emplace({plan.get(), class_of(*plan, visit)}, shapes_);
      if (is_new) shapes_ += blocks_of(visit);
      visit.shape = shape->second;
    }
  }
  for (const Slot& slot : stages_.front()) {
    std::vector<Counts>& counts = visit_counts_.emplace_back();
    for (const VisitPlan& visit : slot.plan->visits) {
      counts.push_back(slot.before);
      for (std::size_t s = 0; s < signals_.size(); ++s) counts.back()[s] += visit.before[s];
    }
  }
}

const StepProgram::Slot& StepProgram::slot_at(Rank rank, std::int64_t block) const {
  const auto stage = static_cast<std::size_t>(grid_.at(rank, Axis::pipeline));
  return stages_[stage][static_cast<std::size_t>(block / slot_blocks_)];
}

const StepProgram::VisitPlan* StepProgram::visit_at(const Slot& slot, std::int64_t block_in_slot) const {
  if (block_in_slot >= slot.plan->blocks) return nullptr;
  const auto& visits = slot.plan->visits;
  const auto next = std::upper_bound(visits.begin(), visits.end(), block_in_slot,
                                     [](std::int64_t block, const VisitPlan& v) { return block < v.first_block; });
  return &*(next - 1);
}

std::int64_t StepProgram::shapes() const {
  return shapes_ > 0 ? shapes_ : blocks();
}

std::int64_t StepProgram::shape(std::int64_t block) const {
  if (shapes_ == 0) return block;
  const std::int64_t in_slot = block % slot_blocks_;
  const VisitPlan* visit = visit_at(slot_at(0, block), in_slot);
  return visit == nullptr ? 0 : visit->shape + in_slot - visit->first_block;
}

std::span<const std::int64_t> StepProgram::counts_before(std::int64_t block) const {
  if (shapes_ == 0) return {};
  const Slot& slot = slot_at(0, block);
  const VisitPlan* visit = visit_at(slot, block % slot_blocks_);
  if (visit == nullptr) return slot.before;
  const auto place = static_cast<std::size_t>(visit - slot.plan->visits.data());
  return visit_counts_[static_cast<std::size_t>(block / slot_blocks_)][place];
}

std::vector<StepVisit> StepProgram::visits_of(int stage) const {
  const int chunks = degrees_.pipeline * degrees_.virtual_stages;
  std::vector<StepVisit> all;
  std::int64_t first_block = 0;
  for (const Slot& slot : stages_[static_cast<std::size_t>(stage)]) {
    for (const VisitPlan& visit : slot.plan->visits) {
      all.push_back({visit.kind, slot.microbatch, visit.layer, slot.plan->forward, slot.plan->chunk == chunks - 1,
                     first_block + visit.first_block});
    }
    first_block += slot_blocks_;
  }
  return all;
}

}  // namespace orrery
