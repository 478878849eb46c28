// Puts the event tier together, and takes its events in turn.
#include "sim/event_engine.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <stdexcept>

#include "sim/event_simple_ops.hpp"

namespace orrery {
namespace {

constexpr std::uint32_t signals_fetched = 20;  // five lines: most often those of a rank, and some of the next
constexpr Rank most_ranks_in_cache = 4096;     // so that a megabyte holds what they need

}  // namespace

EventEngine::EventEngine(BlockStore& blocks, const Cluster& cluster, const Survey& survey,
                         const SimulationOptions& options)
    : blocks_(blocks),
      program_(blocks.program()),
      cluster_(cluster),
      perturbation_(options.perturbation),
      sink_(options.sink),
      trunks_(survey.trunks),
      trunk_states_(trunks_.trunks.size()),
      network_(cluster.links()),
      ranks_(blocks.ranks()),
      signals_per_rank_(blocks.signal_slots()),
      signal_count_(signals_per_rank_ * static_cast<std::uint32_t>(ranks_)),
      is_private_link_(survey.is_private_link),
      holds_sms_(survey.holds_sms),
      fixed_durations_(!survey.holds_sms && !survey.hbm_matters &&
                       (options.faults == nullptr || options.faults->pauses.empty())),
      hbm_matters_(survey.hbm_matters),
      slows_transfers_(survey.slows_transfers),
      has_launches_(survey.has_launches),
      rates_matter_(survey.hbm_matters || sink_ != nullptr),
      has_simple_ops_(fixed_durations_ && !has_launches_ && !rates_matter_ && options.faults == nullptr),
      in_cache_(ranks_ <= most_ranks_in_cache),
      prefetches_(has_simple_ops_ && blocks.routes().columns() > 0 && (trunk_states_.empty() || !in_cache_)),
      no_counts_(static_cast<std::size_t>(blocks.signals_per_rank())),
      accounts_(blocks.ranks(), blocks.accounts()),
      spans_(sink_),
      link_tracer_(sink_, cluster.links().size()) {
  const auto ranks = static_cast<std::size_t>(blocks.ranks());
  for (std::size_t i = 0; i < streams_per_rank; ++i) {
    if (survey.uses_stream[i]) streams_in_use_.push_back(static_cast<Stream>(i));
  }
  streams_.resize(ranks * streams_in_use_.size());
  for (std::size_t i = 0; i < streams_.size(); ++i) {
    streams_[i].rank = static_cast<Rank>(i / streams_in_use_.size());
    streams_[i].first_signal = static_cast<std::uint32_t>(streams_[i].rank) * signals_per_rank_;
    streams_[i].kind = streams_in_use_[i % streams_in_use_.size()];
  }
  if (has_launches_) host_times_.resize(streams_.size());
  ready_.resize(std::bit_ceil(streams_.size()));
  ready_mask_ = static_cast<std::uint32_t>(ready_.size() - 1);
  signals_.resize(signal_count_ + signals_fetched);
  messages_.resize(streams_.size());
  lanes_.resize(ranks * blocks.routes().columns());
  compute_.resize(fixed_durations_ ? 0 : ranks);
  is_dirty_.resize(compute_.size());
  slowing_.resize(slows_transfers_ ? ranks : 0, 1);
  slowed_.resize(slowing_.size());
  lay_out_paths(survey);
  if (has_simple_ops_) blocks.join_markers();
  if (options.faults != nullptr) expect_faults(*options.faults);
}

EventEngine::~EventEngine() {
  for (const OpenBlock& block : open_blocks_) {
    if (block.holders > 0) blocks_.release(block.compiled);
  }
}

void EventEngine::lay_out_paths(const Survey& survey) {
  bool first = true;
  for (const bool takes_time : survey.takes_time) {
    row_of_category_.push_back(!takes_time ? takes_no_time : first ? gets_the_rest : static_cast<int>(path_rows_++));
    first = first && !takes_time;
  }
  if (!survey.contention.empty()) contention_row_ = static_cast<int>(path_rows_++);
  if (has_launches_) launch_row_ = static_cast<int>(path_rows_++);
  for (const Account& account : blocks_.accounts()) {
    const int row = row_of_category_[account.category];
    row_of_account_.push_back(row < 0 ? path_rows_ : static_cast<std::size_t>(row));
  }
  path_stride_ = path_rows_ + 1;
  paths_.resize(streams_.size() * path_stride_);
  message_path_.resize(path_rows_ + 1);
}

ORRERY_HOT void EventEngine::handle(EventKind kind, std::int32_t target, std::uint32_t generation) {
  StreamId stream = no_stream;
  if (kind == EventKind::simple_compute_end) {
    end_simple(target, false);
  } else if (kind == EventKind::simple_transfer_end) {
    end_simple(target, true);
  } else {
    stream = handle_rare(kind, target, generation);
  }
  if (stream == no_stream) stream = next_ready();
  for (; stream != no_stream; stream = next_ready()) advance(stream);
}

/// Returns the stream that goes on. Others may have been made ready.
StreamId EventEngine::handle_rare(EventKind kind, std::int32_t target, std::uint32_t generation) {
  const auto is_stale = [&](std::uint32_t current) { return generation != (current & Event::generation_mask); };
  switch (kind) {
    case EventKind::compute_end: {
      if (!fixed_durations_) {
        ComputeRate& compute = compute_[streams_[target].rank];
        if (is_stale(compute.generation())) break;
        compute.stop();
      }
      end_compute(target, streams_[target]);
      return target;
    }
    case EventKind::simple_compute_end:
    case EventKind::simple_transfer_end:
    case EventKind::launch:
      return target;
    case EventKind::startup_end:
      end_startup(target, streams_[target]);
      return target;
    case EventKind::latency_end:
      end_latency(target);
      return no_stream;
    case EventKind::delivery:
      deliver_only(target, streams_[target]);
      return target;
    case EventKind::arrival:
      arrive(target);
      return no_stream;
    case EventKind::flow_end:
      if (is_stale(flows_[target].generation)) break;
      end_flow(target);
      return no_stream;
    case EventKind::trunk_change:
      if (is_stale(trunk_states_[target].generation) || !change_trunk(target)) break;
      return no_stream;
    case EventKind::fault:
      change_faults(static_cast<std::size_t>(target));
      return no_stream;
  }
  --handled_;
  return no_stream;
}

/// What the coming events need, as far as the queue knows them: first the state of the stream, then what that points
/// to. Without branches, which nobody could predict: for other kinds of events, what stream 0 needs.
ORRERY_HOT void EventEngine::prefetch() const {
  const auto stream_of = [](const Event& event) {
    return event.kind() <= static_cast<std::uint32_t>(EventKind::simple_transfer_end) ? event.target : 0;
  };
  __builtin_prefetch(&streams_[stream_of(events_.peek(8))]);
  const std::uint32_t soon = stream_of(events_.peek(4));
  const StreamState& state = streams_[soon];
  __builtin_prefetch(&accounts_.clock(state.rank));
  __builtin_prefetch(&paths_[soon * path_stride_]);
  const SignalState* const signals = signals_.data() + state.first_signal;
  for (std::uint32_t i = 0; i < signals_fetched; i += 64 / sizeof(SignalState)) __builtin_prefetch(signals + i);
  __builtin_prefetch(&lanes_[static_cast<std::size_t>(state.rank)]);
}

SimulationResult EventEngine::run() {
  for (StreamId stream = 0; stream < static_cast<StreamId>(streams_.size()); ++stream) {
    if (fetch_from_next_block(stream, streams_[stream])) make_ready(stream);
  }
  for (StreamId stream = next_ready(); stream != no_stream; stream = next_ready()) advance(stream);
  while (true) {
    const Event* event = events_.first();
    if (is_unsettled_ && (event == nullptr || event->time != now_)) {
      settle();
      event = events_.first();
    }
    if (event == nullptr) break;
    now_ = event->time;
    ++handled_;
    const auto kind = static_cast<EventKind>(event->kind());
    const auto target = static_cast<std::int32_t>(event->target);
    const std::uint32_t generation = event->generation();
    events_.drop_first();
    if (prefetches_) [[likely]]
      prefetch();
    handle(kind, target, generation);
  }
  check_all_done();
  return result();
}

/// Through as many blocks as it takes.
bool EventEngine::fetch_from_next_block(StreamId stream, StreamState& self) {
  std::int64_t number = 0;
  while (true) {
    OpenBlock* const before = self.block;
    if (self.block != nullptr) {
      number = self.block->number + 1;
      if (has_launches_) {
        Ticks& host = host_times_[stream];
        const Ticks launches = self.block->compiled->set_of(self.rank).host_time;
        if (__builtin_add_overflow(host, launches, &host)) host = std::numeric_limits<Ticks>::max();  // see issued()
      }
      leave(self.block);
    }
    if (number == blocks_.blocks()) break;
    self.block = open(number);
    if (before != nullptr && !has_launches_) before->next = self.block;
    self.op = self.block->compiled->set_of(self.rank).first_on_stream[static_cast<std::size_t>(self.kind)];
    if (self.op != nullptr) {
      if (is_compute(self)) draw(self);
      return true;
    }
  }
  self.block = nullptr;
  return false;
}

EventEngine::OpenBlock* EventEngine::open(std::int64_t number) {
  OpenBlock*& recent = recent_blocks_[static_cast<std::size_t>(number) % recent_blocks_.size()];
  if (recent == nullptr || recent->number != number) {
    if (recent != nullptr) leave(recent);
    if (free_blocks_.empty()) free_blocks_.push_back(&open_blocks_.emplace_back());
    recent = free_blocks_.back();
    free_blocks_.pop_back();
    recent->compiled = blocks_.acquire(number);
    const auto before = program_.counts_before(number);
    recent->counts_before = before.empty() ? no_counts_.data() : before.data();
    recent->number = number;
    recent->next = nullptr;
    recent->holders = 1;
    recent->first_on_stream = {};
    if (recent->compiled->sets.size() == 1) recent->first_on_stream = recent->compiled->sets[0].first_on_stream;
  }
  ++recent->holders;
  return recent;
}

void EventEngine::leave(OpenBlock* block) {
  if (--block->holders > 0) return;
  blocks_.release(block->compiled);
  block->number = -1;
  free_blocks_.push_back(block);
}

void EventEngine::refuse_overflow(StreamId stream) const {
  throw std::overflow_error(
      fmt::format("{} would end beyond 2^63 ps (106 days) of simulated time; check its duration, its size and the "
                  "bandwidths on its way",
                  name(stream)));
}

}  // namespace orrery
