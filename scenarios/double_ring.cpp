// Double ring (LoongTrain, arXiv 2406.18485): groups form `outer` rings of `inner` members. Step (o, i) attends the
// block of member b - i of ring a - o: blocks rotate inside a ring, and while they do, the block each member started
// with travels to the next ring on a second communicator. Only one in `inner` hops leaves the ring (the node). Every
// hop is made with K and V, whatever the pattern, so that values of gated skips are among what comes; a step without
// work runs no kernel.
//
// Backward, a gradient goes round the inner ring with its block and ends at the member that the inner ring started
// from; the sum of the ring joins the gradient that travels between rings and ends at the block's owner.
#include <algorithm>

#include "scenarios/gradient_ring.hpp"

namespace orrery {
namespace {

class DoubleRing : public Schedule {
 public:
  explicit DoubleRing(const ScheduleInput& input)
      : geometry_(input.geometry),
        implementation_(input.implementation),
        inner_(input.inner_ring),
        outer_(input.geometry.groups / input.inner_ring),
        tables_(input) {}

  /// Backward, one step more: the last ring's sum goes home.
  int steps(const Visit& visit) const override {
    return outer_ * inner_ + (visit.phase == Phase::backward && outer_ > 1 ? 1 : 0);
  }

  SignalCounts raises(const Visit& visit) const override {
    SignalCounts raised;
    raised[Signal::computed] = outer_ * inner_;
    const int inner_hops = outer_ * (inner_ - 1);
    raised[Signal::kv_arrived] = raised[Signal::kv_consumed] = raised[Signal::kv_sent] = raised[Signal::kv_posted] =
        inner_hops;
    raised[Signal::outer_kv_arrived] = raised[Signal::outer_kv_consumed] = outer_ - 1;
    raised[Signal::outer_kv_sent] = raised[Signal::outer_kv_posted] = outer_ - 1;
    if (visit.phase == Phase::forward) return raised;
    if (inner_ > 1) {
      raised[Signal::grad_sent] = raised[Signal::grad_posted] = outer_ * inner_;
      raised[Signal::grad_arrived] = raised[Signal::grad_consumed] = inner_hops;
      raised[Signal::grad_home] = outer_;
    }
    if (outer_ > 1) {
      raised[Signal::outer_grad_sent] = raised[Signal::outer_grad_posted] = outer_;
      raised[Signal::outer_grad_arrived] = raised[Signal::ring_summed] = outer_;
      raised[Signal::outer_grad_consumed] = outer_ - 1;
    }
    return raised;
  }

  void write_step(Rank rank, const Visit& visit, int step, BlockWriter& writer) const override {
    const Position p{step / inner_, step % inner_};
    if (p.outer == outer_) {
      write_outer_gradient(rank, visit, outer_ - 1, writer);
      return;
    }
    if (p.inner == 0 && p.outer + 1 < outer_) write_outer_hop(rank, visit, p, writer);
    if (p.inner + 1 < inner_) write_inner_hop(rank, visit, p, writer);
    if (visit.phase == Phase::forward) {
      Op op;
      wait_for_block(rank, visit, p, op);
      write_attention(writer, implementation_, rank, attention(rank, visit, p), work(rank, visit, p), op,
                      consumed(rank, p));
    } else {
      write_backward(rank, visit, p, writer);
    }
  }

  TileWork work_of(Rank rank, const Visit& visit) const override {
    return tables_.keys(visit).of(geometry_.group_of(rank));
  }

  /// Members at the same place of their rings; of different places, the last has its neighbour elsewhere.
  void partition(const Visit& visit, int step, std::vector<RankSet>& sets) const override {
    const Position p{step / inner_, step % inner_};
    const Rank ring = inner_ * geometry_.members;
    for (Rank first = 0; first < ring; ++first) {
      for (int a = 0; a < outer_; ++a) {
        const Rank rank = first + a * ring;
        const bool joins = a > 0 && geometry_.even && (p.outer == outer_ || does_the_same(rank, rank - ring, visit, p));
        if (!joins) sets.push_back({rank, ring, 0});
        ++sets.back().count;
      }
    }
  }

  void wait_for_end(Rank rank, const Visit& visit, Op& op) const override {
    if (visit.phase == Phase::forward) return;
    if (outer_ > 1) {
      op.wait_for(at(rank, Signal::outer_grad_arrived), visit.before[Signal::outer_grad_arrived] + outer_);
    } else if (inner_ > 1) {
      op.wait_for(at(rank, Signal::grad_home), visit.before[Signal::grad_home] + 1);
    }
  }

