// Communication without compute, added up while intervals come in.
#include "sim/comm_account.hpp"

#include <algorithm>
#include <deque>
#include <random>
#include <vector>

#include "tests/catch.hpp"

using namespace orrery;

TEST_CASE("Exposed communication is what brute force over unit steps finds, for intervals nearly in order") {
  constexpr std::size_t columns = 300, times = 400;  // more columns than are worked on at once
  std::mt19937 random(7);
  CommAccounts accounts(columns, {3, 4});
  std::vector<std::vector<bool>> comm(columns, std::vector<bool>(times)), compute = comm;
  std::vector<double> begin(columns), end(columns);
  const ColumnSet all(0, columns, columns), shifted(columns - 7, columns, columns);
  std::vector<double> compute_end(columns, 0);
  for (int step = 0; step < 60; ++step) {
    for (std::size_t c = 0; c < columns; ++c) {
      begin[c] = std::max(0.0, step * 5 - static_cast<double>(random() % 5));
      end[c] = begin[c] + static_cast<double>(random() % 12);
      const std::size_t column = (c + columns - 7) % columns;
      for (auto t = static_cast<std::size_t>(begin[c]); t < static_cast<std::size_t>(end[c]); ++t)
        comm[column][t] = true;
    }
    accounts.add_comm(shifted, begin.data(), end.data());
    for (std::size_t c = 0; c < columns; ++c) {
      begin[c] = std::max(compute_end[c], step * 5.0);
      end[c] = begin[c] + static_cast<double>(random() % 6);
      compute_end[c] = end[c];
      for (auto t = static_cast<std::size_t>(begin[c]); t < static_cast<std::size_t>(end[c]); ++t) compute[c][t] = true;
    }
    accounts.add_compute(all, begin.data(), end.data());
    // Ops without length come in as well, and ops without a gap before them.
    if (step % 3 == 0) accounts.add_compute(all, end.data(), end.data());
  }
  accounts.finish(times);
  REQUIRE(accounts.in_order());
  for (std::size_t c = 0; c < columns; ++c) {
    int under_way = 0, exposed = 0, computing = 0;
    for (std::size_t t = 0; t < times; ++t) {
      under_way += comm[c][t] ? 1 : 0;
      exposed += comm[c][t] && !compute[c][t] ? 1 : 0;
      computing += compute[c][t] ? 1 : 0;
    }
    CHECK(accounts.comm(c) == under_way);
    CHECK(accounts.exposed(c, computing) == exposed);
  }
}

TEST_CASE("Intervals that stay where they are count as those that are copied, whichever columns come together") {
  constexpr std::size_t columns = 200;
  std::mt19937 random(3);
  CommAccounts copied(columns, {2, 3}), kept(columns, {2, 3});
  const ColumnSet all(0, columns, columns);
  for (int batch = 0; batch < 20; ++batch) {
    std::deque<std::vector<double>> times;
    std::vector<CommAccounts::Intervals> intervals;
    for (int step = batch * 5; step < batch * 5 + 5; ++step) {
      for (const bool is_compute : {false, false, true}) {
        std::vector<double>&begins = times.emplace_back(columns), &ends = times.emplace_back(columns);
        for (std::size_t c = 0; c < columns; ++c) {
          begins[c] = step * 10 + static_cast<double>(random() % 5);
          ends[c] = begins[c] + static_cast<double>(random() % 6);
        }
        if (is_compute) {
          copied.add_compute(all, begins.data(), ends.data());
          begins.swap(ends);
        } else {
          copied.add_comm(all, begins.data(), ends.data());
        }
        const std::size_t cut = random() % (columns + 1);
        intervals.push_back({begins.data(), ends.data(), 0, cut, is_compute});
        intervals.push_back({begins.data() + cut, ends.data() + cut, cut, columns, is_compute});
      }
    }
    kept.count(intervals);
  }
  for (CommAccounts* accounts : {&copied, &kept}) accounts->finish(1100);
  REQUIRE(copied.in_order());
  REQUIRE(kept.in_order());
  for (std::size_t c = 0; c < columns; ++c) {
    CHECK(kept.comm(c) == copied.comm(c));
    CHECK(kept.exposed(c, 0) == copied.exposed(c, 0));
  }
}

TEST_CASE("An interval later than the window can put right is noticed") {
  CommAccounts accounts(1, {1, 2});
  const ColumnSet all(0, 1, 1);
  for (const double begin : {10.0, 20.0, 30.0, 40.0, 50.0, 60.0}) {
    const double end = begin + 1;
    accounts.add_comm(all, &begin, &end);
  }
  const double late = 5, end = 6;
  accounts.add_comm(all, &late, &end);
  accounts.finish(100);
  CHECK_FALSE(accounts.in_order());
}
