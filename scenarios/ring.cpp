// Ring Attention (Liu, Zaharia, Abbeel 2023, arXiv 2310.01889): step s attends the block of the group s hops upstream
// while that block travels on. With one group there is no ring: the kernel of DeepSpeed-Ulysses; with a head exchange
// around it, USP. A sparse pattern ends the ring at the last hop that brings somebody work, or values of a gated skip,
// and runs no kernel where there is none.
//
// From the hop on at which no rank scores keys any more, values go on alone: K and V are two tensors or two halves of
// one, so that leaving K behind is one message of half the bytes. K comes along where it is read again on the way
// (backward in the other direction) and where the loop looks at no pattern (the extra hop). Gradients stay together: dK
// has to go home too, and on its own would need a message to another rank than dV's.
//
// Buffers: visiting blocks alternate between two slots. Hop t (counted over all visits) fills slot t % 2 of the
// receiver and may start once the block of hop t - 2 has been attended and passed on.
#include <algorithm>
#include <utility>

#include "scenarios/gradient_ring.hpp"

namespace orrery {
namespace {

class Ring : public Schedule {
 public:
  explicit Ring(const ScheduleInput& input)
      : geometry_(input.geometry), implementation_(input.implementation), tables_(input) {}

  int steps(const Visit& visit) const override { return hops_to_work(visit) + 1; }

  SignalCounts raises(const Visit& visit) const override {
    SignalCounts raised;
    const int hops = kv_hops(visit);
    raised[Signal::computed] = steps(visit);
    raised[Signal::kv_arrived] = raised[Signal::kv_sent] = raised[Signal::kv_posted] = raised[Signal::kv_consumed] =
        hops;
    if (visit.phase == Phase::backward && ends_at_home()) {
      raised[Signal::kv_arrived] = 0;
      raised[Signal::kv_returned] = hops;
    }
    if (visit.phase == Phase::forward) {
      if (waits_for_sms(implementation_.transfer_order)) raised[Signal::sms_free] = steps(visit);
      if (keeps_last(visit)) raised[Signal::kv_consumed] = hops - 1;
      return raised;
    }
    const int gradients = gradient_hops(visit);
    raised[Signal::grad_sent] = raised[Signal::grad_posted] = gradients;
    const int into_slots = gradients == 0 || ends_at_home() ? gradients : gradients - 1;
    raised[Signal::grad_arrived] = raised[Signal::grad_consumed] = into_slots;
    raised[Signal::grad_home] = gradients - into_slots;
    if (ends_at_home()) raised[Signal::kv_posted] = hops == 0 ? 0 : hops + 1;
    return raised;
  }

  void write_step(Rank rank, const Visit& visit, int step, BlockWriter& writer) const override {
    if (visit.phase == Phase::forward) {
      write_forward(rank, visit, step, writer);
    } else if (ends_at_home()) {
      write_backward_to_home(rank, visit, step, writer);
    } else {
      write_backward_from_home(rank, visit, step, writer);
    }
  }

  TileWork work_of(Rank rank, const Visit& visit) const override {
    return tables_.keys(visit).of(geometry_.group_of(rank));
  }

  void partition(const Visit& visit, int step, std::vector<RankSet>& sets) const override {
    const bool to_home = visit.phase == Phase::backward && ends_at_home();
    const int upstream = to_home ? kv_hops(visit) - step : step;
    const TileTable &keys = tables_.keys(visit), &values = tables_.values(visit);
    if (geometry_.even && keys.entries() == 1 && values.entries() == 1) {  // no mask, say
      sets.push_back({0, 1, geometry_.ranks()});
      return;
    }
    const auto key = [&](int group) {
      const int from = group - upstream < 0 ? group - upstream + geometry_.groups : group - upstream;
      return std::pair(keys.entry(group, from), values.entry(group, from));
    };
    partition_groups(geometry_, key, sets);
  }

  void wait_for_end(Rank rank, const Visit& visit, Op& op) const override {
    if (visit.phase == Phase::backward && raises(visit)[Signal::grad_home] > 0) {
      op.wait_for(at(rank, Signal::grad_home), visit.before[Signal::grad_home] + 1);
    }
  }

 private:
  /// Blocks come from upstream, but on the way home from downstream.
  Signal arrival(const Visit& visit) const {
    return visit.phase == Phase::backward && ends_at_home() ? Signal::kv_returned : Signal::kv_arrived;
  }
  bool nccl() const { return implementation_.transport == Transport::nccl; }
  bool ends_at_home() const { return implementation_.ring_backward == RingBackward::last_received; }

