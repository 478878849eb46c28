#include "scenarios/schedule.hpp"

#include <array>

namespace orrery {

std::span<const std::string> signal_names() {
  static const std::array<std::string, signal_count> names = {"qkv_ready",
                                                              "inputs_ready",
                                                              "exchange_posted",
                                                              "exchange_in_arrived",
                                                              "exchange_out_arrived",
                                                              "computed",
                                                              "kv_arrived",
                                                              "kv_consumed",
                                                              "kv_sent",
                                                              "kv_posted",
                                                              "kv_returned",
                                                              "grad_arrived",
                                                              "grad_consumed",
                                                              "grad_sent",
                                                              "grad_posted",
                                                              "grad_home",
                                                              "outer_kv_arrived",
                                                              "outer_kv_consumed",
                                                              "outer_kv_sent",
                                                              "outer_kv_posted",
                                                              "outer_grad_arrived",
                                                              "outer_grad_consumed",
                                                              "outer_grad_sent",
                                                              "outer_grad_posted",
                                                              "ring_summed",
                                                              "sms_free"};
  return names;
}

void Schedule::wait_for_end(Rank, const Visit&, Op&) const {}

std::span<const ScheduleKind> schedules() {
  using HeadExchange = ScheduleKind::HeadExchange;
  static constexpr std::array table = {
      ScheduleKind{"ring", "KV blocks go round a ring until every rank has seen all (Ring Attention, arXiv 2310.01889)",
                   make_ring, HeadExchange::none},
      ScheduleKind{
          "double_ring",
          "rings within rings: inner_ring ranks rotate, then whole rings pass on (LoongTrain, arXiv 2406.18485)",
          make_double_ring,
          HeadExchange::none,
          true,
          {},
          {4, 8}},
      ScheduleKind{"all_gather",
                   "every rank gathers all KV, then attends (Llama 3, arXiv 2407.21783)",
                   make_all_gather,
                   HeadExchange::none,
                   false,
                   "a gather is over before its rows are attended",
                   {2, 2, ScheduleKind::Slots::Hold::sequence}},
      ScheduleKind{"ulysses", "all-to-all trades tokens for heads before and after attention (arXiv 2309.14509)",
                   make_ring, HeadExchange::all_ranks},
      ScheduleKind{"usp", "head exchange among ulysses_degree ranks, ring across the groups (arXiv 2405.07719)",
                   make_ring, HeadExchange::stated},
      ScheduleKind{"halo",
                   "fetch only the KV rows the pattern needs, from whichever ranks hold them",
                   make_halo,
                   HeadExchange::none,
                   false,
                   {},
                   {2, 2, ScheduleKind::Slots::Hold::fetched}},
  };
  return table;
}

BlockTables::BlockTables(const ScheduleInput& input) {
  for (const Mask& mask : input.masks) keys_.emplace_back(input.geometry, mask, input.tile);
  for (const Mask& mask : input.value_masks) values_.emplace_back(input.geometry, mask, input.tile);
}

Action attention_action(const Geometry& geometry, Rank rank, const Visit& visit, const TokenSet& keys, Buffer from) {
  Action action;
  action.kind = visit.phase == Phase::forward ? ActionKind::attend : ActionKind::attend_backward;
  action.layer = visit.layer;
  action.queries = &geometry.tokens_of(rank);
  action.rows = &keys;
  action.query_heads = geometry.query_heads(geometry.member_of(rank));
  action.kv_heads = geometry.kv_heads_of(geometry.member_of(rank));
  action.from = from;
  return action;
}

void write_attention(BlockWriter& writer, const Implementation& implementation, Rank rank, Action action,
                     const TileWork& work, Op op, SignalRef consumed, std::span<const AttentionPart> apart) {
  const bool merges_apart =
      action.kind == ActionKind::attend && implementation.merge == Merge::kernel && !action.first && work.useful > 0;
  action.merges = !merges_apart;
  op.finished[0] = consumed;
  const bool tells_of_sms = action.kind == ActionKind::attend && waits_for_sms(implementation.transfer_order);
  writer.attention(action, work, op,
                   {merges_apart ? SignalRef{} : at(rank, Signal::computed),
                    tells_of_sms ? at(rank, Signal::sms_free) : SignalRef{}},
                   apart);
  if (!merges_apart) return;
  Op merge;
  merge.finished[0] = at(rank, Signal::computed);
  action.kind = ActionKind::merge;
  writer.merge(action, work.query_rows, merge);
}

}  // namespace orrery
