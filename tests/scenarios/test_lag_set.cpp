// Unions of intervals and progressions, counted.
#include "scenarios/lag_set.hpp"

#include <random>
#include <set>

#include "tests/catch.hpp"

using namespace orrery;

namespace {

std::set<Index> lags_of(const std::vector<LagProgression>& progressions) {
  std::set<Index> lags;
  for (const LagProgression& p : progressions) {
    for (Index lag = p.first; lag <= p.last; lag += p.step) lags.insert(lag);
  }
  return lags;
}

std::vector<LagProgression> parts(const LagSet& set) {
  std::vector<LagProgression> parts;
  for (const LagTerm& term : set.terms()) {
    if (term.covers) parts.push_back(term.lags);
  }
  return parts;
}

}  // namespace

TEST_CASE("the terms of a lag set count every lag of the union once") {
  std::mt19937 engine(1);
  const auto number = [&](Index low, Index high) {
    return low + static_cast<Index>(engine() % static_cast<std::uint32_t>(high - low + 1));
  };
  for (int i = 0; i < 5000; ++i) {
    std::vector<LagProgression> given;
    for (Index p = number(0, 6); p > 0; --p) {
      const Index first = number(-40, 40);
      given.push_back({first, first + number(-2, 60), number(1, 3) == 1 ? 1 : number(1, 12)});
    }
    const std::set<Index> expected = lags_of(given);
    const LagSet set(given);
    if (lags_of(parts(set)) != expected) CHECK(lags_of(parts(set)) == expected);
    for (Index lag = -50; lag <= 110; ++lag) {
      Index times = 0;
      for (const LagTerm& term : set.terms()) times += term.lags.contains(lag) ? term.times : 0;
      const Index once = expected.count(lag) == 1 ? 1 : 0;
      if (times != once) CHECK(times == once);
      if (set.contains(lag) != (once == 1)) CHECK(set.contains(lag) == (once == 1));
    }
  }
  SUCCEED();
}

TEST_CASE("what repeats in a union is dropped before it is counted") {
  using Parts = std::vector<LagProgression>;
  CHECK(parts(LagSet({{0, 10, 1}, {5, 20, 1}, {21, 30, 1}})) == Parts{{0, 30, 1}});
  CHECK(parts(LagSet({{0, 1000, 1}, {64, 960, 64}})) == Parts{{0, 1000, 1}});
  CHECK(parts(LagSet({{0, 100, 1}, {64, 640, 64}})) == Parts{{0, 100, 1}, {128, 640, 64}});
  CHECK(parts(LagSet({{64, 640, 64}, {128, 1280, 128}})) == Parts{{64, 640, 64}, {768, 1280, 128}});
  // Many nested windows and multiples of one period stay two parts that share nothing.
  Parts many;
  for (Index i = 1; i <= 200; ++i) {
    many.push_back({0, 10 * i, 1});
    many.push_back({64, 1 << 20, 64 * i});
  }
  const LagSet set(many);
  CHECK(set.terms().size() == 2);
}

TEST_CASE("progressions meet in a progression of the least common multiple") {
  CHECK(intersection({6, 600, 6}, {10, 1000, 10}) == LagProgression{30, 600, 30});
  CHECK(intersection({1, 100, 4}, {3, 100, 6}) == LagProgression{9, 93, 12});
  CHECK(intersection({0, 100, 4}, {1, 101, 2}).empty());
  CHECK(intersection({0, 100, 7}, {3, 100, 11}) == LagProgression{14, 91, 77});
  // Far beyond 64 bits.
  const Index p = (Index{1} << 40) + 7, q = (Index{1} << 40) + 3;
  CHECK(intersection({0, Index{1} << 60, p}, {0, Index{1} << 60, q}) == LagProgression{0, 0, 1});
}

TEST_CASE("skips that meet in too many ways are refused") {
  std::vector<LagProgression> skips;
  const Index beyond = Index{1} << 60;
  for (const Index prime : {2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41}) skips.push_back({prime, beyond, prime});
  CHECK_THROWS_WITH(LagSet(skips),
                    "the skips of a layer meet in more than 4096 ways (where periods that do not divide each other "
                    "share keys, each way is counted apart), use fewer periods or multiples of each other");
  skips.pop_back();
  CHECK(LagSet(skips).terms().size() == (1 << 12) - 1);  // every subset but the empty one
}