  int hops_to_work(const Visit& visit) const {
    return implementation_.extra_ring_hop ? geometry_.groups - 1 : tables_.values(visit).reach();
  }
  int kv_hops(const Visit& visit) const {
    const bool wasted_hop = implementation_.extra_ring_hop && geometry_.groups > 1;
    return hops_to_work(visit) + (wasted_hop ? 1 : 0);
  }
  /// The hop takes V alone.
  bool leaves_keys(const Visit& visit, int step) const {
    return !ends_at_home() && !implementation_.extra_ring_hop && step >= tables_.keys(visit).reach();
  }
  /// Gradients of the visiting block: one hop per block hop, and from own blocks one more that brings them home.
  int gradient_hops(const Visit& visit) const {
    const int hops = hops_to_work(visit);
    return hops == 0 ? 0 : ends_at_home() ? hops : hops + 1;
  }
  /// The block that comes last is kept for the backward pass if that starts with it.
  bool keeps_last(const Visit& visit) const { return ends_at_home() && hops_to_work(visit) > 0; }

  const TokenSet& tokens_upstream(Rank rank, int distance) const {
    return geometry_.tokens_of(geometry_.neighbour(rank, -distance));
  }
  HeadRange kv_heads(Rank rank) const { return geometry_.kv_heads_of(geometry_.member_of(rank)); }

  static Buffer kv_slot(std::int64_t hop) { return slot_of(BufferKind::kv_slot, hop, 2); }

  /// Waits shared by all hops: the block is there, and a slot at the receiver is free.
  /// `hop` counts from the start of the program, `step` from the start of the visit.
  void wait_for_hop(Rank rank, Rank to, const Visit& visit, int step, bool fills_slot, Op& op) const {
    const std::int64_t sent_before = visit.before[Signal::kv_sent] + step;
    if (step == 0) {
      op.wait_for(at(rank, Signal::inputs_ready), visit.before[Signal::inputs_ready] + 1);
    } else if (!nccl()) {  // an NCCL hop ends when its receive does, and hops are in order
      op.wait_for(at(rank, arrival(visit)), visit.before[arrival(visit)] + step);
    }
    if (!fills_slot) return;
    const Rank owner_of_slot = nccl() ? rank : to;  // a kernel that receives starts when its own slot is free
    const std::int64_t filled = visit.before[Signal::kv_consumed] + step;  // slots filled before this hop
    op.wait_for(at(owner_of_slot, Signal::kv_consumed), filled - 1);
    // The slot's last content has been passed on: by the hop before this one, or, at step 1, in an earlier visit.
    if (!nccl()) op.wait_for(at(to, Signal::kv_sent), step == 1 ? sent_before - 1 : sent_before);
  }

  void wait_for_order(Rank rank, const Visit& visit, int step, Op& op) const {
    if (implementation_.transfer_order == TransferOrder::data) return;
    const bool is_ahead = implementation_.transfer_order == TransferOrder::free_sms_when_ahead;
    if (waits_for_sms(implementation_.transfer_order) && !(is_ahead && (step == 0 || visit.phase == Phase::backward))) {
      if (visit.phase == Phase::backward) return;
      op.wait_for(at(rank, Signal::sms_free), visit.before[Signal::sms_free] + std::min(step + 1, steps(visit)));
      return;
    }
    const int done = implementation_.transfer_order == TransferOrder::same_step_compute ? step + 1 : step;
    const std::int64_t count = visit.before[Signal::computed] + std::min(done, steps(visit));
    op.wait_for(at(rank, Signal::computed), count);
  }

  MessageAction kv_message(Rank rank, Rank to, const Visit& visit, int step, const TokenSet& rows, Buffer first,
                           Buffer last) const {
    const std::int64_t slot = visit.before[Signal::kv_consumed] + step;
    return {
        rank, to, step == 0 ? first : kv_slot(slot - 1), last, &rows, kv_heads(rank), false, at(to, arrival(visit))};
  }