 private:
  struct Position {
    int outer, inner;
  };

  bool nccl() const { return implementation_.transport == Transport::nccl; }
  HeadRange kv_heads(Rank rank) const { return geometry_.kv_heads_of(geometry_.member_of(rank)); }

  /// The rank `outer` rings and `inner` members further on.
  Rank neighbour(Rank rank, int outer, int inner) const {
    const int group = geometry_.group_of(rank);
    const int a = ((group / inner_ + outer) % outer_ + outer_) % outer_;
    const int b = ((group % inner_ + inner) % inner_ + inner_) % inner_;
    return (a * inner_ + b) * geometry_.members + geometry_.member_of(rank);
  }
  Rank owner(Rank rank, Position p) const { return neighbour(rank, -p.outer, -p.inner); }
  const TokenSet& tokens(Rank rank, Position p) const { return geometry_.tokens_of(owner(rank, p)); }
  const TileWork& work(Rank rank, const Visit& visit, Position p) const {
    return tables_.keys(visit).at(geometry_.group_of(rank), geometry_.group_of(owner(rank, p)));
  }
  bool reads_values(Rank rank, const Visit& visit, Position p) const {
    return tables_.reads_values(visit, geometry_.group_of(rank), geometry_.group_of(owner(rank, p)));
  }
  bool does_the_same(Rank a, Rank b, const Visit& visit, Position p) const {
    return work(a, visit, p) == work(b, visit, p) && reads_values(a, visit, p) == reads_values(b, visit, p);
  }

  std::int64_t inner_hop(const Visit& visit, Position p) const {
    return visit.before[Signal::kv_sent] + p.outer * (inner_ - 1) + p.inner;
  }
  std::int64_t outer_hop(const Visit& visit, int outer) const { return visit.before[Signal::outer_kv_sent] + outer; }

  /// Where the block of a step lies.
  Buffer block(const Visit& visit, Position p) const {
    if (p.inner > 0) return slot_of(BufferKind::kv_slot, inner_hop(visit, p) - 1, 2);
    if (p.outer > 0) return slot_of(BufferKind::outer_kv_slot, outer_hop(visit, p.outer) - 1, 2);
    return {BufferKind::kv};
  }

  void wait_for_block(Rank rank, const Visit& visit, Position p, Op& op) const {
    if (p.inner > 0) {
      const Signal arrival = nccl() ? Signal::kv_sent : Signal::kv_arrived;
      op.wait_for(at(rank, arrival), inner_hop(visit, p));
    } else if (p.outer > 0) {
      const Signal arrival = nccl() ? Signal::outer_kv_sent : Signal::outer_kv_arrived;
      op.wait_for(at(rank, arrival), outer_hop(visit, p.outer));
    } else {
      op.wait_for(at(rank, Signal::inputs_ready), visit.before[Signal::inputs_ready] + 1);
    }
  }

  void wait_for_order(Rank rank, const Visit& visit, Position p, Op& op) const {
    if (implementation_.transfer_order == TransferOrder::data) return;
    const int own_step = implementation_.transfer_order == TransferOrder::same_step_compute ? 1 : 0;
    op.wait_for(at(rank, Signal::computed), visit.before[Signal::computed] + p.outer * inner_ + p.inner + own_step);
  }

  void write_inner_hop(Rank rank, const Visit& visit, Position p, BlockWriter& writer) const {
    const Rank to = neighbour(rank, 0, 1);
    const std::int64_t hop = inner_hop(visit, p);
    Op op;
    wait_for_block(rank, visit, p, op);
    wait_for_order(rank, visit, p, op);
    op.wait_for(at(nccl() ? rank : to, Signal::kv_consumed), hop - 1);
    if (!nccl()) op.wait_for(at(to, Signal::kv_sent), p.inner == 1 ? hop - 1 : hop);
    op.finished[0] = at(rank, Signal::kv_sent);
    if (nccl()) {
      rendezvous(op, rank, to, Signal::kv_posted, hop);
      op.wait_for(at(rank, Signal::kv_arrived), hop + 1, WaitStage::finish);
    }
    Action action{.kind = ActionKind::transfer, .layer = visit.layer, .step = p.outer * inner_ + p.inner};
    action.messages = {{rank, to, block(visit, p), slot_of(BufferKind::kv_slot, hop, 2), &tokens(rank, p),
                        kv_heads(rank), false, at(to, Signal::kv_arrived)}};
    writer.transfer(action, Category::kv_transfer, implementation_.kv_messages, op);
  }

