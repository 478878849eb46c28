#include "scenarios/attention_program.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <map>
#include <numeric>
#include <utility>

namespace orrery {

void set_masks(AttentionProgramInput& input, const Pattern& pattern, Index tokens, bool causal,
               const std::vector<Index>& documents) {
  const auto add = [&](const Pattern& of, std::vector<Mask>& keys, std::vector<Mask>& values) {
    for (int c = 0; c < of.classes(); ++c) {
      keys.push_back(of.mask(c, tokens, causal, documents));
      if (of.has_gated_skips()) values.push_back(of.value_mask(c, tokens, causal, documents));
    }
  };
  add(pattern, input.masks, input.value_masks);
  if (input.implementation.halo_of_whole_windows) add(pattern.wider(1), input.halo_masks, input.halo_value_masks);
}

AttentionProgram::AttentionProgram(AttentionProgramInput input) : input_(std::move(input)) {
  cost_ = {.geometry = &input_.geometry,
           .implementation = &input_.implementation,
           .profile = &input_.profile,
           .peaks = input_.peaks,
           .clock_cap = input_.clock_cap,
           .plain_window = input_.plain_window,
           .element_bytes = input_.element_bytes,
           .dense = input_.dense,
           .links = &input_.links,
           .attention = costs_.get()};
  const TileShape tile{static_cast<Index>(input_.profile.tile_query.value),
                       static_cast<Index>(input_.profile.tile_key.value)};
  schedule_ = input_.schedule->make({input_.geometry, input_.implementation, input_.masks, input_.value_masks,
                                     input_.halo_masks, input_.halo_value_masks, tile, input_.inner_ring});

  const int layers = static_cast<int>(input_.class_of_layer.size());
  signals_.assign(signal_names().begin(), signal_names().end());
  for (std::string& name : schedule_->extra_signals()) signals_.push_back(std::move(name));
  Visit visit;
  visit.before = SignalCounts(signals_.size() - signal_count);
  block_of_visit_.push_back(0);
  std::map<std::pair<Phase, int>, std::size_t> kinds;
  const auto add = [&](int layer, Phase phase) {
    visit.layer = layer;
    visit.phase = phase;
    visit.pattern_class = input_.class_of_layer[static_cast<std::size_t>(layer)];
    const auto [kind, is_new] = kinds.try_emplace({phase, visit.pattern_class}, visit_kinds_.size());
    if (is_new) visit_kinds_.push_back({visits_.size(), 0, shapes_});
    ++visit_kinds_[kind->second].count;
    visits_.push_back(visit);
    const SignalCounts raised = raises(visit);
    const std::int64_t blocks = schedule_->steps(visit) + 2;
    if (is_new) shapes_ += blocks;
    shape_of_visit_.push_back(visit_kinds_[kind->second].first_shape);
    for (std::size_t s = 0; s < raised.counts.size(); ++s) visit.before.counts[s] += raised.counts[s];
    ++visit.number;
    block_of_visit_.push_back(block_of_visit_.back() + blocks);
  };
  for (int layer = 0; layer < layers; ++layer) add(layer, Phase::forward);
  for (int layer = layers - 1; input_.backward && layer >= 0; --layer) add(layer, Phase::backward);
}

std::span<const std::string> AttentionProgram::phases() const {
  static const std::array<std::string, 2> names = {"forward", "backward"};
  return names;
}

SignalCounts AttentionProgram::raises(const Visit& visit) const {
  SignalCounts raised = schedule_->raises(visit);
  raised[Signal::qkv_ready] = raised[Signal::inputs_ready] = 1;
  const int members = input_.geometry.members;
  if (members > 1) {
    raised[Signal::exchange_posted] = 2 * members;
    raised[Signal::exchange_in_arrived] = exchange_messages(visit.phase, true);
    raised[Signal::exchange_out_arrived] = exchange_messages(visit.phase, false);
  }
  return raised;
}

/// Messages that reach a rank in one head exchange, its own included: forward Q and KV in, O out; backward dO in, dQ
/// and dKV out.
int AttentionProgram::exchange_messages(Phase phase, bool into_heads) const {
  const int tensors = (phase == Phase::forward) == into_heads ? 2 : 1;
  return tensors * input_.geometry.members;
}

const Visit& AttentionProgram::visit_of(std::int64_t block) const {
  const auto next = std::upper_bound(block_of_visit_.begin(), block_of_visit_.end(), block);
  return visits_[static_cast<std::size_t>(next - block_of_visit_.begin() - 1)];
}

std::int64_t AttentionProgram::shape(std::int64_t block) const {
  const auto visit = static_cast<std::size_t>(visit_of(block).number);
  return shape_of_visit_[visit] + block - block_of_visit_[visit];
}

std::span<const std::int64_t> AttentionProgram::counts_before(std::int64_t block) const {
  return visit_of(block).before.counts;
}

// Beside what they compute and send, ranks differ in where they stand in the domain of measured links.
void AttentionProgram::partition(std::int64_t block, std::vector<RankSet>& sets) const {
  std::vector<RankSet> alike;
  partition_by_work(block, alike);
  const Rank domain = input_.links.domain;
  for (const RankSet& set : alike) {
    const Rank places = domain >= ranks() ? 1 : domain / std::gcd(domain, set.stride);
    for (Rank i = 0; i < std::min(places, set.count); ++i)
      sets.push_back({set[i], set.stride * places, (set.count - i + places - 1) / places});
  }
}

void AttentionProgram::partition_by_work(std::int64_t block, std::vector<RankSet>& sets) const {
  const Visit& visit = visit_of(block);
  const auto in_visit = static_cast<int>(block - block_of_visit_[static_cast<std::size_t>(visit.number)]);
  if (in_visit > 0 && in_visit <= schedule_->steps(visit)) {
    schedule_->partition(visit, in_visit - 1, sets);
    return;
  }
  const Geometry& g = input_.geometry;
  if (g.members == 1) {
    sets.push_back({0, 1, g.ranks()});
    return;
  }
  // A head exchange: to each member its peers lie elsewhere.
  for (Rank member = 0; member < g.members; ++member) sets.push_back({member, g.members, g.groups});
}

BlockWriter AttentionProgram::writer_of(const Visit& visit, OpBuffer& buffer, RankSet places) const {
  const bool gated = !input_.gates.empty() && input_.gates[static_cast<std::size_t>(visit.pattern_class)];
  return {cost_, visit.phase, gated, buffer, places};
}

void AttentionProgram::generate(Rank rank, std::int64_t block, OpBuffer& buffer) const {
  const Visit& visit = visit_of(block);
  buffer.begin(block);
  BlockWriter writer = writer_of(visit, buffer, all_ranks());
  write(rank, block, writer, visit, static_cast<int>(block - block_of_visit_[static_cast<std::size_t>(visit.number)]));
}

void AttentionProgram::write_block(Rank rank, const Visit& visit, int block_in_visit, RankSet places, OpBuffer& buffer,
                                   WorkTotals* totals) const {
  BlockWriter writer = writer_of(visit, buffer, places);
  writer.record(nullptr, totals);
  write(rank, 0, writer, visit, block_in_visit);
}

std::vector<Action> AttentionProgram::actions(Rank rank, std::int64_t block, OpBuffer& buffer,
                                              WorkTotals* totals) const {
  const Visit& visit = visit_of(block);
  std::vector<Action> actions;
  buffer.begin(block);
  BlockWriter writer = writer_of(visit, buffer, all_ranks());
  writer.record(&actions, totals);
  write(rank, block, writer, visit, static_cast<int>(block - block_of_visit_[static_cast<std::size_t>(visit.number)]));
  return actions;
}

void AttentionProgram::write(Rank rank, std::int64_t, BlockWriter& writer, const Visit& visit,
                             int block_in_visit) const {
  const int steps = schedule_->steps(visit);
  if (block_in_visit == 0) {
    write_begin(rank, visit, writer);
  } else if (block_in_visit <= steps) {
    schedule_->write_step(rank, visit, block_in_visit - 1, writer);
  } else {
    write_end(rank, visit, writer);
  }
}

// Half of a layer's dense work (projections of Q, K, V and what else precedes attention) could stand before attention
// and half after; all of it stands before, since attention alone communicates and in-order streams make the sum the
// same.
void AttentionProgram::write_begin(Rank rank, const Visit& visit, BlockWriter& writer) const {
  const Geometry& g = input_.geometry;
  const bool exchanges = g.members > 1;
  const int member = g.member_of(rank);
  writer.begin({.kind = ActionKind::dense,
                .layer = visit.layer,
                .query_heads = g.query_heads(member),
                .kv_heads = g.kv_heads_of(member)},
               exchanges ? g.tokens_of(rank).size() : 0,
               at(rank, exchanges ? Signal::qkv_ready : Signal::inputs_ready));
  if (!exchanges) return;
  write_exchange(rank, visit, true, writer);
  Op ready;
  ready.wait_for(at(rank, Signal::exchange_in_arrived),
                 visit.before[Signal::exchange_in_arrived] + exchange_messages(visit.phase, true));
  ready.finished[0] = at(rank, Signal::inputs_ready);
  writer.marker({.kind = ActionKind::marker, .layer = visit.layer}, ready);
}

void AttentionProgram::write_end(Rank rank, const Visit& visit, BlockWriter& writer) const {
  const bool exchanges = input_.geometry.members > 1;
  if (exchanges) write_exchange(rank, visit, false, writer);
  Op done;
  schedule_->wait_for_end(rank, visit, done);
  if (exchanges) {
    done.wait_for(at(rank, Signal::exchange_out_arrived),
                  visit.before[Signal::exchange_out_arrived] + exchange_messages(visit.phase, false));
  }
  if (done.wait_count > 0) writer.marker({.kind = ActionKind::marker, .layer = visit.layer}, done);
  const Geometry& g = input_.geometry;
  const int member = g.member_of(rank);
  const Index rows = g.tokens_of(rank).size();
  writer.end({.layer = visit.layer, .query_heads = g.query_heads(member), .kv_heads = g.kv_heads_of(member)}, rows,
             rows);
}

// Every member sends each other member of its group the rows it owns of the heads the other attends (into_heads), or
// the rows the other owns of the heads it attended itself (back). DeepSpeed-Ulysses, arXiv 2309.14509; under GQA with
// fewer KV heads than members, KV heads are replicated on the way in and their gradients summed on the way back.
void AttentionProgram::write_exchange(Rank rank, const Visit& visit, bool into_heads, BlockWriter& writer) const {
  const Geometry& g = input_.geometry;
  const Rank first_of_group = g.group_of(rank) * g.members;
  const int member = g.member_of(rank);
  struct Tensor {
    BufferKind own, shared;
    bool keys;
  };
  std::vector<Tensor> tensors;
  if (visit.phase == Phase::forward && into_heads) {
    tensors = {{BufferKind::own_query, BufferKind::query, false}, {BufferKind::own_kv, BufferKind::kv, true}};
  } else if (visit.phase == Phase::forward) {
    tensors = {{BufferKind::own_output, BufferKind::output, false}};
  } else if (into_heads) {
    tensors = {{BufferKind::own_d_output, BufferKind::d_output, false}};
  } else {
    tensors = {{BufferKind::own_d_query, BufferKind::d_query, false}, {BufferKind::own_d_kv, BufferKind::d_kv, true}};
  }

  const Signal arrived = into_heads ? Signal::exchange_in_arrived : Signal::exchange_out_arrived;
  Action action{.kind = ActionKind::transfer, .layer = visit.layer};
  for (int distance = 0; distance < g.members; ++distance) {
    const int peer = (member + distance) % g.members;
    const Rank to = first_of_group + peer;
    const int heads_of = into_heads ? peer : member;
    const Rank rows_of = into_heads ? rank : to;
    for (const Tensor& tensor : tensors) {
      const HeadRange heads = tensor.keys ? g.kv_heads_of(heads_of) : g.query_heads(heads_of);
      action.messages.push_back({rank,
                                 to,
                                 {into_heads ? tensor.own : tensor.shared},
                                 {into_heads ? tensor.shared : tensor.own},
                                 &g.rank_tokens[static_cast<std::size_t>(rows_of)],
                                 heads,
                                 !into_heads && tensor.keys,
                                 at(to, arrived)});
    }
  }
  Op op;
  if (into_heads) {
    op.wait_for(at(rank, Signal::qkv_ready), visit.before[Signal::qkv_ready] + 1);
  } else {
    op.wait_for(at(rank, Signal::computed),
                visit.before[Signal::computed] + schedule_->raises(visit)[Signal::computed]);
    schedule_->wait_for_end(rank, visit, op);
  }
  if (input_.implementation.transport == Transport::nccl) {
    const int exchange = into_heads ? 0 : 1;
    op.started = at(first_of_group, Signal::exchange_posted);
    op.wait_for(at(first_of_group, Signal::exchange_posted),
                visit.before[Signal::exchange_posted] + (exchange + 1) * g.members, WaitStage::transfer);
    op.wait_for(at(rank, arrived), visit.before[arrived] + exchange_messages(visit.phase, into_heads),
                WaitStage::finish);
  }
  const int startups = tensors.size() > 1 ? input_.implementation.qkv_messages : 1;
  writer.transfer(action, Category::head_exchange, startups, op);
}

std::string AttentionProgram::describe(Rank rank, std::int64_t block, std::int32_t index) const {
  OpBuffer buffer;
  const std::vector<Action> all = actions(rank, block, buffer);
  const Action& action = all[static_cast<std::size_t>(index)];
  const Op& op = buffer.ops()[static_cast<std::size_t>(index)];
  return fmt::format("layer {} {} step {} {}", action.layer + 1, phases()[op.phase], action.step,
                     category_names()[op.category]);
}

WorkTotals AttentionProgram::work_of_visit(Rank rank, const Visit& visit) const {
  WorkTotals totals;
  OpBuffer buffer;
  const auto number = static_cast<std::size_t>(visit.number);
  for (std::int64_t block = block_of_visit_[number]; block < block_of_visit_[number + 1]; ++block) {
    actions(rank, block, buffer, &totals);
  }
  return totals;
}

WorkTotals AttentionProgram::work_of(Rank rank) const {
  WorkTotals sum;
  for (const VisitKind& kind : visit_kinds_) {
    const WorkTotals once = work_of_visit(rank, visits_[kind.first]);
    sum.useful += once.useful * kind.count;
    sum.executed += once.executed * kind.count;
    sum.attention_executed += once.attention_executed * kind.count;
    sum.sent += once.sent * kind.count;
    sum.kv_sent += once.kv_sent * kind.count;
    sum.kernels += once.kernels * kind.count;
  }
  return sum;
}

std::vector<KernelWork> AttentionProgram::kernel_work_of_ranks() const {
  std::vector<KernelWork> all(static_cast<std::size_t>(ranks()));
  std::vector<RankSet> sets;
  OpBuffer buffer;
  for (const VisitKind& kind : visit_kinds_) {
    const auto number = static_cast<std::size_t>(visits_[kind.first].number);
    for (std::int64_t block = block_of_visit_[number]; block < block_of_visit_[number + 1]; ++block) {
      sets.clear();
      partition(block, sets);
      for (const RankSet& set : sets) {
        WorkTotals totals;
        actions(set.first, block, buffer, &totals);
        for (Rank i = 0; i < set.count; ++i)
          all[static_cast<std::size_t>(set[i])] += totals.kernels * static_cast<double>(kind.count);
      }
    }
  }
  return all;
}

AttentionProgram::FlopTotals AttentionProgram::flops_of(Rank rank) const {
  const Geometry& g = input_.geometry;
  FlopTotals sum;
  for (const VisitKind& kind : visit_kinds_) {
    const Visit& visit = visits_[kind.first];
    const TileWork work = schedule_->work_of(rank, visit);
    AttentionShape shape{.heads = static_cast<double>(g.query_heads(g.member_of(rank)).count),
                         .head_dim = static_cast<double>(g.head_dim),
                         .batch = static_cast<double>(g.batch)};
    const Flops dense = input_.dense.flops() * dense_passes(visit.phase);
    shape.pairs = static_cast<double>(work.useful);
    sum.useful += (attention_flops(shape, visit.phase) + dense) * kind.count;
    shape.pairs = static_cast<double>(work.executed);
    sum.executed += (attention_flops(shape, visit.phase) + dense) * kind.count;
  }
  return sum;
}

}  // namespace orrery