  void write_kv_hop(Rank rank, const Visit& visit, int step, BlockWriter& writer) const {
    const Rank to = geometry_.neighbour(rank, 1);
    const bool is_last = step + 1 == kv_hops(visit);
    const bool keep = is_last && visit.phase == Phase::forward && keeps_last(visit);
    const std::int64_t hop = visit.before[Signal::kv_arrived] + step;
    Op op;
    wait_for_hop(rank, to, visit, step, !keep, op);
    wait_for_order(rank, visit, step, op);
    op.finished[0] = at(rank, Signal::kv_sent);
    if (nccl()) {
      rendezvous(op, rank, to, Signal::kv_posted, visit.before[Signal::kv_posted] + step);
      op.wait_for(at(rank, Signal::kv_arrived), hop + 1, WaitStage::finish);
    }
    Action action{.kind = ActionKind::transfer, .layer = visit.layer, .step = step};
    const Buffer into = keep ? Buffer{BufferKind::saved_kv} : kv_slot(visit.before[Signal::kv_consumed] + step);
    action.messages = {kv_message(rank, to, visit, step, tokens_upstream(rank, step), {BufferKind::kv}, into)};
    action.messages.front().values_only = leaves_keys(visit, step);
    const int messages = leaves_keys(visit, step) ? 1 : implementation_.kv_messages;
    writer.transfer(action, Category::kv_transfer, messages, op);
  }

  /// The block of step >= 1 is complete once hop step - 1 is (with NCCL: once the whole kernel is).
  void wait_for_block(Rank rank, const Visit& visit, int step, Op& op) const {
    const Signal complete = nccl() ? Signal::kv_sent : arrival(visit);
    op.wait_for(at(rank, complete), visit.before[complete] + step);
  }

  void write_forward(Rank rank, const Visit& visit, int step, BlockWriter& writer) const {
    if (step < kv_hops(visit)) write_kv_hop(rank, visit, step, writer);
    const bool kept = keeps_last(visit) && step == hops_to_work(visit);
    const Buffer from = step == 0 ? Buffer{BufferKind::kv}
                        : kept    ? Buffer{BufferKind::saved_kv}
                                  : kv_slot(visit.before[Signal::kv_consumed] + step - 1);
    Action action = attention_action(geometry_, rank, visit, tokens_upstream(rank, step), from);
    action.first = step == 0;
    action.last = step + 1 == steps(visit);
    action.step = step;
    Op op;
    if (step > 0) wait_for_block(rank, visit, step, op);
    const SignalRef consumed = step > 0 && !kept ? at(rank, Signal::kv_consumed) : SignalRef{};
    write_attention(writer, implementation_, rank, action, work(rank, visit, step), op, consumed);
    write_wasted_hop_end(rank, visit, step, writer);
  }

  /// The extra hop ends inside the visit: the loop that carries the block hands it over before it returns.
  void write_wasted_hop_end(Rank rank, const Visit& visit, int step, BlockWriter& writer) const {
    if (step + 1 != steps(visit) || kv_hops(visit) == hops_to_work(visit)) return;
    Op op;
    wait_for_block(rank, visit, kv_hops(visit), op);
    op.finished[0] = at(rank, Signal::kv_consumed);
    writer.marker({.kind = ActionKind::marker, .layer = visit.layer, .step = step}, op);
  }

  const TileWork& work(Rank rank, const Visit& visit, int upstream) const {
    return tables_.keys(visit).at(geometry_.group_of(rank), geometry_.group_of(geometry_.neighbour(rank, -upstream)));
  }

  GradientStep gradient_step(Rank rank, const Visit& visit, int step, int upstream) const {
    const Signal complete = nccl() ? Signal::grad_sent : Signal::grad_arrived;
    return {.hop = visit.before[Signal::grad_sent] + step,
            .slot = visit.before[Signal::grad_consumed] + step,
            .receives = step > 0,
            .arrived = visit.before[complete] + step,
            .reads_values = tables_.reads_values(visit, geometry_.group_of(rank),
                                                 geometry_.group_of(geometry_.neighbour(rank, -upstream)))};
  }

  // --- Backward, own block first. Gradient hop s follows the compute of step s; the last one brings the gradient home.
  // ---

  void write_backward_from_home(Rank rank, const Visit& visit, int step, BlockWriter& writer) const {
    if (step < kv_hops(visit)) write_kv_hop(rank, visit, step, writer);
    const int gradients = gradient_hops(visit);
    const GradientStep position = gradient_step(rank, visit, step, step);
    const Buffer from = step == 0 ? Buffer{BufferKind::kv} : kv_slot(visit.before[Signal::kv_consumed] + step - 1);
    Action action = attention_action(geometry_, rank, visit, tokens_upstream(rank, step), from);
    action.first = step == 0;
    action.last = step + 1 == steps(visit);
    action.step = step;
    action.into = gradients == 0 ? Buffer{BufferKind::d_kv} : gradient_work_slot(position.hop);
    Op op;
    if (step > 0) wait_for_block(rank, visit, step, op);
    if (gradients > 0) op.wait_for(at(rank, Signal::grad_sent), position.hop - 1);
    write_gradient(writer, implementation_, rank, position, action, work(rank, visit, step), op, consumed(rank, step));
    if (step < gradients) {
      const bool goes_home = step + 1 == gradients;
      const GradientTarget target{
          .to = goes_home ? geometry_.neighbour(rank, -hops_to_work(visit)) : geometry_.neighbour(rank, 1),
          .goes_home = goes_home,
          .home = {BufferKind::d_kv},
          .arrivals = goes_home ? visit.before[Signal::grad_home] + 1 : visit.before[Signal::grad_arrived] + step + 1};
      write_gradient_hop(writer, implementation_, rank, visit.layer, step, position,
                         visit.before[Signal::computed] + step + 1, target, tokens_upstream(rank, step),
                         kv_heads(rank));
    }
    write_wasted_hop_end(rank, visit, step, writer);
  }

