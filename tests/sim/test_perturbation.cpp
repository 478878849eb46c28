// Slow ranks and noise.
#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "tests/catch.hpp"
#include "tests/sim/programs.hpp"
#include "tests/sim/same_result.hpp"

using namespace orrery;
using namespace orrery::test;

TEST_CASE("Noise has the mean and the sigma it is asked for, and depends on nothing but its place and the seed") {
  constexpr Ticks base = 1'000'000'000;
  for (const Noise noise : {Noise::uniform, Noise::normal, Noise::lognormal, Noise::exponential}) {
    INFO(name_of(noise));
    constexpr double sigma = 0.1;
    const Perturbation a(64, {noise, sigma, 7}, {}), again(64, {noise, sigma, 7}, {}), other(64, {noise, sigma, 8}, {});
    double sum = 0, squares = 0;
    int same = 0;
    constexpr int draws = 64 * 1000;
    for (int i = 0; i < draws; ++i) {
      const Ticks drawn = a.duration(base, i % 64, i / 64, i % 5);
      CHECK(drawn > 0);
      CHECK(again.duration(base, i % 64, i / 64, i % 5) == drawn);
      same += other.duration(base, i % 64, i / 64, i % 5) == drawn;
      const double x = static_cast<double>(drawn) / base - 1;
      sum += x;
      squares += x * x;
    }
    const double mean = sum / draws, expected = noise == Noise::exponential ? sigma : 0;
    CHECK_THAT(mean, WithinAbs(expected, 5 * sigma / std::sqrt(draws)));
    // Five standard errors of a variance; the kurtosis of the exponential distribution, 9, is the largest of the four.
    CHECK_THAT(squares / draws - mean * mean, WithinRel(sigma * sigma, 5 * std::sqrt((9.0 - 1) / draws)));
    CHECK(same < draws / 100);
  }
}

TEST_CASE("Noise reaches as far as its distribution does: of 4096 equally likely values the first and the last") {
  constexpr Ticks base = 1'000'000'000'000;
  const auto range = [](Noise noise, double sigma) {
    const Perturbation jitter(1, {noise, sigma, 1}, {});
    std::pair<double, double> found(10, 0);
    for (int i = 0; i < 100'000; ++i) {
      const double x = static_cast<double>(jitter.duration(base, 0, i, 0)) / base;
      found = {std::min(found.first, x), std::max(found.second, x)};
    }
    return found;
  };
  const double tail = 1.0 / 8192, z = 3.6683293;  // the normal distribution has 1 - tail below z (tabulated)
  const auto check = [](std::pair<double, double> found, double least, double most) {
    CHECK_THAT(found.first, WithinAbs(least, 1e-6));
    CHECK_THAT(found.second, WithinAbs(most, 1e-6));
  };
  check(range(Noise::uniform, 0.2), 1 - std::sqrt(3) * 0.2 * (1 - 2 * tail), 1 + std::sqrt(3) * 0.2 * (1 - 2 * tail));
  check(range(Noise::normal, 0.2), 1 - 0.2 * z, 1 + 0.2 * z);
  const double s = std::sqrt(std::log(1.04));
  check(range(Noise::lognormal, 0.2), std::exp(-s * z - s * s / 2), std::exp(s * z - s * s / 2));
  check(range(Noise::exponential, 0.2), 1 - 0.2 * std::log(1 - tail), 1 - 0.2 * std::log(tail));
}

TEST_CASE("Consecutive seeds do not hand the draws of a rank, block or op to its neighbour") {
  constexpr Ticks base = 1'000'000'000;
  const Perturbation a(64, {Noise::exponential, 0.1, 7}, {}), next(64, {Noise::exponential, 0.1, 8}, {});
  int ranks = 0, blocks = 0, indices = 0;
  for (int i = 0; i < 1000; ++i) {
    const Ticks drawn = a.duration(base, i % 63 + 1, i / 63 + 1, 1);
    ranks += next.duration(base, i % 63, i / 63 + 1, 1) == drawn;
    blocks += next.duration(base, i % 63 + 1, i / 63, 1) == drawn;
    indices += next.duration(base, i % 63 + 1, i / 63 + 1, 0) == drawn;
  }
  // 4096 values are equally likely.
  CHECK(std::max({ranks, blocks, indices}) < 10);
}

