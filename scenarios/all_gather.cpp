// All-gather context parallelism: every rank collects the KV of the whole sequence, then attends (Llama 3,
// arXiv 2407.21783). The gather is the ring algorithm: groups - 1 hops, each passing on what came last. Across nodes
// NCCL runs a ring over each NIC at once; here ranks at the same place of their nodes gather first, each over its own
// NIC, and pass on what they have inside the node then. Optionally some KV heads at a time, the next gather under the
// attention of the last. Backward gathers again, then reduce-scatters the gradients, the same way back, or sends them
// round a ring.
//
// Buffers: gathers alternate between two slots that hold the whole sequence.
#include <algorithm>
#include <optional>
#include <span>
#include <tuple>
#include <utility>
#include <vector>

#include "scenarios/gradient_ring.hpp"

namespace orrery {
namespace {

class AllGather : public Schedule {
 public:
  explicit AllGather(const ScheduleInput& input)
      : geometry_(input.geometry),
        implementation_(input.implementation),
        places_(nccl() && input.inner_ring > 1 ? input.inner_ring : input.geometry.groups),
        nodes_(input.geometry.groups / places_),
        hops_(nodes_ - 1 + places_ - 1) {
    if (per_rank()) tables_.emplace(input);
    for (int place = 0; nodes_ > 1 && place < places_; ++place) {
      std::vector<TokenSet> rail;
      for (int node = 0; node < nodes_; ++node) {
        rail.push_back(geometry_.group_tokens[static_cast<std::size_t>(node * places_ + place)]);
      }
      rails_.push_back(concatenate(rail));
    }
    for (const TokenSet& queries : geometry_.group_tokens) {
      most_chunks_ = std::max(most_chunks_, static_cast<int>(queries.ranges().size()));
    }
    for (const Mask& mask : input.masks) {
      std::vector<TileWork>& works = whole_.emplace_back();
      auto& forward = parts_.emplace_back();
      auto& backward = backward_parts_.emplace_back();
      for (const TokenSet& queries : geometry_.group_tokens) {
        works.push_back(measure(mask.local(queries, geometry_.all_tokens), input.tile));
        forward.push_back(parts_of(queries, mask, input.tile, Phase::forward));
        backward.push_back(parts_of(queries, mask, input.tile, Phase::backward));
      }
    }
  }

  int steps(const Visit&) const override { return per_rank() ? geometry_.groups : gathers(); }

  std::vector<std::string> extra_signals() const override { return {"own rows copied"}; }

  SignalCounts raises(const Visit& visit) const override {
    SignalCounts raised(1);
    raised.counts[signal_count] = hops_ > 0 ? gathers() : 0;
    raised[Signal::computed] = steps(visit);
    raised[Signal::kv_arrived] = raised[Signal::kv_sent] = raised[Signal::kv_posted] = gathers() * hops_;
    raised[Signal::kv_consumed] = hops_ > 0 ? gathers() : 0;
    if (visit.phase == Phase::forward || hops_ == 0) return raised;
    const bool ring = gradients_ring();
    const int sent = ring ? geometry_.groups : gathers() * hops_;
    raised[Signal::grad_sent] = raised[Signal::grad_posted] = sent;
    raised[Signal::grad_arrived] = ring ? geometry_.groups - 1 : sent;
    raised[Signal::grad_consumed] = ring ? geometry_.groups - 1 : gathers();
    raised[Signal::grad_home] = ring ? 1 : 0;
    return raised;
  }

  void write_step(Rank rank, const Visit& visit, int step, BlockWriter& writer) const override {
    if (step == 0) write_gather(rank, visit, 0, writer);
    if (!per_rank() && step + 1 < gathers()) write_gather(rank, visit, step + 1, writer);
    if (visit.phase == Phase::backward && gradients_ring()) {
      write_backward_ring(rank, visit, step, writer);
    } else if (visit.phase == Phase::backward) {
      write_backward_scatter(rank, visit, step, writer);
    } else {
      write_forward(rank, visit, step, writer);
    }
  }

