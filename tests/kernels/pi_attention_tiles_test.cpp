// The order of steps and the masks of the pi-attention kernels, against the definition of a band, pair by pair.
#include <random>
#include <vector>

#include "../catch.hpp"
#include "kernels/pi_attention_tiles.hpp"

using namespace orrery;

namespace {

// How often the steps of all tiles show key j to query i, counted as the kernels do it.
template <int kStep, int kAlign>
std::vector<int> visits(const Band& band) {
  std::vector<int> seen(static_cast<size_t>(band.n_q) * band.n_k);
  for (int32_t first_row = 0; first_row < band.n_q; first_row += kTileRows) {
    const TilePlan<kStep, kAlign> plan(band, first_row);
    for (int warpgroup = 0; warpgroup < 2; ++warpgroup) {
      int32_t s = plan.next(band, warpgroup, 0, true);
      REQUIRE(s < plan.steps);
      for (; s < plan.steps; s = plan.next(band, warpgroup, s + 1, false)) {
        REQUIRE(plan.first_key(s) % kAlign == 0);
        const Step step = plan.step(band, warpgroup, s);
        REQUIRE(step.first_key == plan.first_key(s));
        if constexpr (kStep == kTileRows) {
          if (s >= 1 && s < plan.plain_end(band, warpgroup)) REQUIRE(!step.masked);
        }
        for (int32_t r = 0; r < kHalfRows; ++r) {
          const int32_t i = first_row + warpgroup * kHalfRows + r;
          if (i >= band.n_q) continue;
          for (int32_t c = 0; c < kStep; ++c) {
            const int32_t j = step.first_key + c;
            if (step.masked && (j < std::max(0, i - step.lag_max) || j > std::min(band.n_k - 1, i - step.lag_min)))
              continue;
            if (j < 0 || j >= band.n_k) FAIL("query " << i << " is shown key " << j);
            ++seen[static_cast<size_t>(i) * band.n_k + j];
          }
        }
      }
    }
  }
  return seen;
}

void check(const Band& band) {
  INFO("n_q " << band.n_q << " n_k " << band.n_k << " lags " << band.lag_min << ".." << band.lag_max << " and "
              << band.extra_lag);
  auto wrong = [](const Band& b, const std::vector<int>& seen) {
    int count = 0;
    for (int32_t i = 0; i < b.n_q; ++i) {
      for (int32_t j = 0; j < b.n_k; ++j) {
        if (seen[static_cast<size_t>(i) * b.n_k + j] != (b.sees(i, j) ? 1 : 0)) ++count;
      }
    }
    return count;
  };
  CHECK(wrong(band, visits<128, 1>(band)) == 0);
  CHECK(wrong(band, visits<64, 1>(band)) == 0);
  CHECK(wrong(band.transposed(), visits<64, 64>(band.transposed())) == 0);
}

}  // namespace

TEST_CASE("the steps of a tile show every pair of a window exactly once") {
  for (int32_t n : {1, 63, 64, 65, 127, 128, 129, 500}) {
    for (int32_t k : {1, 2, 63, 64, 65, 127, 128, 129, 192, 256, 400, 600}) check({n, n, 0, k - 1, 0});
  }
}

TEST_CASE("the steps of a tile show every pair of a causal or a full block exactly once") {
  for (int32_t n : {1, 64, 100, 128, 300, 512}) {
    check({n, n, 0, kUnbounded, 0});
    for (int32_t n_k : {1, 64, 100, 128, 300, 512}) check({n, n_k, -kUnbounded, kUnbounded, 0});
  }
}

TEST_CASE("a band of lags that leaves out the first, and one key outside a window, are shown exactly once") {
  std::mt19937 random(5);
  auto uniform = [&](int32_t low, int32_t high) { return low + static_cast<int32_t>(random() % (high - low + 1)); };
  for (int i = 0; i < 150; ++i) {
    const int32_t n = uniform(1, 600), first = uniform(0, 300), last = first + uniform(0, 400);
    check({n, n, first, last, 0});
    check({n, n, 0, last, last + uniform(1, 300)});
  }
}

TEST_CASE("a window of whole tiles takes one step more than that and masks two") {
  const Band band{8192, 8192, 0, 1023, 0};
  const TilePlan<128, 1> plan(band, 4096);
  CHECK(plan.steps == 1024 / kTileRows + 1);
  for (int warpgroup = 0; warpgroup < 2; ++warpgroup) {
    int masked = 0;
    for (int32_t s = 0; s < plan.steps; ++s) masked += plan.step(band, warpgroup, s).masked ? 1 : 0;
    CHECK(masked == 2);
  }
}

TEST_CASE("division by multiplication is division") {
  std::mt19937 random(6);
  for (int32_t by : {1, 2, 3, 5, 7, 31, 32, 33, 1000, 1024, 65536, 99999, (1 << 30) - 1, 1 << 30, 0x7fffffff}) {
    const Divisor divisor(by);
    for (int32_t x : {0, 1, by - 1, by, by / 2, 0x7fffffff, 0x7ffffffe}) CHECK(divisor.quotient(x) == x / by);
    for (int i = 0; i < 1000; ++i) {
      const auto x = static_cast<int32_t>(random() & 0x7fffffff);
      if (divisor.quotient(x) != x / by) FAIL(x << " / " << by);
    }
  }
}

TEST_CASE("the order of tiles takes every tile of every head and residue once, the longest first") {
  TileOrder order;
  order.q_tiles = Divisor(5);
  order.section_heads = Divisor(6);
  order.sections = Divisor(2);
  order.residues = 3;
  std::vector<int> taken(static_cast<size_t>(order.tiles()));
  for (int32_t i = 0; i < order.tiles(); ++i) {
    const TileOrder::At at = order.at(i);
    ++taken[static_cast<size_t>((at.residue * 12 + at.head) * 5 + at.first_row / kTileRows)];
    if (i > 0 && i % 30 != 0) CHECK(at.first_row <= order.at(i - 1).first_row);
  }
  for (int count : taken) CHECK(count == 1);
}
