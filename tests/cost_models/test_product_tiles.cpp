#include "cost_models/product_tiles.hpp"

#include <random>

#include "tests/catch.hpp"

using namespace orrery;

namespace {

constexpr double plenty = 1e12;
constexpr int sms = 132;

/// Only the tensor cores bound these.
ProductRates only_multiply_adds() {
  return {.multiply_adds = 2048, .operand_elements = plenty, .tile_ends = 0, .partial_sums = plenty, .sms = sms};
}

}  // namespace

TEST_CASE("whole waves of whole tiles take the multiply-adds of all SMs, and each wave the ends of a tile") {
  ProductRates rates = only_multiply_adds();
  const double waves = 3, inner = 4096;
  const MatrixProduct product{256.0 * 11, 128.0 * 12 * waves, inner};  // 132 tiles of 256 x 128 a wave
  const double at_peak = product.rows * product.columns * inner / (sms * rates.multiply_adds);
  CHECK_THAT(tile_product(product, rates).cycles, WithinRel(at_peak, 1e-12));
  CHECK_THAT(tile_product(product, rates).busy, WithinRel(at_peak, 1e-12));
  rates.tile_ends = 200;
  CHECK_THAT(tile_product(product, rates).cycles, WithinRel(at_peak * (inner + 200) / inner, 1e-12));
}

TEST_CASE("no product is faster than its multiply-adds on all SMs, or than a smaller one") {
  ProductRates rates = only_multiply_adds();
  rates.tile_ends = 200;
  rates.operand_elements = 35;
  rates.partial_sums = 300;
  std::mt19937 random(1);
  const auto size = [&] { return static_cast<double>(1 + random() % 6000); };
  for (int i = 0; i < 300; ++i) {
    const MatrixProduct small{size(), size(), size()};
    const TiledProduct of_small = tile_product(small, rates);
    CHECK(of_small.cycles >= small.rows * small.columns * small.inner / (sms * rates.multiply_adds));
    CHECK(of_small.busy <= of_small.cycles);
    CHECK(tile_product({small.rows + size(), small.columns, small.inner}, rates).cycles >= of_small.cycles);
    CHECK(tile_product({small.rows, small.columns + size(), small.inner}, rates).cycles >= of_small.cycles);
    CHECK(tile_product({small.rows, small.columns, small.inner + size()}, rates).cycles >= of_small.cycles);
    CHECK_THAT(tile_product({small.columns, small.rows, small.inner}, rates).cycles, WithinRel(of_small.cycles, 1e-12));
  }
}

TEST_CASE("a wave that is not full takes as long as a full one, and SMs without a tile are not busy") {
  ProductRates rates = only_multiply_adds();
  rates.partial_sums = 1e-9;  // nothing is split
  // 133 squares of 32 x 64, the smallest tile: one more than there are SMs.
  const double tile = 32 * 64 / rates.multiply_adds, inner = 100;
  const TiledProduct product = tile_product({32 * 133, 64, inner}, rates);
  // Two waves of them, or one wave of 67 twice as large, of which one is half empty.
  CHECK_THAT(product.cycles, WithinRel(2 * tile * inner, 1e-12));
  CHECK(product.busy < 0.52 * product.cycles);
  CHECK(product.busy > 0.49 * product.cycles);
}

TEST_CASE("a product of few tiles and a large inner size is split, until its partial sums cost more than that saves") {
  ProductRates rates = only_multiply_adds();
  rates.operand_elements = 1;  // so that loading decides: 32 + 64 elements a step
  const double inner = 96000, step = 32 + 64;
  const MatrixProduct product{32, 64, inner};
  CHECK_THAT(tile_product(product, rates).cycles, WithinRel(step * inner / 8, 1e-9));
  // Of n parts n results of 32 x 64 are written and read again: it pays to make two of one, but not three of two.
  const double result = 32 * 64;
  const auto split = [&](double n) { return step * inner / n + (n > 1 ? n * result / rates.partial_sums : 0); };
  rates.partial_sums = 2 * result / (0.4 * step * inner);
  CHECK(split(2) < split(1));
  CHECK(split(2) < split(3));
  CHECK_THAT(tile_product(product, rates).cycles, WithinRel(split(2), 1e-9));
  rates.partial_sums = 2 * result / (0.6 * step * inner);
  CHECK_THAT(tile_product(product, rates).cycles, WithinRel(split(1), 1e-9));
}