TEST_CASE("A rank at a fraction of the speed takes that much longer for its compute, and only for that") {
  const Perturbation slow(2, {}, {{1, 0.8}});
  const ListProgram program =
      ListProgram(2).add(0, compute_op(1000)).add(1, compute_op(1001)).add(1, transfer_op(Stream::copy_out, 10));
  for (const Engine engine : {Engine::event, Engine::dependency}) {
    const SimulationResult result =
        simulate(program, star(2, gigabytes_per_second(1)), {.engine = engine, .perturbation = &slow});
    CHECK(result.ranks[0].compute == 1000);
    CHECK(result.ranks[1].compute == 1251);  // 1001 / 0.8 = 1251.25
    CHECK(result.ranks[1].comm == 10);
  }
}

TEST_CASE("Perturbations that make no sense are refused, naming the value") {
  CHECK_THROWS_WITH(Perturbation(4, {Noise::lognormal, -0.1, 0}, {}), ContainsSubstring("-0.1"));
  CHECK_THROWS_WITH(Perturbation(4, {Noise::lognormal, 1.5, 0}, {}), ContainsSubstring("1.5"));
  CHECK_THROWS_WITH(Perturbation(4, {Noise::normal, 0.3, 0}, {}), ContainsSubstring("some ops would take no time"));
  CHECK_THROWS_WITH(Perturbation(4, {Noise::uniform, 0.6, 0}, {}), ContainsSubstring("some ops would take no time"));
  CHECK_THROWS_WITH(Perturbation(4, {}, {{4, 0.9}}), ContainsSubstring("slow rank 4"));
  CHECK_THROWS_WITH(Perturbation(4, {}, {{1, 0.9}, {1, 0.8}}), ContainsSubstring("rank 1 is slow twice"));
  CHECK_THROWS_WITH(Perturbation(4, {}, {{1, 0}}), ContainsSubstring("speed of 0"));
  CHECK_THROWS_WITH(Perturbation(4, {}, {{1, 1.1}}), ContainsSubstring("speed of 1.1"));
}

TEST_CASE("A jittered ring ends when the recurrence of its steps does") {
  constexpr Ticks tile = 1'000'000, hop = 850'000;
  for (const Rank ranks : {128, 512}) {
    for (std::int64_t layers = 1; layers * ranks <= 512; layers *= 4) {
      const RingProgram program(ranks, layers, tile, bytes(850));
      const Perturbation jitter(ranks, {Noise::exponential, 0.05, 11}, {});
      // C[s][r] ends step s of rank r, X[s][r] its transfer, as RingProgram says who waits for what.
      const auto n = static_cast<std::size_t>(ranks);
      std::vector<Ticks> compute(n), sent(n), arrived(n);
      for (std::int64_t layer = 0; layer < layers; ++layer) {
        for (Rank step = 0; step < ranks; ++step) {
          const std::vector<Ticks> before = compute, held = arrived;
          std::vector<Ticks> next_arrived(n);
          for (std::size_t r = 0; r < n; ++r) {
            const std::int64_t block = layer * ranks + step;
            const Ticks start = std::max(before[r], step == 0 ? 0 : held[r]);
            compute[r] = start + jitter.duration(tile, static_cast<Rank>(r), block, 0);
            if (step == ranks - 1) continue;
            const Ticks ready = step == 0 ? before[r] : held[r];
            sent[r] = std::max({sent[r], ready, before[(r + 1) % n]}) + hop;
            next_arrived[(r + 1) % n] = sent[r];
          }
          arrived = next_arrived;
        }
      }
      const Ticks expected = *std::max_element(compute.begin(), compute.end());
      const Cluster cluster = star(ranks, gigabytes_per_second(1));
      const SimulationResult events = simulate(program, cluster, {.engine = Engine::event, .perturbation = &jitter});
      const SimulationResult dependencies = simulate(program, cluster, {.perturbation = &jitter});
      CHECK(dependencies.engine == Engine::dependency);
      CHECK(events.end == expected);
      check_same(events, dependencies);
    }
  }
}
