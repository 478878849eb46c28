// Halo exchange: every rank fetches just the KV rows its queries score, from whichever ranks hold them, any distance
// away. Local attention runs while the rows travel; a second kernel attends them. Or (halo attention `together`) one
// kernel attends both once the rows are there. Backward fetches them again and returns their gradients, which the owner
// adds to its own. A gated skip fetches rows of V alone beyond these (`values`). Some libraries fetch whole windows
// (halo_of_whole_windows), the key that the first query sees itself as included, which leaves kernels a round length.
//
// Buffers: the fetched rows of a visit go into slot v % 2 (v counts the visits that fetch anything).
#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "scenarios/gradient_ring.hpp"

namespace orrery {
namespace {

/// What the groups fetch in layers of one pattern class.
struct Fetches {
  std::vector<int> distances;               // at which any group finds rows, upstream
  std::vector<std::vector<TokenSet>> rows;  // by group, by index of the distance
  std::vector<std::vector<Index>> values;   // likewise: rows of V beyond these
  std::vector<TokenSet> all;                // by group: concatenation over the distances
  std::vector<TileWork> local, remote;      // by group: what the two kernels do, or (together) the second does both
};

/// `keys` and `values` are fetched, of which `mask` says what is scored.
Fetches find_fetches(const Geometry& geometry, const Mask& mask, const Mask& keys, const Mask& values, TileShape tile,
                     GatherAttention attention) {
  const int groups = geometry.groups;
  const auto tokens = [&](int group) -> const TokenSet& {
    return geometry.group_tokens[static_cast<std::size_t>((group + groups) % groups)];
  };
  Fetches fetches;
  fetches.rows.resize(static_cast<std::size_t>(groups));
  fetches.values.resize(static_cast<std::size_t>(groups));
  const TileTable works(geometry, mask, tile);
  fetches.distances = &values == &mask ? works.distances() : TileTable(geometry, values, tile).distances();
  for (int group = 0; group < groups; ++group) {
    for (const int distance : fetches.distances) {
      const auto g = static_cast<std::size_t>(group);
      fetches.rows[g].push_back(keys.keys_needed(tokens(group), tokens(group - distance)));
      const Index all = values.keys_needed(tokens(group), tokens(group - distance)).size();
      fetches.values[g].push_back(all - fetches.rows[g].back().size());
    }
  }
  for (int group = 0; group < groups; ++group) {
    fetches.all.push_back(concatenate(fetches.rows[static_cast<std::size_t>(group)]));
    const TokenSet& fetched = fetches.all.back();
    if (attention == GatherAttention::together && !fetched.empty()) {
      const TokenSet all = concatenate({fetched, tokens(group)});
      fetches.local.emplace_back();
      fetches.remote.push_back(measure(mask.local(tokens(group), all), tile));
      fetches.remote.back().key_rows = all.size();  // also of those that no query scores
      continue;
    }
    fetches.local.push_back(works.at(group, group));
    fetches.remote.push_back(measure(mask.local(tokens(group), fetched), tile));
  }
  return fetches;
}

class Halo : public Schedule {
 public:
  explicit Halo(const ScheduleInput& input) : geometry_(input.geometry), implementation_(input.implementation) {
    std::set<int> all;
    for (std::size_t c = 0; c < input.masks.size(); ++c) {
      const bool whole_windows = input.implementation.halo_of_whole_windows;
      const Mask& keys = whole_windows ? input.halo_masks[c] : input.masks[c];
      const auto& gated = whole_windows ? input.halo_value_masks : input.value_masks;
      fetches_.push_back(find_fetches(input.geometry, input.masks[c], keys, gated.empty() ? keys : gated[c], input.tile,
                                      input.implementation.halo_attention));
      all.insert(fetches_.back().distances.begin(), fetches_.back().distances.end());
    }
    all_distances_.assign(all.begin(), all.end());
  }

  /// Local attention, attention of the fetched rows, and (backward) the sum of the gradients that came back.
  int steps(const Visit& visit) const override {
    return distances(visit) == 0 ? 1 : visit.phase == Phase::forward ? 2 : 3;
  }

  /// Several ranks send to one, and none waits for the others: an arrival signal for each distance.
  std::vector<std::string> extra_signals() const override {
    std::vector<std::string> names;
    for (const int d : all_distances_) names.push_back(fmt::format("kv_arrived from distance {}", d));
    return names;
  }

  SignalCounts raises(const Visit& visit) const override {
    SignalCounts raised(all_distances_.size());
    raised[Signal::computed] = steps(visit);
    const int count = distances(visit), fetched = fetched_distances(visit);
    for (int i = 0; i < fetched; ++i) raised.counts[signal_count + distance_index(distance(visit, i))] = 1;
    raised[Signal::kv_sent] = raised[Signal::kv_posted] = fetched;
    raised[Signal::kv_consumed] = fetched > 0 ? 1 : 0;
    if (visit.phase == Phase::forward) return raised;
    raised[Signal::grad_arrived] = raised[Signal::grad_sent] = raised[Signal::grad_posted] = count;
    raised[Signal::grad_consumed] = count > 0 ? 1 : 0;
    return raised;
  }

