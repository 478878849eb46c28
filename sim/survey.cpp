#include "sim/survey.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <set>
#include <tuple>

namespace orrery {
namespace {

/// Finds out which links belong to one stream of one rank. Streams are in order, so such a link never has two flows.
class LinkOwners {
 public:
  LinkOwners(BlockStore& blocks, const Cluster& cluster)
      : blocks_(blocks), owner_(cluster.links().size(), -1), is_private_(owner_.size(), true) {}

  void add(const CompiledBlock& block, const CompiledSet& set, const CompiledOp& op) {
    std::int32_t travelling = 0;
    for (std::int32_t i = 0; i < op.message_count; ++i) {
      const CompiledMessage& message = block.messages[static_cast<std::size_t>(op.first_message + i)];
      if (message.route >= 0) ++travelling;
    }
    for (std::int32_t i = 0; travelling > 0 && i < op.message_count; ++i) {
      const CompiledMessage& message = block.messages[static_cast<std::size_t>(op.first_message + i)];
      if (message.route < 0) continue;
      // Several messages of one op travel at the same time.
      const std::int32_t lane = travelling > 1 ? i + 1 : 0;
      std::vector<bool>& seen = seen_[{message.route, message.source, static_cast<int>(op.stream), lane}];
      if (seen.empty()) seen.resize(static_cast<std::size_t>(blocks_.ranks()) + 1);
      if (seen.back()) continue;  // all ranks
      for (Rank r = 0; r < set.ranks.count; ++r) {
        const Rank rank = set.ranks[r];
        if (seen[static_cast<std::size_t>(rank)]) continue;
        seen[static_cast<std::size_t>(rank)] = true;
        claim(blocks_.routes().at(message.route, blocks_.wrap(rank, message.source)),
              (static_cast<std::int64_t>(rank) * streams_per_rank + static_cast<int>(op.stream)) * 4096 + lane % 4096);
      }
      if (set.ranks.count == blocks_.ranks()) seen.back() = true;
    }
  }

  /// The first link found with two owners; -1: none.
  LinkId shared() const { return shared_; }
  const std::vector<bool>& is_private() const { return is_private_; }

 private:
  void claim(const CachedRoute& route, std::int64_t owner) {
    for (const LinkId link : route.route->links) {
      std::int64_t& known = owner_[static_cast<std::size_t>(link)];
      if (known >= 0 && known != owner) {
        if (shared_ < 0) shared_ = link;
        is_private_[static_cast<std::size_t>(link)] = false;
      }
      known = owner;
    }
  }

  BlockStore& blocks_;
  std::vector<std::int64_t> owner_;
  std::vector<bool> is_private_;
  std::map<std::tuple<RouteTable::Column, std::int32_t, int, std::int32_t>, std::vector<bool>> seen_;
  LinkId shared_ = -1;
};

/// Finds out which signals are raised by one stream of one rank, in the order of its ops.
class Raisers {
 public:
  explicit Raisers(std::size_t signals) : known_(signals, nobody), one_(signals, true) {}

  void add(const CompiledBlock& block, const CompiledOp& op) {
    add(op, op.started);
    for (const RelativeSignal& signal : op.finished) add(op, signal);
    for (std::int32_t i = 0; i < op.message_count; ++i) {
      const RelativeSignal& signal = block.messages[static_cast<std::size_t>(op.first_message + i)].delivered;
      add(op, signal);
      // Several messages may arrive in any order.
      if (signal.signal >= 0 && op.message_count > 1) one_[static_cast<std::size_t>(signal.signal)] = false;
    }
  }
  const std::vector<bool>& one() const { return one_; }

 private:
  void add(const CompiledOp& op, RelativeSignal raised) {
    if (raised.signal < 0) return;
    const auto signal = static_cast<std::size_t>(raised.signal);
    const std::int64_t raiser =
        static_cast<std::int64_t>(raised.distance) * streams_per_rank + static_cast<int>(op.stream);
    if (known_[signal] != nobody && known_[signal] != raiser) one_[signal] = false;
    known_[signal] = raiser;
  }