  /// Gathers of some heads each are the whole sequence for all heads.
  TileWork work_of(Rank rank, const Visit& visit) const override {
    const auto pattern_class = static_cast<std::size_t>(visit.pattern_class);
    const int group = geometry_.group_of(rank);
    return per_rank() ? tables_->keys(visit).of(group) : whole_[pattern_class][static_cast<std::size_t>(group)];
  }

  void partition(const Visit& visit, int step, std::vector<RankSet>& sets) const override {
    const auto key = [&](int group) {
      const Rank rank = group * geometry_.members;
      const std::span<const AttentionPart> kernels = parts(rank, visit);
      return std::tuple(work(rank, visit, step), reads_values(rank, visit, step),
                        std::vector(kernels.begin(), kernels.end()));
    };
    if (nodes_ == 1) return partition_groups(geometry_, key, sets);
    // The last place of a node passes on to its first, so that only ranks at one place do the same but for a shift.
    for (int place = 0; place < places_; ++place) {
      for (int node = 0; node < nodes_; ++node) {
        const int group = node * places_ + place;
        if (node == 0 || !geometry_.even || key(group) != key(group - places_)) sets.push_back({group, places_, 0});
        ++sets.back().count;
      }
    }
  }

  void wait_for_end(Rank rank, const Visit& visit, Op& op) const override {
    if (raises(visit)[Signal::grad_home] > 0) {
      op.wait_for(at(rank, Signal::grad_home), visit.before[Signal::grad_home] + 1);
    }
  }

 private:
  /// The kernels of a rank whose causal attention is one for each chunk of its queries; none if it is one kernel.
  std::vector<AttentionPart> parts_of(const TokenSet& queries, const Mask& mask, TileShape tile, Phase phase) const {
    std::vector<AttentionPart> parts;
    if (!implementation_.gather_chunks || !mask.causal()) return parts;
    // The middle chunks of a zigzag continue each other: two kernels all the same.
    const Index chunks = most_chunks_, rows = queries.size() / chunks;
    if (queries.ranges().front().stride != 1 || queries.size() % chunks != 0) return parts;
    Index seen = 0;  // by the chunk before
    for (Index chunk = 0; chunk < chunks; ++chunk) {
      const TokenSet own = queries.rows(chunk * rows, rows);
      const Index begin = own.ranges().front().begin;
      const auto keys = [](Index from, Index past) { return TokenSet({{from, past - from, 1}}); };
      if (phase == Phase::forward || begin == 0) {
        parts.push_back({measure(mask.local(own, keys(0, begin + rows)), tile)});
      } else {
        parts.push_back({measure(mask.local(own, keys(0, begin)), tile)});
        parts.push_back({measure(mask.local(own, keys(begin, begin + rows)), tile), rows});
      }
      if (phase == Phase::backward) parts.back().sum_keys = seen;
      seen = begin + rows;
    }
    return parts;
  }
  std::span<const AttentionPart> parts(Rank rank, const Visit& visit) const {
    if (per_rank()) return {};
    const auto& all = visit.phase == Phase::forward ? parts_ : backward_parts_;
    return all[static_cast<std::size_t>(visit.pattern_class)][static_cast<std::size_t>(geometry_.group_of(rank))];
  }
  /// Chunks are gathered one by one.
  int messages() const { return implementation_.kv_messages * (implementation_.gather_chunks ? most_chunks_ : 1); }

  /// Of a gather, the hop-th transfer of a rank: first to the next node, then to the next place of its node.
  struct Hop {
    Rank to;
    const TokenSet* rows;
  };
  Hop hop_of(Rank rank, int hop) const {
    if (nodes_ == 1) return {geometry_.neighbour(rank, 1), &geometry_.tokens_of(geometry_.neighbour(rank, -hop))};
    if (hop < nodes_ - 1) {
      return {geometry_.neighbour(rank, places_), &geometry_.tokens_of(geometry_.neighbour(rank, -hop * places_))};
    }
    return {next_place(rank, 1), rail_of(next_place(rank, nodes_ - 1 - hop))};
  }
  /// Of a reduce-scatter: the same, backwards.
  Hop scatter_hop_of(Rank rank, int hop) const {
    if (nodes_ == 1) return {geometry_.neighbour(rank, 1), &geometry_.tokens_of(geometry_.neighbour(rank, -hop - 1))};
    if (hop < places_ - 1) return {next_place(rank, 1), rail_of(next_place(rank, -hop - 1))};
    return {geometry_.neighbour(rank, places_),
            &geometry_.tokens_of(geometry_.neighbour(rank, (places_ - 2 - hop) * places_))};
  }
  Rank next_place(Rank rank, int distance) const {
    const int place = rank % places_;
    return rank - place + (place + distance + places_) % places_;
  }
  const TokenSet* rail_of(Rank rank) const { return &rails_[static_cast<std::size_t>(rank % places_)]; }

