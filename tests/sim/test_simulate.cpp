// Closed forms: what the simulator has to return to the picosecond.
#include <algorithm>

#include "sim/simulate.hpp"
#include "tests/catch.hpp"
#include "tests/sim/programs.hpp"

using namespace orrery;
using namespace orrery::test;

TEST_CASE("A ring takes (P-1) * max(tile, shift) + tile") {
  const Ticks shift = 1'000'000;  // 100 kB at 100 GB/s
  const auto cluster_of = [](Rank ranks) { return star(ranks, gigabytes_per_second(100)); };
  for (Rank ranks = 2; ranks <= 64; ++ranks) {
    for (const Ticks tile : {shift / 7, shift - 1, shift, shift + 1, 3 * shift}) {
      const auto result = simulate(RingProgram(ranks, 1, tile, bytes(100e3)), cluster_of(ranks));
      CAPTURE(ranks, tile);
      CHECK(result.end == (ranks - 1) * std::max(tile, shift) + tile);
    }
  }
}
