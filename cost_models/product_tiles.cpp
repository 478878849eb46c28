#include "cost_models/product_tiles.hpp"

#include <algorithm>
#include <cmath>
#include <initializer_list>
#include <limits>

namespace orrery {
namespace {

struct Tile {
  double rows, columns;
};

TiledProduct tiled(const MatrixProduct& product, const ProductRates& rates, const Tile& tile, int parts) {
  const double tiles =
      std::ceil(product.rows / tile.rows) * std::ceil(product.columns / tile.columns) * static_cast<double>(parts);
  if (parts > 1 && tiles > rates.sms) return {std::numeric_limits<double>::infinity()};
  const double multiply_adds = tile.rows * tile.columns / rates.multiply_adds;
  const double step = std::max(multiply_adds, (tile.rows + tile.columns) / rates.operand_elements);
  const double of_tile = step * product.inner / parts + multiply_adds * rates.tile_ends;
  TiledProduct result{std::ceil(tiles / rates.sms) * of_tile, tiles / rates.sms * of_tile};
  if (parts > 1) {
    result.cycles += parts * product.rows * product.columns / rates.partial_sums + multiply_adds * rates.tile_ends;
  }
  return result;
}

}  // namespace

TiledProduct tile_product(const MatrixProduct& product, const ProductRates& rates) {
  constexpr double most_sums = 320 * 128, side_step = 32;
  TiledProduct best{std::numeric_limits<double>::infinity()};
  const auto consider = [&](const Tile& tile) {
    for (const int parts : {1, 2, 3, 4, 6, 8}) {
      const TiledProduct result = tiled(product, rates, tile, parts);
      if (result.cycles < best.cycles) best = result;
    }
  };
  for (const double side : {64, 128, 192, 256}) {
    for (double other = side_step; other <= std::min(256.0, most_sums / side); other += side_step) {
      consider({side, other});
      consider({other, side});
    }
  }
  return best;
}

}  // namespace orrery
