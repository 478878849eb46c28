// What the kernels of a step add up to on a rank: FLOPs, and time and energy under a cap of the clock.
#include "scenarios/step_writer.hpp"

namespace orrery {

void StepProgram::count_keys_read() {
  if (!decode()) return;
  for (const Mask& mask : input_.attention.masks) {
    std::vector<double>& of_ranks = keys_read_.emplace_back();
    for (const TokenSet& cached : input_.attention.geometry.rank_tokens)
      of_ranks.push_back(static_cast<double>(mask.keys_of_last(cached)));
  }
}

void StepProgram::set_costs() {
  const AttentionProgramInput& attention = input_.attention;
  const StepCostInput input{input_.shape, attention.peaks, attention.clock_cap, input_.fp8_rate};
  costs_ = step_costs(input, attention.profile);
  decode_attention_.clear();
  for (const std::vector<double>& of_ranks : keys_read_) {
    std::vector<DenseCost>& costs = decode_attention_.emplace_back();
    for (const double keys : of_ranks) costs.push_back(decode_attention_cost(input, attention.profile, keys));
  }
}

void StepProgram::cap_clock(ClockCap cap) {
  input_.attention.clock_cap = cap;
  set_costs();
  attention_.cap_clock(cap);
}

KernelWork StepProgram::kernel_work(Rank rank, const SlotPlan& plan) const {
  std::map<VisitClass, KernelWork> known;
  KernelWork sum;
  const Slot slot{&plan, 0, 0, {}};
  OpBuffer buffer;
  for (const VisitPlan& visit : plan.visits) {
    const auto [work, is_new] = known.try_emplace(class_of(plan, visit));
    for (int block = 0; is_new && block < blocks_of(visit); ++block) {
      Counts counts(signals_.size());
      buffer.begin(0);
      write(rank, slot, visit, block, counts, buffer, &work->second);
    }
    sum += work->second;
  }
  return sum;
}

KernelWork StepProgram::kernel_work(Rank rank) const {
  std::map<const SlotPlan*, double> slots;
  for (const Slot& slot : stages_[static_cast<std::size_t>(grid_.at(rank, Axis::pipeline))]) ++slots[slot.plan];
  KernelWork sum;
  for (const auto& [key, plan] : plans_) {  // in an order that does not depend on addresses
    if (const auto found = slots.find(plan.get()); found != slots.end())
      sum += kernel_work(rank, *plan) * found->second;
  }
  return sum;
}

std::vector<KernelWork> StepProgram::kernel_work_of_ranks() const {
  std::vector<KernelWork> all(static_cast<std::size_t>(ranks()));
  std::map<std::pair<Rank, Rank>, KernelWork> known;  // by stage and place in the sequence
  for (Rank rank = 0; rank < ranks(); ++rank) {
    const auto [work, is_new] = known.try_emplace({grid_.at(rank, Axis::pipeline), grid_.at(rank, Axis::context)});
    if (is_new) work->second = kernel_work(rank);
    all[static_cast<std::size_t>(rank)] = work->second;
  }
  return all;
}

bool StepProgram::recomputes() const {
  return training() && (input_.shape.recompute == Recompute::full || input_.shape.recompute == Recompute::blocks);
}

/// As many as the rank's kernels compute: what ranks do beside each other (the matrices of a decode step on context
/// ranks; K and V of fewer KV heads than tensor ranks) counts on each. The head is not recomputed.
Flops StepProgram::executed_by_matrices() const {
  const double passes = training() ? 3 : 1;
  const Flops layer = costs_.qkv.flops + costs_.output.flops + costs_.mlp.flops;
  return (layer * ((recomputes() ? passes + 1 : passes) * input_.shape.layers) + costs_.head.flops * passes) *
         (static_cast<double>(input_.shape.microbatches) / degrees_.pipeline);
}

AttentionProgram::FlopTotals StepProgram::flops_of(Rank rank) const {
  AttentionProgram::FlopTotals total{dense_flops(input_.shape) / degrees_.ranks(), executed_by_matrices()};
  if (decode()) {
    const auto context = static_cast<std::size_t>(grid_.at(rank, Axis::context));
    Flops attention;
    for (const int pattern : input_.attention.class_of_layer)
      attention += decode_attention_[static_cast<std::size_t>(pattern)][context].flops;
    attention = attention * (static_cast<double>(input_.shape.microbatches) / degrees_.pipeline);
    total.useful += attention;
    total.executed += attention;
    return total;
  }
  const AttentionProgram::FlopTotals one = attention_.flops_of(grid_.at(rank, Axis::context));
  const double times = static_cast<double>(input_.shape.microbatches) / degrees_.pipeline;
  total.useful += one.useful * times;
  // Backward has 2.5 times the products of forward.
  total.executed += one.executed * (times * (recomputes() ? 1 + 1 / 3.5 : 1));
  return total;
}

}  // namespace orrery