  bool nccl() const { return implementation_.transport == Transport::nccl; }
  bool per_rank() const {
    return implementation_.gather_attention == GatherAttention::per_rank && geometry_.groups > 1;
  }
  bool gradients_ring() const { return per_rank() && implementation_.gather_gradients == GatherGradients::ring; }

  HeadRange kv_heads(Rank rank) const { return geometry_.kv_heads_of(geometry_.member_of(rank)); }
  int gathers() const {
    const int heads = kv_heads(0).count, at_a_time = implementation_.gather_kv_heads;
    return at_a_time == 0 || per_rank() ? 1 : std::max(1, heads / at_a_time);
  }
  HeadRange kv_heads_of_gather(Rank rank, int gather) const {
    const HeadRange all = kv_heads(rank);
    const int share = all.count / gathers();
    return {all.first + gather * share, share};
  }
  HeadRange query_heads_of_gather(Rank rank, int gather) const {
    const HeadRange all = geometry_.query_heads(geometry_.member_of(rank));
    const int share = all.count / gathers();
    return {all.first + gather * share, share};
  }

  static std::int64_t gather_number(const Visit& visit, int gather) {
    return visit.before[Signal::kv_consumed] + gather;
  }
  Buffer gathered(const Visit& visit, int gather) const {
    return hops_ == 0 ? Buffer{BufferKind::kv} : slot_of(BufferKind::kv_slot, gather_number(visit, gather), 2);
  }

  void write_gather(Rank rank, const Visit& visit, int gather, BlockWriter& writer) const {
    const Buffer slot = gathered(visit, gather);
    const std::int64_t number = gather_number(visit, gather);
    for (int hop = 0; hop < hops_; ++hop) {
      const std::int64_t ordinal = visit.before[Signal::kv_sent] + gather * hops_ + hop;
      const auto [to, rows] = hop_of(rank, hop);
      Action action{.kind = ActionKind::transfer, .layer = visit.layer, .step = gather};
      Op op;
      if (hop == 0) {
        // The rank's own rows go into its slot too.
        action.messages.push_back(
            {rank, rank, {BufferKind::kv}, slot, rows, kv_heads_of_gather(rank, gather), false, extra_signal(rank, 0)});
        wait_to_begin(rank, to, visit, gather, number, op);
      } else if (!nccl()) {
        op.wait_for(at(rank, Signal::kv_arrived), ordinal);
      }
      action.messages.push_back({rank, to, hop == 0 ? Buffer{BufferKind::kv} : slot, slot, rows,
                                 kv_heads_of_gather(rank, gather), false, at(to, Signal::kv_arrived)});
      op.finished[0] = at(rank, Signal::kv_sent);
      if (nccl()) {
        rendezvous(op, rank, to, Signal::kv_posted, ordinal);
        op.wait_for(at(rank, Signal::kv_arrived), ordinal + 1, WaitStage::finish);
      }
      writer.transfer(action, Category::kv_transfer, messages(), op, BlockWriter::Path::gather, hop);
    }
  }

  void wait_to_begin(Rank rank, Rank to, const Visit& visit, int gather, std::int64_t number, Op& op) const {
    op.wait_for(at(rank, Signal::inputs_ready), visit.before[Signal::inputs_ready] + 1);
    op.wait_for(at(rank, Signal::kv_consumed), number - 1);
    if (!nccl()) {
      op.wait_for(at(to, Signal::kv_consumed), number - 1);
      op.wait_for(at(to, Signal::kv_sent), (number - 1) * hops_);
    }
    if (implementation_.transfer_order == TransferOrder::data) return;
    const int done = implementation_.transfer_order == TransferOrder::same_step_compute ? gather : gather - 1;
    op.wait_for(at(rank, Signal::computed), visit.before[Signal::computed] + std::max(done, 0));
  }