  static constexpr std::int64_t nobody = -1;
  std::vector<std::int64_t> known_;
  std::vector<bool> one_;
};

}  // namespace

Survey survey(BlockStore& blocks, const Cluster& cluster) {
  Survey result;
  result.takes_time.resize(blocks.program().categories().size());
  LinkOwners owners(blocks, cluster);
  Raisers raisers(blocks.program().signals().size());
  std::set<std::int32_t> distances;
  bool traffic = false, slows_transfers = false;
  std::string holds_sms, wants_hbm;
  const double half_of_hbm = cluster.gpu().hbm_bandwidth.si() / 2;
  const Program& program = blocks.program();
  std::vector<bool> seen(static_cast<std::size_t>(program.shapes()));
  std::vector<std::uint64_t> ops(seen.size());
  std::vector<bool> uses_signal(static_cast<std::size_t>(blocks.signals_per_rank()));
  const auto add = [&](RelativeSignal signal) {
    if (signal.signal < 0) return;
    distances.insert(signal.distance);
    uses_signal[static_cast<std::size_t>(signal.signal)] = true;
  };
  for (std::int64_t number = 0; number < blocks.blocks(); ++number) {
    const auto shape = static_cast<std::size_t>(program.shape(number));
    if (seen[shape]) {
      result.ops += ops[shape];
      continue;
    }
    seen[shape] = true;
    CompiledBlock* block = blocks.acquire(number);
    for (const CompiledSet& set : block->sets) {
      result.has_launches = result.has_launches || set.host_time > 0;
      ops[shape] += static_cast<std::uint64_t>(set.ranks.count) * static_cast<std::uint64_t>(set.op_count);
      for (std::int32_t i = 0; i < set.op_count; ++i) {
        const CompiledOp& op = block->ops[static_cast<std::size_t>(set.first_op + i)];
        result.uses_stream[static_cast<std::size_t>(op.stream)] = true;
        add(op.started);
        for (const RelativeSignal& signal : op.finished) add(signal);
        for (int w = 0; w < op.waits_until[2]; ++w) add(op.waits[static_cast<std::size_t>(w)].signal);
        for (std::int32_t m = 0; m < op.message_count; ++m) {
          const CompiledMessage& message = block->messages[static_cast<std::size_t>(op.first_message + m)];
          add(message.delivered);
          distances.insert({message.source, message.destination});
          traffic = traffic || message.route >= 0;
        }
        result.takes_time[op.category] = result.takes_time[op.category] || op.duration > 0 || op.message_count > 0;
        if (op.sms > 0 && op.stream != Stream::compute && holds_sms.empty())
          holds_sms = blocks.name(set.ranks.first, number, op);
        slows_transfers = slows_transfers || op.slows_transfers > 1;
        if (op.stream == Stream::compute && op.hbm_demand > half_of_hbm && wants_hbm.empty()) {
          wants_hbm = blocks.name(set.ranks.first, number, op);
        }
        owners.add(*block, set, op);
        raisers.add(*block, op);
      }
    }
    blocks.release(block);
    result.ops += ops[shape];
  }
  result.holds_sms = !holds_sms.empty();
  result.slows_transfers = traffic && slows_transfers && result.holds_sms;
  result.hbm_matters = traffic && !wants_hbm.empty();
  result.is_private_link = owners.is_private();
  result.one_raiser = raisers.one();
  blocks.keep_signals(uses_signal);
  result.trunks = find_trunks(blocks.routes(), cluster.links(), result.is_private_link);
  if (!holds_sms.empty()) {
    result.contention = fmt::format("{} holds SMs that compute would use", holds_sms);
  } else if (result.hbm_matters) {
    result.contention = fmt::format("{} wants the HBM bandwidth that transfers take", wants_hbm);
  } else if (owners.shared() >= 0) {
    result.contention = fmt::format("link {} carries transfers of several streams or ranks",
                                    cluster.links()[static_cast<std::size_t>(owners.shared())].name);
  }
  result.distances.assign(distances.begin(), distances.end());
  return result;
}

}  // namespace orrery