  void write_step(Rank rank, const Visit& visit, int step, BlockWriter& writer) const override {
    if (step == 0) {
      for (int i = 0; i < fetched_distances(visit); ++i) write_fetch(rank, visit, i, writer);
      write_local(rank, visit, writer);
    } else if (step == 1) {
      write_remote(rank, visit, writer);
      for (int i = 0; visit.phase == Phase::backward && i < distances(visit); ++i) write_return(rank, visit, i, writer);
    } else {
      for (int i = 0; i < distances(visit); ++i) write_sum(rank, visit, i, writer);
    }
  }

  TileWork work_of(Rank rank, const Visit& visit) const override {
    const auto group = static_cast<std::size_t>(geometry_.group_of(rank));
    TileWork work = fetches(visit).local[group];
    return work += fetches(visit).remote[group];
  }

  void partition(const Visit& visit, int, std::vector<RankSet>& sets) const override {
    const Fetches& f = fetches(visit);
    const auto key = [&](int group) {
      const auto g = static_cast<std::size_t>(group);
      std::vector<Index> sizes;
      for (const TileWork& work : {f.local[g], f.remote[g]}) {
        sizes.insert(sizes.end(), {work.useful, work.executed, work.query_rows});
      }
      const Rank rank = group * geometry_.members;
      for (int i = 0; i < distances(visit); ++i) {
        for (const Rank to : {rank, geometry_.neighbour(rank, distance(visit, i))}) {
          sizes.insert(sizes.end(), {rows(to, visit, i).size(), values_alone(to, visit, i)});
        }
      }
      return sizes;
    };
    partition_groups(geometry_, key, sets);
  }

 private:
  bool nccl() const { return implementation_.transport == Transport::nccl; }
  const Fetches& fetches(const Visit& visit) const { return fetches_[static_cast<std::size_t>(visit.pattern_class)]; }
  int distances(const Visit& visit) const { return static_cast<int>(fetches(visit).distances.size()); }
  int fetched_distances(const Visit& visit) const {
    return implementation_.halo_is_kept && visit.phase == Phase::backward ? 0 : distances(visit);
  }
  int distance(const Visit& visit, int i) const { return fetches(visit).distances[static_cast<std::size_t>(i)]; }
  const TokenSet& rows(Rank rank, const Visit& visit, int i) const {
    return fetches(visit).rows[static_cast<std::size_t>(geometry_.group_of(rank))][static_cast<std::size_t>(i)];
  }
  Index values_alone(Rank rank, const Visit& visit, int i) const {
    return fetches(visit).values[static_cast<std::size_t>(geometry_.group_of(rank))][static_cast<std::size_t>(i)];
  }
  std::size_t distance_index(int d) const {
    return static_cast<std::size_t>(std::lower_bound(all_distances_.begin(), all_distances_.end(), d) -
                                    all_distances_.begin());
  }
  SignalRef arrived(Rank rank, const Visit& visit, int i) const {
    return extra_signal(rank, distance_index(distance(visit, i)));
  }
  std::int64_t arrivals(const Visit& visit, int i) const {
    return visit.before.counts[signal_count + distance_index(distance(visit, i))] + 1;
  }
  HeadRange kv_heads(Rank rank) const { return geometry_.kv_heads_of(geometry_.member_of(rank)); }
  Buffer slot(const Visit& visit) const {
    return implementation_.halo_is_kept ? Buffer{BufferKind::saved_kv}
                                        : slot_of(BufferKind::kv_slot, visit.before[Signal::kv_consumed], 2);
  }
  static Buffer work_buffer(const Visit& visit) {
    return slot_of(BufferKind::d_kv_work, visit.before[Signal::grad_consumed], 1);
  }
  static Buffer returned(const Visit& visit, int i) {
    return {BufferKind::d_kv_in, i, visit.before[Signal::grad_consumed]};
  }

  void wait_for_order(Rank rank, const Visit& visit, Op& op) const {
    if (implementation_.transfer_order != TransferOrder::same_step_compute) return;
    op.wait_for(at(rank, Signal::computed), visit.before[Signal::computed] + 1);
  }

