// Pending events in order of (time, sequence): earliest first, and of the same time the one scheduled first.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "sim/units.hpp"

namespace orrery {

enum class EventKind : std::uint8_t { launch, startup_end, compute_end, latency_end, flow_end };

/// Plain data; what the target is (a stream, a rank, a message or a flow) follows from the kind. An event whose
/// generation is no longer that of its target is stale and dropped by whoever pops it.
struct Event {
  static constexpr std::uint32_t generation_mask = (1U << 28) - 1;

  Ticks time = 0;
  std::uint64_t sequence = 0;
  std::uint32_t target = 0;
  std::uint32_t kind_and_generation = 0;

  EventKind kind() const { return static_cast<EventKind>(kind_and_generation >> 28); }
  std::uint32_t generation() const { return kind_and_generation & generation_mask; }
  bool before(const Event& other) const { return time != other.time ? time < other.time : sequence < other.sequence; }
};
static_assert(sizeof(Event) == 24);

/// An implicit 4-ary heap: half the levels of a binary one, and siblings lie side by side.
class EventQueue {
 public:
  bool empty() const { return heap_.empty(); }
  const Event& top() const { return heap_.front(); }

  void push(Ticks time, EventKind kind, std::uint32_t target, std::uint32_t generation = 0) {
    const auto tag = (static_cast<std::uint32_t>(kind) << 28) | (generation & Event::generation_mask);
    const Event event{time, next_sequence_++, target, tag};
    heap_.push_back(event);
    std::size_t hole = heap_.size() - 1;
    while (hole > 0) {
      const std::size_t parent = (hole - 1) / 4;
      if (!event.before(heap_[parent])) break;
      heap_[hole] = heap_[parent];
      hole = parent;
    }
    heap_[hole] = event;
  }

  Event pop() {
    const Event first = heap_.front();
    const Event last = heap_.back();
    heap_.pop_back();
    if (!heap_.empty()) sink_from_root(last);
    return first;
  }

 private:
  void sink_from_root(const Event& event) {
    const std::size_t size = heap_.size();
    std::size_t hole = 0;
    for (std::size_t child = 1; child < size; child = 4 * hole + 1) {
      const std::size_t end = child + 4 < size ? child + 4 : size;
      std::size_t least = child;
      for (std::size_t other = child + 1; other < end; ++other) {
        if (heap_[other].before(heap_[least])) least = other;
      }
      if (!heap_[least].before(event)) break;
      heap_[hole] = heap_[least];
      hole = least;
    }
    heap_[hole] = event;
  }

  std::vector<Event> heap_;
  std::uint64_t next_sequence_ = 0;
};

}  // namespace orrery
