#include "sim/lock_step.hpp"

#include <algorithm>
#include <iterator>
#include <utility>

#include "sim/tick_vectors.hpp"

namespace orrery {
namespace {

constexpr std::int64_t tile = 1024;    // ranks whose latest ends stay in the second cache
constexpr std::int64_t at_once = 256;  // whose ends of a few ops stay in the first one

}  // namespace

DependencyEngine::LockStep::LockStep(DependencyEngine& engine)
    : engine_(engine),
      n_(static_cast<std::int64_t>(engine.n_)),
      rows_(engine.rows_),
      apart_((engine.n_ + 511) / 512 * 512 + 40),
      depth_(engine.depths_.history * 4),
      ends_((depth_ + 1) * (rows_ + 1) * apart_),
      raises_(engine.signals_.size()),
      taken_(static_cast<std::size_t>(at_once)),
      zeros_(static_cast<std::size_t>(at_once)) {
  last_on_stream_.fill(none);
  phase_on_stream_.fill(-1);
}

void DependencyEngine::LockStep::run() {
  for (std::int64_t number = 0; number < engine_.blocks_.blocks();) {
    band_.clear();
    if (n_ >= 4 * tile) {
      run_band(number);
    } else {
      add_block(number++, band_);
      for (const Step& step : band_) work(step, {0, n_});
    }
    count_intervals();
    engine_.check_comm_order();
  }
  for (std::size_t stream = 0; stream < streams_per_rank; ++stream) {
    if (last_on_stream_[stream] != none) check_age(last_on_stream_[stream]);
    for (std::size_t r = 0; r < rows_; ++r) {
      std::copy_n(end_of(last_on_stream_[stream], 0) + r * apart_, engine_.n_, engine_.stream_end_[stream].row(r));
    }
  }
}

// --- In which order they are worked off ---

/// Some blocks. First every tile of ranks on its own, from step to step as far inwards as it needs its neighbours; then
/// what is left between the tiles. (Trapezoidal tiling of a stencil, Frigo and Strumpen 2005.)
void DependencyEngine::LockStep::run_band(std::int64_t& number) {
  const std::int64_t tiles = n_ / tile;
  std::vector<std::vector<Range>> ranges(static_cast<std::size_t>(tiles));
  reach_ = 0;
  const auto width = [&] { return ranges[0].back().end - ranges[0].back().first; };
  while (number < engine_.blocks_.blocks() && (band_.empty() || 2 * width() > tile)) {
    if (ahead_.empty()) add_block(number, ahead_);
    const bool is_far = ahead_reach_ > tile / 16;
    if (is_far && !band_.empty()) break;
    const std::size_t known = band_.size();
    std::move(ahead_.begin(), ahead_.end(), std::back_inserter(band_));
    ahead_.clear();
    ++number;
    if (is_far || band_.empty()) {
      for (const Step& step : band_) work(step, {0, n_});
      return;
    }
    reach_ = std::max(reach_, ahead_reach_);
    run_tile(ranges[0], 0, n_ / tiles, known);
  }
  for (std::int64_t t = 1; t < tiles; ++t) {
    run_tile(ranges[static_cast<std::size_t>(t)], t * n_ / tiles, (t + 1) * n_ / tiles, 0);
  }
  for (std::size_t t = 0; t + 1 < ranges.size(); ++t) run_between(ranges[t], ranges[t + 1], 0);
  run_between(ranges.back(), ranges.front(), n_);
}

void DependencyEngine::LockStep::run_tile(std::vector<Range>& ranges, std::int64_t first, std::int64_t end,
                                          std::size_t from_step) {
  for (std::size_t s = from_step; s < band_.size(); ++s) {
    ranges.push_back(s == 0 ? Range{first, end} : ranges.back());
    ranges.back() = trimmed(band_[s], ranges);
    work(band_[s], ranges.back());
  }
  count_intervals();
}

/// The ranks of ranges.back() that find what they wait for in the ranges of the steps before, and of which no rank that
/// is left out will need an end that the step overwrites.
DependencyEngine::LockStep::Range DependencyEngine::LockStep::trimmed(const Step& step,
                                                                      const std::vector<Range>& ranges) const {
  const Ordinal start = band_.front().number;
  Range range = ranges.back();
  for (int w = 0; w < step.wait_count; ++w) {
    const Source& wait = step.waits[static_cast<std::size_t>(w)];
    if (wait.op < start) continue;
    const Range& there = ranges[static_cast<std::size_t>(wait.op - start)];
    range.first = std::max(range.first, there.first - wait.distance);
    range.end = std::min(range.end, there.end - wait.distance);
  }
  const Ordinal last_reader = step.number - depth() + greatest_age();
  if (last_reader >= start) {
    range.first = std::max(range.first, ranges[static_cast<std::size_t>(last_reader - start)].first + reach_);
    range.end = std::min(range.end, ranges[static_cast<std::size_t>(last_reader - start)].end - reach_);
  }
  if (range.first > range.end)
    range.first = range.end = std::clamp(range.first, ranges.back().first, ranges.back().end);
  return range;
}

void DependencyEngine::LockStep::run_between(const std::vector<Range>& left, const std::vector<Range>& right,
                                             std::int64_t round) {
  for (std::size_t s = 0; s < band_.size(); ++s) {
    const Range between{left[s].end, right[s].first + round};
    work(band_[s], {between.first, std::min(between.end, n_)});
    work(band_[s], {std::max(between.first, n_) - n_, between.end - n_});
  }
  count_intervals();
}

// --- One step ---

void DependencyEngine::LockStep::work(const Step& step, Range ranks) {
  for (std::int64_t first = ranks.first; first < ranks.end;) {
    // Up to where one of the ranks waited for is the last one.
    std::int64_t end = std::min(ranks.end, (first / at_once + 1) * at_once);
    for (int w = 0; w < step.wait_count; ++w) {
      const std::int64_t there = step.waits[static_cast<std::size_t>(w)].distance;
      for (const std::int64_t turn : {-there, n_ - there}) {
        if (turn > first && turn < end) end = turn;
      }
    }
    if (step.segments.empty()) {
      const double* const before = end_of(step.before, first);
      double* const out = end_of(step.number, first);
      for (std::size_t r = 0; r < rows_; ++r) std::copy_n(before + r * apart_, end - first, out + r * apart_);
    }
    for (const Segment& segment : step.segments) {
      const std::int64_t from = std::max(first, segment.first), to = std::min(end, segment.end);
      if (from < to) work_segment(step, segment, from, static_cast<std::size_t>(to - from));
    }
    first = end;
  }
  for (const Segment& segment : step.segments) {
    const Range some{std::max(ranks.first, segment.first), std::min(ranks.end, segment.end)};
    if (some.first < some.end) note_intervals(step, segment, some);
  }
}

ticks::Sources DependencyEngine::LockStep::sources_of(const Step& step, std::int64_t first) {
  ticks::Sources sources;
  sources.apart = apart_;
  sources.rows = rows_;
  sources.first_rows[sources.count++] = end_of(step.before, first);
  for (int w = 0; w < step.wait_count; ++w) {
    const Source& source = step.waits[static_cast<std::size_t>(w)];
    const std::int64_t rank = first + source.distance;
    sources.first_rows[sources.count++] = end_of(source.op, rank < 0 ? rank + n_ : rank >= n_ ? rank - n_ : rank);
  }
  return sources;
}

void DependencyEngine::LockStep::work_segment(const Step& step, const Segment& segment, std::int64_t first,
                                              std::size_t n) {
  OpenBlock& block = *step.block;
  const CompiledOp& op = block.compiled->ops[static_cast<std::size_t>(segment.op)];
  const CompiledMessage* const message =
      op.message_count == 0 ? nullptr : &block.compiled->messages[static_cast<std::size_t>(op.first_message)];
  const Flight* const flight = message == nullptr ? nullptr : block.flights[static_cast<std::size_t>(op.first_message)];
  auto fixed = static_cast<double>(op.duration);
  if (!(fixed < ticks::largest)) throw NotApplicable{"simulated time goes beyond 2^53 ps"};
  const double* more = zeros_.data();
  if (engine_.perturbation_ != nullptr && op.stream == Stream::compute && op.duration > 0) {
    engine_.perturbation_->durations(op.duration, static_cast<Rank>(first), block.number, op.index, taken_.data(), n);
    ticks::add_into(block.varying[static_cast<std::size_t>(segment.op)]->varying.data() + first, taken_.data(), n);
    more = taken_.data();
    fixed = 0;
  } else if (flight != nullptr) {
    const std::vector<double>& whole = flight->whole;
    const std::size_t ranks = whole.size(), source = (static_cast<std::size_t>(first + message->source)) % ranks;
    more = whole.data() + source;
    if (source + n > ranks) {  // round the last rank
      std::copy_n(whole.data(), source + n - ranks, std::copy_n(more, ranks - source, taken_.data()));
      more = taken_.data();
    }
  }
  const int row = engine_.row_of_category_[op.category];
  const auto [least, greatest] =
      ticks::advance(sources_of(step, first), begin_of(step.number, first), end_of(step.number, first),
                     static_cast<std::size_t>(std::max(row, 0)), more, fixed, n);
  PhaseBounds& phase = engine_.phases_[op.phase];
  phase.first_begin = std::min(phase.first_begin, least);
  phase.last_end = std::max(phase.last_end, greatest);
}

// --- What is left to account for ---

void DependencyEngine::LockStep::note_intervals(const Step& step, const Segment& segment, Range ranks) {
  if (first_interval_ != none && step.number - first_interval_ >= depth() / 2) count_intervals();
  if (first_interval_ == none) first_interval_ = step.number;
  const OpenBlock& block = *step.block;
  const CompiledOp& op = block.compiled->ops[static_cast<std::size_t>(segment.op)];
  const double* const begins = begin_of(step.number, ranks.first);
  const double* const ends = end_of(step.number, ranks.first);
  const auto first = static_cast<std::size_t>(ranks.first), last = static_cast<std::size_t>(ranks.end);
  if (op.stream == Stream::compute) {
    if (op.duration > 0) intervals_.push_back({ends, begins, first, last, true});
    return;
  }
  const auto message = static_cast<std::size_t>(op.first_message);
  if (op.message_count > 0 && block.flights[message] != nullptr) {
    const CompiledMessage& sent = block.compiled->messages[message];
    note_comm(begins, ends, ranks, sent.source);
    note_comm(begins, ends, ranks, sent.destination);
    if (sent.source == 0 || sent.destination == 0) return;
  }
  if (op.duration == 0) return;
  std::vector<double>& startup_ends = startup_ends_.emplace_back(begins, begins + (last - first));
  ticks::add_into(startup_ends.data(), static_cast<double>(op.duration), startup_ends.size());
  intervals_.push_back({begins, startup_ends.data(), first, last, false});
}

/// Of the ranks so far away.
void DependencyEngine::LockStep::note_comm(const double* begins, const double* ends, Range ranks,
                                           std::int32_t distance) {
  const std::int64_t first = ranks.first + distance, last = ranks.end + distance;
  const auto note = [&](std::int64_t from, std::int64_t to, std::int64_t round) {
    if (from >= to) return;
    intervals_.push_back({begins + (from - first), ends + (from - first), static_cast<std::size_t>(from - round),
                          static_cast<std::size_t>(to - round), false});
  };
  note(first, std::min(last, n_), 0);
  note(std::max(first, n_), last, n_);
}

void DependencyEngine::LockStep::count_intervals() {
  engine_.comm_.count(intervals_);
  intervals_.clear();
  startup_ends_.clear();
  first_interval_ = none;
}

}  // namespace orrery