  /// Sends to the rank `distance` downstream the rows it needs of ours.
  void write_fetch(Rank rank, const Visit& visit, int i, BlockWriter& writer) const {
    const Rank to = geometry_.neighbour(rank, distance(visit, i));
    const std::int64_t ordinal = visit.before[Signal::kv_sent] + i;
    Op op;
    op.wait_for(at(rank, Signal::inputs_ready), visit.before[Signal::inputs_ready] + 1);
    op.wait_for(at(nccl() ? rank : to, Signal::kv_consumed), visit.before[Signal::kv_consumed] - 1);
    wait_for_order(rank, visit, op);
    op.finished[0] = at(rank, Signal::kv_sent);
    if (nccl()) {
      rendezvous(op, rank, to, Signal::kv_posted, ordinal);
      op.wait_for(arrived(rank, visit, i), arrivals(visit, i), WaitStage::finish);
    }
    Action action{.kind = ActionKind::transfer, .layer = visit.layer, .step = i};
    action.messages = {{rank,
                        to,
                        {BufferKind::kv},
                        slot(visit),
                        &rows(to, visit, i),
                        kv_heads(rank),
                        false,
                        arrived(to, visit, i),
                        values_alone(to, visit, i)}};
    writer.transfer(action, Category::kv_transfer, implementation_.kv_messages, op);
  }

  void write_local(Rank rank, const Visit& visit, BlockWriter& writer) const {
    Action action = attention_action(geometry_, rank, visit, geometry_.tokens_of(rank), {BufferKind::kv});
    action.first = true;
    action.into = {BufferKind::d_kv};
    const auto group = static_cast<std::size_t>(geometry_.group_of(rank));
    write_attention(writer, implementation_, rank, action, fetches(visit).local[group], Op{}, {});
  }

  void write_remote(Rank rank, const Visit& visit, BlockWriter& writer) const {
    const auto group = static_cast<std::size_t>(geometry_.group_of(rank));
    Action action = attention_action(geometry_, rank, visit, fetches(visit).all[group], slot(visit));
    action.step = 1;
    action.into = work_buffer(visit);
    const int fetched = fetched_distances(visit);
    for (int i = 0; !nccl() && i < fetched; ++i) {
      Op arrival;
      arrival.wait_for(arrived(rank, visit, i), arrivals(visit, i));
      writer.marker({.kind = ActionKind::marker, .layer = visit.layer, .step = 1}, arrival);
    }
    Op op;
    if (nccl() && fetched > 0) op.wait_for(at(rank, Signal::kv_sent), visit.before[Signal::kv_sent] + fetched);
    if (visit.phase == Phase::backward) op.wait_for(at(rank, Signal::grad_sent), visit.before[Signal::grad_sent]);
    write_attention(writer, implementation_, rank, action, fetches(visit).remote[group], op,
                    fetched > 0 ? at(rank, Signal::kv_consumed) : SignalRef{});
  }

  void write_return(Rank rank, const Visit& visit, int i, BlockWriter& writer) const {
    const Rank to = geometry_.neighbour(rank, -distance(visit, i));
    const std::int64_t ordinal = visit.before[Signal::grad_sent] + i;
    Op op;
    op.wait_for(at(rank, Signal::computed), visit.before[Signal::computed] + 2);
    op.wait_for(at(nccl() ? rank : to, Signal::grad_consumed), visit.before[Signal::grad_consumed]);
    op.finished[0] = at(rank, Signal::grad_sent);
    if (nccl()) {
      rendezvous(op, rank, to, Signal::grad_posted, ordinal);
      op.wait_for(at(rank, Signal::grad_arrived), ordinal + 1, WaitStage::finish);
    }
    Action action{.kind = ActionKind::transfer, .layer = visit.layer, .step = i};
    action.messages = {{rank, to, work_buffer(visit), returned(visit, i), &rows(rank, visit, i), kv_heads(rank), false,
                        at(to, Signal::grad_arrived), values_alone(rank, visit, i)}};
    writer.transfer(action, Category::gradient_transfer, implementation_.kv_messages, op);
  }

  void write_sum(Rank rank, const Visit& visit, int i, BlockWriter& writer) const {
    const Rank from = geometry_.neighbour(rank, distance(visit, i));
    Action action{.kind = ActionKind::accumulate,
                  .layer = visit.layer,
                  .rows = &rows(from, visit, i),
                  .values_alone = values_alone(from, visit, i),
                  .kv_heads = kv_heads(rank),
                  .from = returned(visit, i),
                  .into = {BufferKind::d_kv},
                  .step = 2};
    Op op;
    if (i == 0) op.wait_for(at(rank, Signal::grad_arrived), visit.before[Signal::grad_arrived] + distances(visit));
    if (i + 1 == distances(visit)) op.finished = {at(rank, Signal::grad_consumed), at(rank, Signal::computed)};
    if (action.rows->empty() && action.values_alone == 0) {
      writer.marker(action, op);
    } else {
      writer.accumulate(action, op);
    }
  }

  const Geometry& geometry_;
  const Implementation& implementation_;
  std::vector<Fetches> fetches_;    // by pattern class
  std::vector<int> all_distances_;  // of all classes, ascending
};

}  // namespace

std::unique_ptr<Schedule> make_halo(const ScheduleInput& input) {
  return std::make_unique<Halo>(input);
}

}  // namespace orrery
