#include "kernels/stats.hpp"

#include "../catch.hpp"
#include "kernels/glob.hpp"

using namespace orrery;

TEST_CASE("quantiles interpolate between order statistics") {
  CHECK(quantile({1, 2, 3, 4}, 0.5) == 2.5);
  CHECK(quantile({1, 2, 3}, 0.5) == 2);
  CHECK(quantile({7}, 0.95) == 7);
  CHECK(quantile({}, 0.5) == 0);
}

TEST_CASE("the interval of the median narrows with samples and covers it") {
  std::vector<double> few, many;
  for (int i = 0; i < 20; ++i) few.push_back(100 + (i * 7) % 20 * 0.1);
  for (int i = 0; i < 2000; ++i) many.push_back(100 + (i * 7) % 20 * 0.1);
  const Summary a = summarize(few), b = summarize(many);
  CHECK(a.samples == 20);
  CHECK_THAT(a.median, WithinRel(100.95, 1e-9));
  CHECK(b.ci95_rel < a.ci95_rel);
  // 100.0, 100.1, ... 101.9: the quantiles lie at 0.05 and 0.95 of 19 steps.
  CHECK_THAT(a.p5, WithinRel(100 + 0.05 * 1.9, 1e-9));
  CHECK_THAT(a.p95, WithinRel(100 + 0.95 * 1.9, 1e-9));
  // 20 samples: order statistics 5 and 15 of 0..19 (10 -+ 0.98 sqrt(20), rounded outwards), which lie 1.0 apart.
  CHECK_THAT(a.ci95_rel, WithinRel(0.5 / 100.95, 1e-9));
}

TEST_CASE("the interval of the median of fewer than 8 samples is their whole range") {
  CHECK_THAT(summarize({1, 2, 3, 4, 5, 6, 10}).ci95_rel, WithinRel((10.0 - 1) / 2 / 4, 1e-9));
}

TEST_CASE("patterns match a part of a name, or the whole of it as a glob") {
  CHECK(matches("attention/forward/full", "forward"));
  CHECK_FALSE(matches("attention/forward/full", "backward"));
  CHECK(matches("attention/forward/full", "attention/*/full"));
  CHECK_FALSE(matches("attention/forward/full", "*/causal"));
  CHECK(matches("n1024", "n?024"));
  CHECK_FALSE(matches("n1024", "n?24"));
}
