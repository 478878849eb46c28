#include "sim/event_queue.hpp"

#include <algorithm>
#include <array>
#include <bit>
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

void sort(Event* first, Event* last) {
  if (!insertion_sort(first, last)) std::stable_sort(first, last, earlier);
}

}  // namespace

std::size_t EventQueue::size() const {
  std::size_t size = static_cast<std::size_t>(last_ - next_) + far_.size();
  for (const Bucket& bucket : buckets_) size += events_in(bucket);
  return size;
}

std::size_t EventQueue::events_in(const Bucket& bucket) {
  if (bucket.first == nullptr) return 0;
  std::size_t events = static_cast<std::size_t>(bucket.write - bucket.last->events);
  for (const Chunk* chunk = bucket.first; chunk != bucket.last; chunk = chunk->next) events += chunk_events;
  return events;
}

void EventQueue::grow(Bucket& bucket) {
  Chunk* chunk = free_chunk_;
  if (chunk != nullptr) {
    free_chunk_ = chunk->next;
    chunk->next = nullptr;
  } else {
    chunk = &chunks_.emplace_back();
  }
  (bucket.first == nullptr ? bucket.first : bucket.last->next) = chunk;
  bucket.last = chunk;
  bucket.write = chunk->events;
  bucket.end = chunk->events + chunk_events;
}

void EventQueue::clear(Bucket& bucket) {
  if (bucket.first == nullptr) return;
  bucket.last->next = free_chunk_;
  free_chunk_ = bucket.first;
  bucket = {};
}

void EventQueue::push_into_run(const Event& event) {
  if (next_ == last_) start_run(0);
  if (next_ == last_ || !earlier(event, last_[-1])) {
    make_room();
    *last_++ = event;
    return;
  }
  // Most of what comes into the run is nearly due: those before it move into the room that the popped ones have left.
  if (next_ != run_.data()) {
    Event* const end = std::min(next_ + near_front, last_);
    Event* place = next_;
    for (; place < end && !earlier(event, *place); ++place) place[-1] = *place;
    place[-1] = event;
    --next_;
    if (place < end) return;
    // Further back after all: the event itself goes on from there.
    Event* const there = std::upper_bound(place, last_, event, earlier);
    std::rotate(place - 1, place, there);
    return;
  }
  make_room();
  Event* const there = std::upper_bound(next_, last_, event, earlier);
  std::copy_backward(there, last_, last_ + 1);
  *there = event;
  ++last_;
}

/// For one more event after the last of the run.
void EventQueue::make_room() {
  if (last_ != run_.data() + run_.size()) return;
  const std::ptrdiff_t next = next_ - run_.data(), last = last_ - run_.data();
  run_.resize(std::max<std::size_t>(2 * run_.size(), 64));
  next_ = run_.data() + next;
  last_ = run_.data() + last;
}

/// With room for so many.
void EventQueue::start_run(std::size_t events) {
  if (events > run_.size()) run_.resize(2 * events);
  next_ = last_ = run_.data();
}

/// The run is used up: sorts the next bucket that holds something. False if there is none.
bool EventQueue::refill() {
  start_run(0);
  const Ticks run_end = run_end_;
  while (next_ == last_) {
    if (run_end_ == epoch_end_) {
      if (far_.empty()) {
        run_end_ = run_end;  // what comes next may come into these buckets
        return false;
      }
      start_epoch();
      continue;
    }
    Bucket& bucket = buckets_[static_cast<std::size_t>(run_end_ - epoch_start_) >> shift_];
    const std::size_t events = events_in(bucket);
    if (events > overfull && shift_ > 0 && !is_mostly_of_one_time(bucket, events)) {
      give_up_epoch();
      continue;
    }
    const Ticks width = Ticks{1} << shift_;
    run_end_ = epoch_end_ - run_end_ > width ? run_end_ + width : epoch_end_;
    if (events == 0) continue;
    epoch_events_ += events;
    start_run(events);
    sort_into_run(bucket, events);
    clear(bucket);
  }
  return true;
}

/// Then narrower buckets would divide it no better. The only time that can be that of more than half is found by a
/// majority vote (Boyer, Moore 1981).
bool EventQueue::is_mostly_of_one_time(const Bucket& bucket, std::size_t events) {
  Ticks time = -1;
  std::size_t votes = 0, of_that_time = 0;
  each(bucket, [&](const Event& event) {
    if (votes == 0) time = event.time;
    votes += event.time == time ? std::size_t{1} : ~std::size_t{0};
  });
  each(bucket, [&](const Event& event) { of_that_time += event.time == time; });
  return of_that_time * 2 > events;
}

/// By counting on so many leading bits of the time within the bucket that few events share theirs, then by insertion:
/// stable, and with few branches that go either way.
void EventQueue::sort_into_run(const Bucket& bucket, std::size_t events) {
  if (events <= few) {
    each(bucket, [&](const Event& event) { *last_++ = event; });
    return sort(next_, last_);
  }
  const int sort_bits = std::min(static_cast<int>(std::bit_width(events)) + 1, most_sort_bits);
  const int digit = std::max(shift_ - sort_bits, 0);
  const auto mask = (std::size_t{1} << sort_bits) - 1;
  const auto place = [&](const Event& event) {
    return (static_cast<std::size_t>(event.time - epoch_start_) >> digit) & mask;
  };
  std::array<std::uint32_t, (std::size_t{1} << most_sort_bits) + 1> starts;
  std::fill_n(starts.begin(), mask + 2, 0U);
  each(bucket, [&](const Event& event) { ++starts[place(event) + 1]; });
  std::uint32_t before = 0;
  for (std::size_t i = 1; i <= mask; ++i) starts[i] = before += starts[i];
  each(bucket, [&](const Event& event) { next_[starts[place(event)]++] = event; });
  last_ = next_ + events;
  sort(next_, last_);
}

/// The buckets turned out far too wide: puts what is left in them back before what lies beyond.
void EventQueue::give_up_epoch() {
  scratch_.clear();
  const auto first = static_cast<std::size_t>(run_end_ - epoch_start_) >> shift_;
  for (std::size_t i = first; i < bucket_count; ++i) {
    each(buckets_[i], [&](const Event& event) { scratch_.push_back(event); });
    clear(buckets_[i]);
  }
  scratch_.insert(scratch_.end(), far_.begin(), far_.end());
  far_.swap(scratch_);
  epoch_events_ = 0;  // so that the width follows what is pending
  most_shift_ = std::max(shift_ - 3, 0);
  epoch_end_ = run_end_;
}

/// Lays the buckets over the time from the earliest far event on. The run and all buckets are empty.
void EventQueue::start_epoch() {
  if (far_.size() <= few) {
    start_run(far_.size());
    last_ = std::copy(far_.begin(), far_.end(), next_);
    far_.clear();
    sort(next_, last_);
    run_end_ = epoch_end_ = last_[-1].time + 1;
    epoch_start_ = next_->time;
    epoch_events_ = 0;
    return;
  }
  shift_ = std::min(fitting_shift(), most_shift_);
  most_shift_ = widest_shift;
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
  const std::size_t wanted = std::clamp(far_.size() / buckets_in_use, fewest_per_bucket, most_per_bucket);
  const double width = ticks_per_event * static_cast<double>(wanted);
  int shift = 0;
  while (shift < widest_shift && static_cast<double>(Ticks{2} << shift) <= width) ++shift;
  return shift;
}

}  // namespace orrery