  void write_outer_hop(Rank rank, const Visit& visit, Position p, BlockWriter& writer) const {
    const Rank to = neighbour(rank, 1, 0);
    const std::int64_t hop = outer_hop(visit, p.outer);
    Op op;
    wait_for_block(rank, visit, p, op);
    wait_for_order(rank, visit, p, op);
    const Rank owner_of_slot = nccl() ? rank : to;
    op.wait_for(at(owner_of_slot, Signal::outer_kv_consumed), hop - 1);
    // The slot's last content started the inner ring of outer step p.outer - 1 (or of an earlier visit); it has left
    // when the first inner hop of that step is over.
    const int inner_sends = p.outer >= 2 && inner_ > 1 ? (p.outer - 1) * (inner_ - 1) + 1 : 0;
    op.wait_for(at(owner_of_slot, Signal::kv_sent), visit.before[Signal::kv_sent] + inner_sends);
    if (!nccl()) op.wait_for(at(to, Signal::outer_kv_sent), p.outer == 1 ? hop - 1 : hop);
    op.finished[0] = at(rank, Signal::outer_kv_sent);
    if (nccl()) {
      rendezvous(op, rank, to, Signal::outer_kv_posted, hop);
      op.wait_for(at(rank, Signal::outer_kv_arrived), hop + 1, WaitStage::finish);
    }
    Action action{.kind = ActionKind::transfer, .layer = visit.layer, .step = p.outer * inner_};
    action.messages = {{rank, to, block(visit, p), slot_of(BufferKind::outer_kv_slot, hop, 2), &tokens(rank, p),
                        kv_heads(rank), false, at(to, Signal::outer_kv_arrived)}};
    writer.transfer(action, Category::kv_transfer, implementation_.kv_messages, op, BlockWriter::Path::network);
  }

  Action attention(Rank rank, const Visit& visit, Position p) const {
    Action action = attention_action(geometry_, rank, visit, tokens(rank, p), block(visit, p));
    action.first = p.outer == 0 && p.inner == 0;
    action.step = p.outer * inner_ + p.inner;
    return action;
  }

  static SignalRef consumed(Rank rank, Position p) {
    if (p.inner > 0) return at(rank, Signal::kv_consumed);
    return p.outer > 0 ? at(rank, Signal::outer_kv_consumed) : SignalRef{};
  }

  // --- Backward ---

  std::int64_t ring_sum(const Visit& visit, int outer) const { return visit.before[Signal::outer_grad_sent] + outer; }
  Buffer ring_sum_buffer(const Visit& visit, int outer) const {
    if (outer_ == 1) return {BufferKind::d_kv};
    return slot_of(BufferKind::outer_d_kv_work, ring_sum(visit, outer), 2);
  }

  GradientStep gradient_step(Rank rank, const Visit& visit, Position p) const {
    const Signal arrival = nccl() ? Signal::grad_sent : Signal::grad_arrived;
    const int arrived = nccl() ? p.outer * inner_ + p.inner : p.outer * (inner_ - 1) + p.inner;
    return {.hop = visit.before[Signal::grad_sent] + p.outer * inner_ + p.inner,
            .slot = visit.before[Signal::grad_consumed] + p.outer * (inner_ - 1) + p.inner,
            .receives = p.inner > 0,
            .arrived = visit.before[arrival] + arrived,
            .reads_values = reads_values(rank, visit, p)};
  }

  void write_backward(Rank rank, const Visit& visit, Position p, BlockWriter& writer) const {
    const GradientStep position = gradient_step(rank, visit, p);
    Action action = attention(rank, visit, p);
    Op op;
    wait_for_block(rank, visit, p, op);
    if (inner_ > 1) {
      action.into = gradient_work_slot(position.hop);
      op.wait_for(at(rank, Signal::grad_sent), position.hop - 1);
    } else {
      action.into = ring_sum_buffer(visit, p.outer);
      if (outer_ > 1) op.wait_for(at(rank, Signal::outer_grad_sent), ring_sum(visit, p.outer) - 1);
    }
    write_gradient(writer, implementation_, rank, position, action, work(rank, visit, p), op, consumed(rank, p));
    if (inner_ > 1) write_inner_gradient_hop(rank, visit, p, position, writer);
    if (p.inner == 0 && p.outer > 0) write_outer_gradient(rank, visit, p.outer - 1, writer);
  }

