#include "sim/block_store.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <stdexcept>

namespace orrery {
namespace {

constexpr std::int64_t most_kept = 4096;
constexpr std::size_t most_ops_of_block = std::size_t{1} << 21;  // about half a gigabyte
constexpr std::size_t sets_to_search = 4;

std::string op_name(const Program& program, Rank rank, std::int64_t block, std::int32_t index, Stream stream) {
  return fmt::format("rank {} {} \"{}\"", rank,
                     static_cast<int>(stream) < streams_per_rank ? name_of(stream) : "(unknown stream)",
                     program.describe(rank, block, index));
}

std::int32_t checked_signals_per_rank(const Program& program) {
  const auto signals = program.signals().size();
  const auto most = static_cast<std::size_t>(std::numeric_limits<std::int32_t>::max());
  if (program.ranks() > 0 && signals > most / static_cast<std::size_t>(program.ranks())) {
    throw std::invalid_argument(fmt::format(
        "{} ranks with {} signals each are too many (signals are numbered with 31 bits)", program.ranks(), signals));
  }
  return static_cast<std::int32_t>(signals);
}

}  // namespace

BlockStore::BlockStore(const Program& program, const Cluster& cluster)
    : program_(program),
      cluster_(cluster),
      ranks_(program.ranks()),
      blocks_(program.blocks()),
      signals_per_rank_(checked_signals_per_rank(program)),
      signal_slots_(static_cast<SignalPlace>(signals_per_rank_)),
      slot_of_signal_(signal_slots_),
      categories_(program.categories().size()),
      phases_(program.phases().size()),
      place_of_account_(streams_per_rank * categories_ * phases_, -1),
      routes_(cluster, ranks_),
      kept_(static_cast<std::size_t>(std::clamp<std::int64_t>(program.shapes(), 1, most_kept))) {
  std::iota(slot_of_signal_.begin(), slot_of_signal_.end(), SignalPlace{0});
  if (ranks_ < 0 || ranks_ > cluster.ranks()) {
    throw std::invalid_argument(fmt::format(
        "the program has {} ranks (the cluster has {}); use a cluster of at least as many", ranks_, cluster.ranks()));
  }
}

BlockStore::~BlockStore() {
  for (const Kept& entry : kept_) delete entry.block;
}

CompiledBlock* BlockStore::acquire(std::int64_t block) {
  const std::int64_t shape = program_.shape(block);
  Kept& entry = kept_[static_cast<std::size_t>(shape) % kept_.size()];
  if (entry.shape != shape) {
    std::unique_ptr<CompiledBlock> compiled = compile(block);
    if (entry.block != nullptr) {
      entry.block->kept = false;
      if (entry.block->holders == 0) delete entry.block;
    }
    entry = {shape, compiled.release()};
  }
  ++entry.block->holders;
  return entry.block;
}

std::unique_ptr<CompiledBlock> BlockStore::compile(std::int64_t block) {
  auto compiled = std::make_unique<CompiledBlock>();
  partition_.clear();
  program_.partition(block, partition_);
  check_partition(block, partition_);
  for (const RankSet& ranks : partition_) {
    compile_set(block, ranks, *compiled);
    const std::size_t ops = compiled->ops.size() * partition_.size();
    if (&ranks != &partition_.front() || ops <= most_ops_of_block) continue;
    throw std::invalid_argument(fmt::format(
        "block {} holds about {} ops of {} sets of ranks that differ (at most {} fit), use fewer ranks or another "
        "schedule",
        block, ops, partition_.size(), most_ops_of_block));
  }
  link(*compiled);
  if (partition_.size() > sets_to_search) {
    compiled->set_of_rank.resize(static_cast<std::size_t>(ranks_));
    for (std::size_t i = 0; i < partition_.size(); ++i) {
      for (Rank r = 0; r < partition_[i].count; ++r) {
        compiled->set_of_rank[static_cast<std::size_t>(partition_[i][r])] = static_cast<std::int32_t>(i);
      }
    }
  }
  return compiled;
}

void BlockStore::check_partition(std::int64_t block, const std::vector<RankSet>& sets) const {
  std::int64_t ranks = 0;
  for (const RankSet& set : sets) {
    if (set.first < 0 || set.stride < 1 || set.count < 1 || set[set.count - 1] >= ranks_) {
      throw std::invalid_argument(fmt::format("block {} names ranks {}, {}, ... ({} of them); the program has {} ranks",
                                              block, set.first, set.first + set.stride, set.count, ranks_));
    }
    ranks += set.count;
  }
  if (ranks != ranks_) {
    throw std::invalid_argument(
        fmt::format("the sets of ranks of block {} have {} ranks in all (the program has {})", block, ranks, ranks_));
  }
  if (sets.size() == 1) return;
  std::vector<bool> seen(static_cast<std::size_t>(ranks_));
  for (const RankSet& set : sets) {
    for (Rank i = 0; i < set.count; ++i) {
      if (seen[static_cast<std::size_t>(set[i])]) {
        throw std::invalid_argument(
            fmt::format("block {} has rank {} in two sets of ranks, name every rank once", block, set[i]));
      }
      seen[static_cast<std::size_t>(set[i])] = true;
    }
  }
}

void BlockStore::compile_set(std::int64_t block, const RankSet& ranks, CompiledBlock& compiled) {
  const Rank rank = ranks.first;
  const std::span<const std::int64_t> before = program_.counts_before(block);
  buffer_.begin(block);
  program_.generate(rank, block, buffer_);
  CompiledSet set;
  set.ranks = ranks;
  set.first_op = static_cast<std::int32_t>(compiled.ops.size());
  set.op_count = static_cast<std::int32_t>(buffer_.ops().size());
  for (const Op& op : buffer_.ops()) {
    check(rank, op);
    CompiledOp& out = compiled.ops.emplace_back();
    if (op.launch > std::numeric_limits<Ticks>::max() - set.host_time) {
      throw std::overflow_error(
          fmt::format("{} is issued beyond 2^63 ps (106 days)", op_name(program_, rank, block, op.index, op.stream)));
    }
    set.host_time += op.launch;
    out.issue = set.host_time;
    out.duration = op.duration;
    // Rounding the duration down may make an op that just saturates HBM ask for a little more than there is.
    out.hbm_demand =
        op.duration == 0 ? 0 : std::min(op.hbm_traffic / to_seconds(op.duration), cluster_.gpu().hbm_bandwidth).si();
    out.sms = op.sms;
    out.slows_transfers = op.slows_transfers;
    out.index = op.index;
    out.account = account(op);
    out.stream = op.stream;
    out.category = op.category;
    out.phase = op.phase;
    out.started = relative(rank, op, op.started);
    for (int i = 0; i < Op::max_signals; ++i) out.finished[i] = relative(rank, op, op.finished[i]);
    std::uint8_t waits = 0;
    for (int stage = 0; stage < 3; ++stage) {
      for (int i = 0; i < op.wait_count; ++i) {
        const Wait& wait = op.waits[i];
        if (static_cast<int>(wait.stage) != stage || wait.signal.rank == -1) continue;
        const RelativeSignal signal = relative(rank, op, wait.signal);
        const std::int64_t base = before.empty() ? 0 : before[static_cast<std::size_t>(signal.signal)];
        out.waits[waits++] = CompiledWait{wait.count - base, signal, no_signal};
      }
      out.waits_until[stage] = waits;
    }
    out.first_message = static_cast<std::int32_t>(compiled.messages.size());
    out.message_count = op.message_count;
    for (const Message& message : buffer_.messages_of(op)) {
      check(rank, op, message);
      compiled.messages.push_back(relative(rank, op, message));
    }
    const std::span messages(compiled.messages.data() + out.first_message, static_cast<std::size_t>(op.message_count));
    const auto travels = [](const CompiledMessage& message) { return message.route >= 0; };
    const auto is_own = [](const CompiledMessage& message) { return message.source == 0 || message.destination == 0; };
    out.sends_at_once = op.stream != Stream::compute && out.waits_until[0] == out.waits_until[1] && !messages.empty() &&
                        std::all_of(messages.begin(), messages.end(), travels) &&
                        std::any_of(messages.begin(), messages.end(), is_own);
    out.is_simple = out.waits_until[0] == out.waits_until[2] && out.started.signal < 0 && !(op.sms > 0) &&
                    (out.sends_at_once ? messages.size() == 1
                                       : messages.empty() && (op.stream == Stream::compute || op.duration == 0));
  }
  compiled.sets.push_back(set);
}

/// Now that nothing moves any more.
void BlockStore::link(CompiledBlock& compiled) const {
  for (CompiledMessage& message : compiled.messages) message.delivered_place = place(message.delivered);
  for (CompiledSet& set : compiled.sets) {
    std::array<CompiledOp*, streams_per_rank> last{};
    for (std::int32_t i = 0; i < set.op_count; ++i) {
      CompiledOp& op = compiled.ops[static_cast<std::size_t>(set.first_op + i)];
      op.messages = compiled.messages.data() + op.first_message;
      link_signals(op);
      op.next = nullptr;
      CompiledOp*& before = last[static_cast<std::size_t>(op.stream)];
      if (before != nullptr && joins(op, *before)) {
        for (std::uint8_t r = 0; r < op.raise_count; ++r) before->raises[before->raise_count++] = op.raises[r];
        continue;
      }
      (before == nullptr ? set.first_on_stream[static_cast<std::size_t>(op.stream)] : before->next) = &op;
      before = &op;
    }
  }
}

void BlockStore::link_signals(CompiledOp& op) const {
  op.started_place = place(op.started);
  for (CompiledWait& wait : op.waits) wait.place = place(wait.signal);
  op.raise_count = 0;
  const auto add_raise = [&](RelativeSignal signal) {
    if (signal.signal >= 0) op.raises[op.raise_count++] = place(signal);
  };
  if (op.is_simple && op.message_count > 0) add_raise(op.messages[0].delivered);
  op.first_finished = op.raise_count;
  for (const RelativeSignal& signal : op.finished) add_raise(signal);
}

bool BlockStore::joins(const CompiledOp& marker, const CompiledOp& before) const {
  return joins_markers_ && before.is_simple && marker.is_simple && marker.waits_until[2] == 0 &&
         marker.message_count == 0 && marker.duration == 0 && marker.phase == before.phase &&
         static_cast<std::size_t>(before.raise_count + marker.raise_count) <= before.raises.size();
}

void BlockStore::join_markers() {
  joins_markers_ = true;
  for (const Kept& entry : kept_) {
    if (entry.block != nullptr) link(*entry.block);
  }
}

void BlockStore::keep_signals(const std::vector<bool>& used) {
  signal_slots_ = 0;
  for (std::size_t s = 0; s < used.size(); ++s) {
    if (used[s]) slot_of_signal_[s] = signal_slots_++;
  }
  for (const Kept& entry : kept_) {
    if (entry.block != nullptr) link(*entry.block);
  }
}

std::uint16_t BlockStore::account(const Op& op) {
  std::int32_t& place =
      place_of_account_[(static_cast<std::size_t>(op.stream) * categories_ + op.category) * phases_ + op.phase];
  if (place < 0) {
    constexpr std::size_t most = std::size_t{1} << 16;  // what CompiledOp::account can tell apart
    if (accounts_.size() == most) {
      throw std::invalid_argument(
          fmt::format("the program has ops of more than {} kinds (stream, category and phase), "
                      "use fewer categories or phases",
                      most));
    }
    place = static_cast<std::int32_t>(accounts_.size());
    accounts_.push_back({op.stream, op.category, op.phase});
  }
  return static_cast<std::uint16_t>(place);
}

void BlockStore::check(Rank rank, const Op& op) const {
  const char* problem = nullptr;
  if (op.launch < 0) problem = "a negative launch time";
  if (op.duration < 0) problem = "a negative duration";
  if (!(op.hbm_traffic.si() >= 0)) problem = "a negative HBM traffic";
  if (!(op.sms >= 0)) problem = "a negative number of SMs";
  if (!(op.slows_transfers >= 1) || !std::isfinite(op.slows_transfers)) problem = "transfers that it speeds up";
  if (static_cast<int>(op.stream) >= streams_per_rank) problem = "no such stream";
  if (op.category >= categories_) problem = "a category that Program::categories() does not list";
  if (op.phase >= phases_) problem = "a phase that Program::phases() does not list";
  if (op.wait_count > Op::max_waits) problem = "more waits than fit";
  if (problem == nullptr) return;
  throw std::invalid_argument(
      fmt::format("{} has {}", op_name(program_, rank, op.block, op.index, op.stream), problem));
}

void BlockStore::check(Rank rank, const Op& op, const Message& message) const {
  if (message.source >= 0 && message.source < ranks_ && message.destination >= 0 && message.destination < ranks_ &&
      message.size.si() >= 0 && std::isfinite(message.size.si())) {
    return;
  }
  throw std::invalid_argument(
      fmt::format("{} sends {} bytes from rank {} to rank {} (the program has {} ranks, and a size is zero or more)",
                  op_name(program_, rank, op.block, op.index, op.stream), message.size.si(), message.source,
                  message.destination, ranks_));
}

RelativeSignal BlockStore::relative(Rank rank, const Op& op, SignalRef signal) const {
  if (signal.rank == -1) return {};
  if (signal.rank < 0 || signal.rank >= ranks_ || signal.signal < 0 || signal.signal >= signals_per_rank_) {
    throw std::invalid_argument(fmt::format(
        "{} names signal {} of rank {} (the program has {} ranks with {} signals each)",
        op_name(program_, rank, op.block, op.index, op.stream), signal.signal, signal.rank, ranks_, signals_per_rank_));
  }
  return {distance(rank, signal.rank), signal.signal};
}

CompiledMessage BlockStore::relative(Rank rank, const Op& op, const Message& message) {
  const bool travels = message.source != message.destination && message.size.si() > 0;
  CompiledMessage compiled;
  compiled.size = message.size.si();
  compiled.source = distance(rank, message.source);
  compiled.destination = distance(rank, message.destination);
  compiled.delivered = relative(rank, op, message.delivered);
  if (travels) compiled.route = routes_.column(distance(message.source, message.destination));
  return compiled;
}

std::string BlockStore::name(Rank rank, std::int64_t block, const CompiledOp& op) const {
  return op_name(program_, rank, block, op.index, op.stream);
}

}  // namespace orrery
