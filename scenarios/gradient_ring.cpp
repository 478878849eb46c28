#include "scenarios/gradient_ring.hpp"

namespace orrery {

void rendezvous(Op& op, Rank rank, Rank to, Signal posted, std::int64_t ordinal) {
  op.started = at(rank, posted);
  op.wait_for(at(to, posted), ordinal + 1, WaitStage::transfer);
}

void write_gradient(BlockWriter& writer, const Implementation& implementation, Rank rank, const GradientStep& step,
                    Action action, const TileWork& tile, Op op, SignalRef consumed) {
  op.finished[0] = consumed;
  if (!step.receives) {
    writer.attention(action, tile, op, {at(rank, Signal::computed)});
    return;
  }
  const Signal arrival = implementation.transport == Transport::nccl ? Signal::grad_sent : Signal::grad_arrived;
  action.in = gradient_in_slot(step.slot - 1);
  Op last;
  if (implementation.gradient_sum == Merge::fused) {
    op.wait_for(at(rank, arrival), step.arrived);
    action.adds_in = true;
    op.finished[1] = at(rank, Signal::grad_consumed);
    writer.attention(action, tile, op, {});
    // An op raises two signals; a marker raises the third.
    last.finished[0] = at(rank, Signal::computed);
    writer.marker({.kind = ActionKind::marker, .layer = action.layer, .step = action.step}, last);
    return;
  }
  writer.attention(action, tile, op, {});
  last.wait_for(at(rank, arrival), step.arrived);
  last.finished = {at(rank, Signal::grad_consumed), at(rank, Signal::computed)};
  action.kind = ActionKind::accumulate;
  action.from = action.in;
  const bool sums_whole_block = tile.useful > 0 || implementation.sums_skipped_blocks;
  action.values_only = !sums_whole_block;
  if (sums_whole_block || step.reads_values) {
    writer.accumulate(action, last);
  } else {
    writer.marker(action, last);
  }
}

void write_gradient_hop(BlockWriter& writer, const Implementation& implementation, Rank rank, int layer, int step,
                        const GradientStep& position, std::int64_t computed, const GradientTarget& target,
                        const TokenSet& rows, HeadRange heads) {
  const bool nccl = implementation.transport == Transport::nccl;
  const Signal arrival = target.goes_home ? Signal::grad_home : Signal::grad_arrived;
  Op op;
  op.wait_for(at(rank, Signal::computed), computed);
  if (!target.goes_home) op.wait_for(at(nccl ? rank : target.to, Signal::grad_consumed), position.slot - 1);
  if (target.home_free.rank >= 0) op.wait_for(target.home_free, target.home_free_count);
  op.finished[0] = at(rank, Signal::grad_sent);
  if (nccl) {
    rendezvous(op, rank, target.to, Signal::grad_posted, position.hop);
    op.wait_for(at(rank, arrival), target.arrivals, WaitStage::finish);
  }
  Action action{.kind = ActionKind::transfer, .layer = layer, .step = step};
  action.messages = {{rank, target.to, gradient_work_slot(position.hop),
                      target.goes_home ? target.home : gradient_in_slot(position.slot), &rows, heads, false,
                      at(target.to, arrival)}};
  writer.transfer(action, Category::gradient_transfer, implementation.kv_messages, op,
                  implementation.gradients_apart ? BlockWriter::Path::apart : BlockWriter::Path::transport);
}

}  // namespace orrery
