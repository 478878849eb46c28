#include "sim/event_queue.hpp"

#include <algorithm>
#include <limits>
#include <random>
#include <vector>

#include "tests/catch.hpp"

using namespace orrery;

namespace {

/// What a queue must give: of the pending events the earliest, and of the same time the one pushed first.
class SortedList {
 public:
  void push(const Event& event) {
    events_.insert(std::upper_bound(events_.begin(), events_.end(), event,
                                    [](const Event& a, const Event& b) { return a.time < b.time; }),
                   event);
  }
  Event pop() {
    const Event first = events_.front();
    events_.erase(events_.begin());
    return first;
  }

 private:
  std::vector<Event> events_;
};

/// Keeps `pending` events in flight; `ahead` says how far in the future the next one lies.
template <class Ahead>
void compare_with_a_sorted_list(std::size_t pending, std::size_t turns, Ahead ahead) {
  EventQueue queue;
  SortedList list;
  std::uint32_t name = 0;
  const auto push = [&](Ticks time) {
    const Event event = Event::make(time, name % 5, name, name);
    ++name;
    queue.push(event);
    list.push(event);
  };
  for (std::size_t i = 0; i < pending; ++i) push(ahead());
  std::size_t wrong = 0;
  for (std::size_t i = 0; i < turns; ++i) {
    const Event expected = list.pop();
    wrong += queue.top().target != expected.target;
    const Event popped = queue.pop();
    wrong += popped.target != expected.target || popped.time != expected.time;
    push(popped.time + ahead());
  }
  CHECK(queue.size() == pending);
  while (!queue.empty()) wrong += queue.pop().target != list.pop().target;
  CHECK(wrong == 0);
}

}  // namespace

TEST_CASE("Events come out by time, and of the same time in the order of their pushes") {
  std::mt19937_64 random(1);
  const auto uniform = [&](Ticks most) { return std::uniform_int_distribution<Ticks>(0, most)(random); };
  for (const std::size_t pending : {1, 3, 47, 49, 600, 3000}) {
    INFO(pending << " pending");
    compare_with_a_sorted_list(pending, 20000, [&] { return uniform(1'000'000'000); });
    compare_with_a_sorted_list(pending, 20000, [&] { return uniform(5); });  // many ties
    compare_with_a_sorted_list(pending, 20000, [&] { return Ticks{1000}; });
    compare_with_a_sorted_list(pending, 20000,
                               [&] { return uniform(9) == 0 ? uniform(1'000'000'000'000) : uniform(1000); });
    compare_with_a_sorted_list(pending, 20000, [&] { return Ticks{1} << uniform(44); });
  }
}

TEST_CASE("The width of the buckets follows when events come a million times denser, and back") {
  std::mt19937_64 random(2);
  std::size_t turn = 0;
  compare_with_a_sorted_list(5000, 60000, [&] {
    ++turn;
    const bool dense = turn > 20000 && turn < 40000;
    return std::uniform_int_distribution<Ticks>(0, dense ? 1000 : 1'000'000'000)(random);
  });
}

TEST_CASE("Thousands of events of one time, alone or among others, come out in order and in time") {
  std::mt19937_64 random(4);
  for (const std::uint32_t times : {1, 2, 3, 7}) {
    for (const std::uint32_t others : {0, 100, 20000}) {
      INFO(times << " times of 9000 events each and " << others << " others");
      std::vector<Event> events;
      for (std::uint32_t i = 0; i < 9000 * times; ++i) events.push_back(Event::make(500'000'000 + i % times, 0, i, 0));
      for (std::uint32_t i = 0; i < others; ++i) {
        events.push_back(Event::make(static_cast<Ticks>(random() % 1'000'000'000), 0, 9000 * times + i, 0));
      }
      EventQueue queue;
      for (const Event& event : events) queue.push(event);
      std::stable_sort(events.begin(), events.end(), [](const Event& a, const Event& b) { return a.time < b.time; });
      std::size_t wrong = 0;
      for (const Event& event : events) wrong += queue.pop().target != event.target;
      CHECK(wrong == 0);
      CHECK(queue.empty());
    }
  }
}

TEST_CASE("A queue that ran empty takes events again, in the buckets it has and beyond") {
  std::mt19937_64 random(3);
  EventQueue queue;
  Ticks now = 0;
  std::size_t wrong = 0;
  for (std::uint32_t turn = 0; turn < 300; ++turn) {
    SortedList list;
    const Ticks widest = Ticks{1} << (random() % 40);
    const std::uint32_t events = 1 + static_cast<std::uint32_t>(random() % 100);
    for (std::uint32_t i = 0; i < events; ++i) {
      const Event event = Event::make(now + static_cast<Ticks>(random() % static_cast<std::uint64_t>(widest)), 0, i, 0);
      queue.push(event);
      list.push(event);
    }
    wrong += queue.size() != events;
    for (std::uint32_t i = 0; i < events; ++i) {
      const Event popped = queue.pop();
      wrong += popped.target != list.pop().target;
      now = popped.time;
    }
    wrong += !queue.empty();
  }
  CHECK(wrong == 0);
}

TEST_CASE("Times near the end of the range do not wrap around") {
  EventQueue queue;
  const Ticks last = std::numeric_limits<Ticks>::max() - 1;
  for (std::uint32_t i = 0; i < 1000; ++i) queue.push(Event::make(last - 1000 + i, 0, i, 0));
  queue.push(Event::make(5, 0, 5000, 0));
  CHECK(queue.pop().target == 5000);
  for (std::uint32_t i = 0; i < 1000; ++i) CHECK(queue.pop().target == i);
  CHECK(queue.empty());
}

TEST_CASE("A generation keeps 28 bits beside the kind") {
  const Event event = Event::make(1, 4, 7, (1U << 28) + 5);
  CHECK(event.kind() == 4);
  CHECK(event.generation() == 5);
  CHECK(event.target == 7);
}
