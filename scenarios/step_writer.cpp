#include "scenarios/step_writer.hpp"

#include <algorithm>

namespace orrery {

void StepProgram::Writer::compute(const DenseCost& cost, std::uint8_t category, StepSignal also) {
  Op op;
  op.stream = Stream::compute;
  op.category = category;
  op.duration = to_ticks(cost.duration);
  if (cost.flops > Flops())
    op.hbm_traffic = cost.hbm_traffic;  // what only streams slows no transfer, see step_program.hpp
  if (op.duration > 0) op.launch = to_ticks(Seconds::from_si(implementation_.launch.value));
  for (const auto& [signal, count] : waits_) op.wait_for(at(rank_, signal), count);
  waits_.clear();
  op.finished[0] = raise(advanced);
  if (also != step_signals) op.finished[1] = raise(also);
  add(op);
  if (work_ != nullptr) *work_ += {cost.duration, cost.energy};
}

void StepProgram::Writer::collective(const StepChannel& channel, Bytes size, int passes, std::uint8_t category,
                                     After after, StepSignal done) {
  const RingPart& part = (*channel.parts)[static_cast<std::size_t>(rank_)];
  if (part.members == 1) return;
  Op op = transfer(channel.stream, category);
  for (const auto& [signal, count] : after) op.wait_for(at(rank_, signal), count);
  const Bytes sent = size * (passes * (part.members - 1.0) / part.members);
  messages_.clear();
  const auto send = [&](Rank to, double share, StepSignal arrived) {
    if (to < 0) return;
    messages_.push_back({rank_, to, sent * share, raise(to, arrived)});
    op.wait_for(at(rank_, arrived), count(arrived), WaitStage::finish);
  };
  send(part.next_local, part.local_share, channel.local);
  send(part.next_node, part.node_share, channel.node);
  // The message has the latency of one hop.
  const StepProgramInput& in = program_.input_;
  const double local_hops = passes * part.local_hops - (part.node_hops > 0 ? 0 : 1);
  const double node_hops = passes * part.node_hops - (part.node_hops > 0 ? 1 : 0);
  op.duration += to_ticks(in.local_latency * local_hops + in.node_latency * node_hops);
  op.finished[0] = raise(done);
  add(op, messages_);
  draw_for_messages();
}

void StepProgram::Writer::send(Rank to, Bytes size, StepSignal arrived) {
  Op op = transfer(Stream::network, pipeline_transfer);
  op.wait_for(at(rank_, advanced), count(advanced));
  op.wait_for(at(rank_, tensor_done), count(tensor_done));
  messages_.assign(1, {rank_, to, size, raise(to, arrived)});
  add(op, messages_);
  draw_for_messages();
}

void StepProgram::Writer::attention(Rank rank, const Visit& visit, int block) {
  const RankGrid& grid = program_.grid_;
  scratch_.begin(0);
  WorkTotals totals;
  program_.attention_.write_block(rank, visit, block, program_.context_group_of(rank_), scratch_,
                                  work_ == nullptr ? nullptr : &totals);
  if (work_ != nullptr) *work_ += totals.kernels * program_.input_.steps;
  const auto there = [&](SignalRef signal) {
    if (signal.rank >= 0) signal.rank = grid.moved(rank_, Axis::context, signal.rank);
    return signal;
  };
  const StepProgramInput& in = program_.input_;
  for (Op op : scratch_.ops()) {
    messages_.assign(scratch_.messages_of(op).begin(), scratch_.messages_of(op).end());
    for (Message& message : messages_) {
      message.source = grid.moved(rank_, Axis::context, message.source);
      message.destination = grid.moved(rank_, Axis::context, message.destination);
      message.delivered = there(message.delivered);
    }
    for (int i = 0; i < op.wait_count; ++i)
      op.waits[static_cast<std::size_t>(i)].signal = there(op.waits[static_cast<std::size_t>(i)].signal);
    op.started = there(op.started);
    for (SignalRef& signal : op.finished) signal = there(signal);
    if (in.steps > 1) repeat(op);
    add(op, messages_);
  }
}

Op StepProgram::Writer::transfer(Stream stream, std::uint8_t category) const {
  Op op;
  op.stream = stream;
  op.category = category;
  op.duration = to_ticks(Seconds::from_si(implementation_.message_startup.value + implementation_.dependency.value));
  op.launch = to_ticks(Seconds::from_si(implementation_.launch.value));
  op.sms = implementation_.sms.value;
  return op;
}

void StepProgram::Writer::draw_for_messages() {
  const std::optional<MeasuredKernels>& kernels = program_.input_.attention.profile.kernels;
  if (work_ == nullptr || !kernels) return;
  for (const Message& message : messages_) {
    work_->energy += energy_of_messages(message.size, implementation_.transport == Transport::nccl, kernels->clock);
  }
}

void StepProgram::Writer::repeat(Op& op) {
  const StepProgramInput& in = program_.input_;
  const auto category = static_cast<Category>(op.category);
  if (category == Category::head_exchange || category == Category::marker) return;
  op.duration *= in.steps;
  op.hbm_traffic = op.hbm_traffic * in.steps;
  if (messages_.empty()) return;
  for (Message& message : messages_) message.size = message.size * in.steps;
  op.duration += to_ticks(std::max(in.local_latency, in.node_latency) * (in.steps - 1.0));
}

}  // namespace orrery
