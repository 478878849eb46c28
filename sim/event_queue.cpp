#include "sim/event_queue.hpp"

#include <algorithm>
#include <array>
#include <limits>

namespace orrery {
namespace {

// Events in a bucket: enough that moving on to the next costs nothing per event, few enough that it is sorted inside
// the first-level cache and that most new events belong to a later one.
constexpr std::size_t fewest_per_bucket = 64, most_per_bucket = 256, buckets_in_use = 8;
constexpr std::size_t overfull = 32 * most_per_bucket;
constexpr int most_sort_bits = 11;
constexpr std::size_t few = 12;  // not worth counting
constexpr std::size_t near_front = 24;

bool earlier(const Event& a, const Event& b) {
  return a.time < b.time;
}

/// Stable. False if it gave up, because the events are far from being in order.
bool insertion_sort(Event* first, Event* last) {
  std::ptrdiff_t moves_left = 4 * (last - first) + static_cast<std::ptrdiff_t>(few * few);
  for (Event* i = first + 1; i < last; ++i) {
    if (!earlier(*i, i[-1])) continue;
    const Event event = *i;
    Event* hole = i;
    do {
      *hole = hole[-1];
      --hole;
    } while (hole > first && earlier(event, hole[-1]));
    *hole = event;
    moves_left -= i - hole;
    if (moves_left < 0) return false;
  }
  return true;
}

void sort(std::vector<Event>& events) {
  if (!insertion_sort(events.data(), events.data() + events.size())) {
    std::stable_sort(events.begin(), events.end(), earlier);
  }
}

}  // namespace

void EventQueue::grow(Bucket& bucket) {
  std::int32_t chunk = free_chunk_;
  if (chunk >= 0) {
    free_chunk_ = chunks_[chunk].next;
  } else {
    chunk = static_cast<std::int32_t>(chunks_.size());
    chunks_.emplace_back();
  }
  chunks_[chunk].next = -1;
  chunks_[chunk].used = 0;
  (bucket.last < 0 ? bucket.first : chunks_[bucket.last].next) = chunk;
  bucket.last = chunk;
}

void EventQueue::push_into_run(const Event& event) {
  if (next_ == run_.size()) {
    run_.clear();
    next_ = 0;
  }
  if (run_.empty() || !earlier(event, run_.back())) {
    run_.push_back(event);
    return;
  }
  // Most of what comes into the run is nearly due: those before it move into the room that the popped ones have left.
  if (next_ > 0) {
    const std::size_t end = std::min(next_ + near_front, run_.size());
    std::size_t place = next_;
    for (; place < end && !earlier(event, run_[place]); ++place) run_[place - 1] = run_[place];
    run_[place - 1] = event;
    --next_;
    if (place < end) return;
    // Further back after all: the event itself goes on from there.
    const auto here = run_.begin() + static_cast<std::ptrdiff_t>(place);
    const auto there = std::upper_bound(here, run_.end(), event, earlier);
    std::rotate(here - 1, here, there);
    return;
  }
  run_.insert(std::upper_bound(run_.begin(), run_.end(), event, earlier), event);
}

/// The run is used up: sorts the next bucket that holds something.
void EventQueue::refill() {
  run_.clear();
  next_ = 0;
  while (run_.empty()) {
    if (run_end_ == epoch_end_) {
      start_epoch();
      continue;
    }
    Bucket& bucket = buckets_[static_cast<std::size_t>(run_end_ - epoch_start_) >> shift_];
    if (bucket.events > overfull && shift_ > 0) {
      give_up_epoch();
      continue;
    }
    run_end_ += Ticks{1} << shift_;
    if (bucket.events == 0) continue;
    epoch_events_ += bucket.events;
    take(bucket, run_);
    sort_run();
  }
}

void EventQueue::take(Bucket& bucket, std::vector<Event>& out) {
  for (std::int32_t i = bucket.first; i >= 0;) {
    Chunk& chunk = chunks_[i];
    out.insert(out.end(), chunk.events, chunk.events + chunk.used);
    const std::int32_t next = chunk.next;
    chunk.next = free_chunk_;
    free_chunk_ = i;
    i = next;
  }
  bucket = {};
}

/// By counting on so many leading bits of the time within the bucket that few events share theirs, then by insertion:
/// stable, and with few branches that go either way.
void EventQueue::sort_run() {
  if (run_.size() > few) {
    const int sort_bits = std::min(static_cast<int>(std::bit_width(run_.size())) + 1, most_sort_bits);
    const int digit = std::max(shift_ - sort_bits, 0);
    const auto mask = (std::size_t{1} << sort_bits) - 1;
    std::array<std::uint32_t, (std::size_t{1} << most_sort_bits) + 1> starts;
    std::fill_n(starts.begin(), mask + 2, 0U);
    for (const Event& event : run_)
      ++starts[((static_cast<std::size_t>(event.time - epoch_start_) >> digit) & mask) + 1];
    std::uint32_t before = 0;
    for (std::size_t i = 1; i <= mask; ++i) starts[i] = before += starts[i];
    scratch_.resize(run_.size());
    for (const Event& event : run_) {
      scratch_[starts[(static_cast<std::size_t>(event.time - epoch_start_) >> digit) & mask]++] = event;
    }
    run_.swap(scratch_);
  }
  sort(run_);
}

/// The buckets turned out far too wide: puts what is left in them back before what lies beyond.
void EventQueue::give_up_epoch() {
  scratch_.clear();
  const auto first = static_cast<std::size_t>(run_end_ - epoch_start_) >> shift_;
  for (std::size_t i = first; i < bucket_count; ++i) take(buckets_[i], scratch_);
  scratch_.insert(scratch_.end(), far_.begin(), far_.end());
  far_.swap(scratch_);
  epoch_events_ = 0;  // so that the width follows what is pending
  epoch_end_ = run_end_;
}

/// Lays the buckets over the time from the earliest far event on. The run and all buckets are empty.
void EventQueue::start_epoch() {
  if (far_.size() <= few) {
    run_.swap(far_);
    sort(run_);
    run_end_ = epoch_end_ = run_.back().time + 1;
    epoch_start_ = run_.front().time;
    epoch_events_ = 0;
    return;
  }
  shift_ = fitting_shift();
  epoch_events_ = 0;
  const Ticks earliest = std::min_element(far_.begin(), far_.end(), earlier)->time;
  epoch_start_ = earliest >> shift_ << shift_;
  run_end_ = epoch_start_;
  const Ticks turn = Ticks{bucket_count} << shift_;
  epoch_end_ =
      epoch_start_ > std::numeric_limits<Ticks>::max() - turn ? std::numeric_limits<Ticks>::max() : epoch_start_ + turn;
  scratch_.clear();
  for (const Event& event : far_) {
    if (event.time < epoch_end_) {
      append(buckets_[static_cast<std::size_t>(event.time - epoch_start_) >> shift_], event);
    } else {
      scratch_.push_back(event);
    }
  }
  far_.swap(scratch_);
}

/// log2 of the bucket width that gives the wanted number of events, from the rate of the last epoch, or else from how
/// far ahead the pending events lie.
int EventQueue::fitting_shift() const {
  double ticks_per_event = 0;
  if (epoch_events_ >= bucket_count) {
    ticks_per_event = static_cast<double>(epoch_end_ - epoch_start_) / static_cast<double>(epoch_events_);
  } else {
    const Ticks earliest = std::min_element(far_.begin(), far_.end(), earlier)->time;
    double ahead = 0;
    for (const Event& event : far_) ahead += static_cast<double>(event.time - earliest);
    ticks_per_event = ahead / static_cast<double>(far_.size()) / static_cast<double>(far_.size());
  }
  const std::size_t wanted = std::clamp(size_ / buckets_in_use, fewest_per_bucket, most_per_bucket);
  const double width = ticks_per_event * static_cast<double>(wanted);
  int shift = 0;
  while (shift < widest_shift && static_cast<double>(Ticks{2} << shift) <= width) ++shift;
  return shift;
}

}  // namespace orrery