  void wait_for_gather(Rank rank, const Visit& visit, int gather, Op& op) const {
    if (hops_ == 0) return;
    const Signal arrival = nccl() ? Signal::kv_sent : Signal::kv_arrived;
    op.wait_for(at(rank, arrival), visit.before[arrival] + (gather + 1) * hops_);
    op.wait_for(extra_signal(rank, 0), visit.before.counts[signal_count] + gather + 1);
  }

  /// The attention of a step: the whole sequence for some heads, or the block of one group.
  Action attention(Rank rank, const Visit& visit, int step) const {
    const bool local = per_rank() && step == 0;
    const TokenSet& keys = per_rank() ? geometry_.tokens_of(geometry_.neighbour(rank, -step)) : geometry_.all_tokens;
    Action action = attention_action(geometry_, rank, visit, keys,
                                     local ? Buffer{BufferKind::kv} : gathered(visit, per_rank() ? 0 : step));
    action.first = step == 0;
    action.last = step + 1 == steps(visit);
    action.step = step;
    if (!per_rank()) {
      action.query_heads = query_heads_of_gather(rank, step);
      action.kv_heads = kv_heads_of_gather(rank, step);
      action.first = true;  // of these heads
    }
    return action;
  }

  const TileWork& work(Rank rank, const Visit& visit, int step) const {
    const auto pattern_class = static_cast<std::size_t>(visit.pattern_class);
    const int group = geometry_.group_of(rank);
    if (!per_rank()) return whole_[pattern_class][static_cast<std::size_t>(group)];
    return tables_->keys(visit).at(group, geometry_.group_of(geometry_.neighbour(rank, -step)));
  }
  bool reads_values(Rank rank, const Visit& visit, int step) const {
    return per_rank() &&
           tables_->reads_values(visit, geometry_.group_of(rank), geometry_.group_of(geometry_.neighbour(rank, -step)));
  }

  /// The last attention that reads a gathered slot frees it.
  SignalRef consumed(Rank rank, const Visit& visit, int step) const {
    const bool frees = hops_ > 0 && (!per_rank() || step + 1 == steps(visit));
    return frees ? at(rank, Signal::kv_consumed) : SignalRef{};
  }

  Op waiting_op(Rank rank, const Visit& visit, int step) const {
    Op op;
    if (!per_rank()) {
      wait_for_gather(rank, visit, step, op);
    } else if (step > 0) {
      wait_for_gather(rank, visit, 0, op);
    }
    return op;
  }

  void write_forward(Rank rank, const Visit& visit, int step, BlockWriter& writer) const {
    write_attention(writer, implementation_, rank, attention(rank, visit, step), work(rank, visit, step),
                    waiting_op(rank, visit, step), consumed(rank, visit, step), parts(rank, visit));
  }

  void write_backward_ring(Rank rank, const Visit& visit, int step, BlockWriter& writer) const {
    const Signal arrival = nccl() ? Signal::grad_sent : Signal::grad_arrived;
    const GradientStep position{.hop = visit.before[Signal::grad_sent] + step,
                                .slot = visit.before[Signal::grad_consumed] + step,
                                .receives = step > 0,
                                .arrived = visit.before[arrival] + step,
                                .reads_values = reads_values(rank, visit, step)};
    Action action = attention(rank, visit, step);
    action.into = gradient_work_slot(position.hop);
    Op op = waiting_op(rank, visit, step);
    op.wait_for(at(rank, Signal::grad_sent), position.hop - 1);
    write_gradient(writer, implementation_, rank, position, action, work(rank, visit, step), op,
                   consumed(rank, visit, step));
    const bool goes_home = step == geometry_.groups - 1;
    const GradientTarget target{
        .to = geometry_.neighbour(rank, 1),
        .goes_home = goes_home,
        .home = {BufferKind::d_kv},
        .arrivals = goes_home ? visit.before[Signal::grad_home] + 1 : visit.before[Signal::grad_arrived] + step + 1};
    write_gradient_hop(writer, implementation_, rank, visit.layer, step, position,
                       visit.before[Signal::computed] + step + 1, target, *action.rows, kv_heads(rank));
  }