  void write_inner_gradient_hop(Rank rank, const Visit& visit, Position p, const GradientStep& position,
                                BlockWriter& writer) const {
    const bool goes_home = p.inner + 1 == inner_;
    const Rank to = neighbour(rank, 0, 1);
    GradientTarget target{.to = to,
                          .goes_home = goes_home,
                          .home = ring_sum_buffer(visit, p.outer),
                          .arrivals = goes_home
                                          ? visit.before[Signal::grad_home] + p.outer + 1
                                          : visit.before[Signal::grad_arrived] + p.outer * (inner_ - 1) + p.inner + 1};
    if (goes_home && outer_ > 1) {
      target.home_free = at(to, Signal::outer_grad_sent);
      target.home_free_count = ring_sum(visit, p.outer) - 1;
    }
    write_gradient_hop(writer, implementation_, rank, visit.layer, p.outer * inner_ + p.inner, position,
                       visit.before[Signal::computed] + p.outer * inner_ + p.inner + 1, target, tokens(rank, p),
                       kv_heads(rank));
  }

  /// The sum of ring `outer` has come home in the inner ring: add what came from the rings before, send it on.
  void write_outer_gradient(Rank rank, const Visit& visit, int outer, BlockWriter& writer) const {
    const TokenSet& rows = tokens(rank, {outer, 0});
    const std::int64_t hop = ring_sum(visit, outer);
    const std::int64_t slot = visit.before[Signal::outer_grad_consumed] + outer;
    Op sum;
    if (inner_ > 1) sum.wait_for(at(rank, Signal::grad_home), visit.before[Signal::grad_home] + outer + 1);
    if (outer > 0) {
      sum.wait_for(at(rank, Signal::outer_grad_arrived), visit.before[Signal::outer_grad_arrived] + outer);
      sum.finished[0] = at(rank, Signal::outer_grad_consumed);
    }
    sum.finished[1] = at(rank, Signal::ring_summed);
    Action add{.kind = outer > 0 ? ActionKind::accumulate : ActionKind::marker,
               .layer = visit.layer,
               .rows = &rows,
               .kv_heads = kv_heads(rank),
               .from = slot_of(BufferKind::outer_d_kv_in, outer > 0 ? slot - 1 : 0, 2),
               .into = ring_sum_buffer(visit, outer),
               .step = outer * inner_};
    if (outer > 0) {
      writer.accumulate(add, sum);
    } else {
      writer.marker(add, sum);
    }

    const bool goes_home = outer + 1 == outer_;
    const Rank to = neighbour(rank, 1, 0);
    Op op;
    op.wait_for(at(rank, Signal::ring_summed), hop + 1);
    if (!goes_home) op.wait_for(at(nccl() ? rank : to, Signal::outer_grad_consumed), slot - 1);
    op.finished[0] = at(rank, Signal::outer_grad_sent);
    if (nccl()) {
      rendezvous(op, rank, to, Signal::outer_grad_posted, hop);
      op.wait_for(at(rank, Signal::outer_grad_arrived), visit.before[Signal::outer_grad_arrived] + outer + 1,
                  WaitStage::finish);
    }
    Action action{.kind = ActionKind::transfer, .layer = visit.layer, .step = outer * inner_};
    action.messages = {{rank, to, ring_sum_buffer(visit, outer),
                        goes_home ? Buffer{BufferKind::d_kv} : slot_of(BufferKind::outer_d_kv_in, slot, 2), &rows,
                        kv_heads(rank), false, at(to, Signal::outer_grad_arrived)}};
    writer.transfer(action, Category::gradient_transfer, implementation_.kv_messages, op, BlockWriter::Path::network);
  }

  const Geometry& geometry_;
  const Implementation& implementation_;
  int inner_, outer_;
  BlockTables tables_;
};

}  // namespace

std::unique_ptr<Schedule> make_double_ring(const ScheduleInput& input) {
  return std::make_unique<DoubleRing>(input);
}

}  // namespace orrery