  static SignalRef consumed(Rank rank, int step) { return step > 0 ? at(rank, Signal::kv_consumed) : SignalRef{}; }

  // --- Backward, last received block first, the ring turning the other way (TransformerEngine): transfer s carries the
  // block of step s and the gradient of step s - 1 in one message; block and gradient reach home together. ---

  void write_backward_to_home(Rank rank, const Visit& visit, int step, BlockWriter& writer) const {
    const int hops = kv_hops(visit);
    if (hops > 0) write_joint_hop(rank, visit, step, writer);
    const int upstream = hops - step;
    const Buffer from = hops == 0   ? Buffer{BufferKind::kv}
                        : step == 0 ? Buffer{BufferKind::saved_kv}
                                    : kv_slot(visit.before[Signal::kv_consumed] + step - 1);
    Action action = attention_action(geometry_, rank, visit, tokens_upstream(rank, upstream), from);
    action.first = step == 0;
    action.last = step + 1 == steps(visit);
    action.step = step;
    const GradientStep position = gradient_step(rank, visit, step, upstream);
    action.into = upstream == 0 ? Buffer{BufferKind::d_kv} : gradient_work_slot(position.hop);
    Op op;
    if (step > 0) wait_for_block(rank, visit, step, op);
    if (upstream > 0) op.wait_for(at(rank, Signal::grad_sent), position.hop - 1);
    write_gradient(writer, implementation_, rank, position, action, work(rank, visit, upstream), op,
                   consumed(rank, step));
  }

  void write_joint_hop(Rank rank, const Visit& visit, int step, BlockWriter& writer) const {
    const int hops = kv_hops(visit);
    const Rank to = geometry_.neighbour(rank, -1);
    const int upstream = hops - step;
    Action action{.kind = ActionKind::transfer, .layer = visit.layer, .step = step};
    Op op;
    if (step < hops) {
      wait_for_hop(rank, to, visit, step, true, op);
      action.messages.push_back(kv_message(rank, to, visit, step, tokens_upstream(rank, upstream),
                                           {BufferKind::saved_kv}, kv_slot(visit.before[Signal::kv_consumed] + step)));
      op.finished[0] = at(rank, Signal::kv_sent);
    }
    if (step > 0) {
      const std::int64_t slot = visit.before[Signal::grad_consumed] + step - 1;
      // The gradient of the step before; no other order is possible, since this step's compute may need what arrives.
      op.wait_for(at(rank, Signal::computed), visit.before[Signal::computed] + step);
      op.wait_for(at(nccl() ? rank : to, Signal::grad_consumed), slot - 1);
      action.messages.push_back({rank, to, gradient_work_slot(visit.before[Signal::grad_sent] + step - 1),
                                 gradient_in_slot(slot), &tokens_upstream(rank, upstream + 1), kv_heads(rank), false,
                                 at(to, Signal::grad_arrived)});
      op.finished[1] = at(rank, Signal::grad_sent);
    }
    if (nccl()) {
      rendezvous(op, rank, to, Signal::kv_posted, visit.before[Signal::kv_posted] + step);
      if (step < hops) {
        op.wait_for(at(rank, Signal::kv_returned), visit.before[Signal::kv_returned] + step + 1, WaitStage::finish);
      }
      if (step > 0)
        op.wait_for(at(rank, Signal::grad_arrived), visit.before[Signal::grad_arrived] + step, WaitStage::finish);
    }
    writer.transfer(action, step < hops ? Category::kv_transfer : Category::gradient_transfer, 1, op);
  }

  const Geometry& geometry_;
  const Implementation& implementation_;
  BlockTables tables_;
};

}  // namespace

std::unique_ptr<Schedule> make_ring(const ScheduleInput& input) {
  return std::make_unique<Ring>(input);
}

}  // namespace orrery