  // --- Backward with a reduce-scatter of the gradients of the whole sequence: hop j passes on the sum for the group
  // that is j + 1 places upstream, and the receiver's contribution is in the buffer the sum is added to. ---

  void write_backward_scatter(Rank rank, const Visit& visit, int step, BlockWriter& writer) const {
    const bool last_of_gather = !per_rank() || step + 1 == steps(visit);
    const int gather = per_rank() ? 0 : step;
    const std::int64_t number = visit.before[Signal::grad_consumed] + gather;
    Action action = attention(rank, visit, step);
    action.into = hops_ == 0 ? Buffer{BufferKind::d_kv} : slot_of(BufferKind::d_kv_work, number, 2);
    Op op = waiting_op(rank, visit, step);
    if (hops_ > 0) op.wait_for(at(rank, Signal::grad_sent), (number - 1) * hops_);
    op.finished[0] = consumed(rank, visit, step);
    writer.attention(action, work(rank, visit, step), op, {at(rank, Signal::computed)}, parts(rank, visit));
    if (hops_ == 0 || !last_of_gather) return;
    for (int hop = 0; hop < hops_; ++hop) write_scatter_hop(rank, visit, gather, hop, step, action, writer);

    const std::int64_t arrivals = visit.before[Signal::grad_arrived] + (gather + 1) * hops_;
    Op sum;
    sum.wait_for(at(rank, Signal::grad_arrived), arrivals);
    sum.finished[0] = at(rank, Signal::grad_consumed);
    writer.marker({.kind = ActionKind::accumulate,
                   .layer = visit.layer,
                   .rows = &geometry_.tokens_of(rank),
                   .kv_heads = action.kv_heads,
                   .from = action.into,
                   .into = {BufferKind::d_kv},
                   .step = step},
                  sum);
  }

  void write_scatter_hop(Rank rank, const Visit& visit, int gather, int hop, int step, const Action& attention,
                         BlockWriter& writer) const {
    const std::int64_t ordinal = visit.before[Signal::grad_sent] + gather * hops_ + hop;
    const auto [to, rows] = scatter_hop_of(rank, hop);
    Op op;
    // Both sides have their own contributions ready before sums are added.
    op.wait_for(at(rank, Signal::computed), visit.before[Signal::computed] + step + 1);
    if (!nccl()) op.wait_for(at(to, Signal::computed), visit.before[Signal::computed] + step + 1);
    if (hop > 0) op.wait_for(at(rank, Signal::grad_arrived), ordinal);
    op.finished[0] = at(rank, Signal::grad_sent);
    if (nccl()) {
      rendezvous(op, rank, to, Signal::grad_posted, ordinal);
      op.wait_for(at(rank, Signal::grad_arrived), ordinal + 1, WaitStage::finish);
    }
    Action action{.kind = ActionKind::transfer, .layer = visit.layer, .step = step};
    action.messages = {
        {rank, to, attention.into, attention.into, rows, attention.kv_heads, true, at(to, Signal::grad_arrived)}};
    writer.transfer(action, Category::gradient_transfer, messages(), op, BlockWriter::Path::scatter, hop);
  }

  const Geometry& geometry_;
  const Implementation& implementation_;
  int places_, nodes_;           // of a node that take part; one node: all
  int hops_;                     // of a gather
  std::vector<TokenSet> rails_;  // by place: the rows of all nodes
  std::optional<BlockTables> tables_;
  std::vector<std::vector<TileWork>> whole_;  // by pattern class and group
  int most_chunks_ = 1;                       // of contiguous queries that a rank has
  std::vector<std::vector<std::vector<AttentionPart>>> parts_, backward_parts_;
};

}  // namespace

std::unique_ptr<Schedule> make_all_gather(const ScheduleInput& input) {
  return std::make_unique<AllGather>(input);
}

}  // namespace orrery
