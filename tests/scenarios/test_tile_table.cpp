// The table of works by classes against counting each pair of groups.
#include "scenarios/tile_table.hpp"

#include <fmt/format.h>

#include <random>
#include <set>

#include "scenarios/pattern.hpp"
#include "tests/catch.hpp"
#include "tests/scenarios/primitives.hpp"

using namespace orrery;

namespace {

using Kind = Primitive::Kind;

Geometry geometry_of(const Layout& layout, Index tokens, int groups, Index residue_period = 1) {
  return make_geometry(layout, tokens, residue_period, groups, 1, 1, 1, 1, 1);
}

const Layout& layout_named(std::string_view name) {
  for (const Layout& layout : layouts()) {
    if (layout.name == name) return layout;
  }
  throw std::out_of_range(std::string(name));
}

Mask mask_of(const std::vector<Primitive>& primitives, Index tokens, bool causal = true,
             const std::vector<Index>& documents = {}) {
  return Pattern(primitives, 1).mask(0, tokens, causal, documents);
}

/// Compares every pair, and the distances, with counting it.
void check(const Geometry& geometry, const Mask& mask, TileShape tile) {
  const TileTable table(geometry, mask, tile);
  std::set<int> distances;
  for (int q = 0; q < geometry.groups; ++q) {
    TileWork sum;
    for (int k = 0; k < geometry.groups; ++k) {
      const TileWork expected = measure(mask.local(geometry.group_tokens[static_cast<std::size_t>(q)],
                                                   geometry.group_tokens[static_cast<std::size_t>(k)]),
                                        tile);
      const TileWork& found = table.at(q, k);
      sum += expected;
      const bool same = found.useful == expected.useful && found.executed == expected.executed &&
                        found.beyond == expected.beyond && found.query_rows == expected.query_rows;
      if (!same) FAIL_CHECK(fmt::format("groups {} and {}: {} pairs, not {}", q, k, found.useful, expected.useful));
      if (expected.useful > 0 && q != k) distances.insert((q - k + geometry.groups) % geometry.groups);
    }
    const TileWork of_group = table.of(q);
    CHECK((of_group.useful == sum.useful && of_group.executed == sum.executed));
  }
  CHECK(table.distances() == std::vector<int>(distances.begin(), distances.end()));
  CHECK(table.reach() == (distances.empty() ? 0 : *distances.rbegin()));
}

}  // namespace

TEST_CASE("the table has for each pair of groups what counting that pair finds") {
  std::mt19937 engine(7);
  const auto number = [&](Index low, Index high) {
    return low + static_cast<Index>(engine() % static_cast<std::uint32_t>(high - low + 1));
  };
  for (int i = 0; i < 600; ++i) {
    const auto groups = static_cast<int>(number(1, 9));
    const Index residues = number(1, 3), tokens = groups * 2 * residues * number(1, 5);
    std::vector<Primitive> pattern;
    for (Index p = number(1, 3); p > 0; --p) {
      switch (number(0, 5)) {
        case 0:
          pattern.push_back({.kind = Kind::full});
          break;
        case 1:
          pattern.push_back({.kind = Kind::sink, .first = number(1, tokens / 2 + 1)});
          break;
        case 2:
          pattern.push_back(stride(number(1, tokens), 0));
          break;
        case 3:
          pattern.push_back(stride(number(1, tokens), number(1, 3)));
          break;
        default:
          pattern.push_back(window(number(0, tokens), number(0, 3)));
          break;
      }
    }
    std::vector<Index> documents;
    if (number(0, 2) == 0) {
      for (Index left = tokens; left > 0; left -= documents.back()) documents.push_back(number(1, left));
    }
    const bool causal = number(0, 1) == 1;
    const Mask mask = mask_of(pattern, tokens, causal, documents);
    for (const Layout& layout : layouts()) {
      INFO(i << ": " << layout.name << ", " << groups << " groups, " << tokens << " tokens, causal " << causal << ", "
             << documents.size() << " documents, " << Pattern(pattern, 1).describe());
      check(geometry_of(layout, tokens, groups, groups * residues), mask, {number(1, 5), number(1, 5)});
    }
  }
}

TEST_CASE("documents that end where ranks do, and sinks, are exact too") {
  const Index tokens = 480;
  for (const Layout& layout : layouts()) {
    for (const std::vector<Index>& documents :
         std::vector<std::vector<Index>>{{480}, {240, 240}, {120, 240, 120}, {30, 450}, {100, 200, 180}}) {
      for (const Index sink : {0, 4, 16, 60}) {
        std::vector<Primitive> pattern = {window(50), stride(100, 0)};
        if (sink > 0) pattern.push_back({.kind = Kind::sink, .first = sink});
        INFO(layout.name << ", " << documents.size() << " documents, " << sink << " sinks");
        check(geometry_of(layout, tokens, 8, 16), mask_of(pattern, tokens, true, documents), {8, 4});
      }
    }
  }
}

TEST_CASE("entries of full, window and pi patterns do not grow with the number of ranks") {
  const Index tokens = Index{1} << 26;
  const std::vector<std::vector<Primitive>> patterns = {
      {{.kind = Kind::full}},
      {window(1 << 20)},
      {window(100000)},
      {window(4096), stride(1 << 18, 1)},
      {window(4096), stride(1 << 18, 0)},
      {window(4096), {.kind = Kind::sink, .first = 16}},
  };
  for (const std::string_view layout : {"contiguous", "zigzag", "striped"}) {
    for (const auto& pattern : patterns) {
      for (const int groups : {1024, 16384}) {
        const TileTable table(geometry_of(layout_named(layout), tokens, groups), mask_of(pattern, tokens), {128, 128});
        INFO(layout << ", " << groups << " groups, " << Pattern(pattern, 1).describe());
        CHECK(table.entries() <= 1000);
      }
    }
  }
}

TEST_CASE("pairs of groups beyond counting are refused") {
  // 8192 documents of uneven lengths: every rank is cut elsewhere.
  std::vector<Index> documents(4096, 1000);
  documents.resize(8192, 1048);
  const Index tokens = 4096 * 2048;
  const Mask mask = mask_of({{.kind = Kind::full}}, tokens, true, documents);
  CHECK_THROWS_WITH(TileTable(geometry_of(layout_named("striped"), tokens, 1024), mask, {128, 128}),
                    ContainsSubstring("use fewer ranks or documents"));
  CHECK_NOTHROW(TileTable(geometry_of(layout_named("contiguous"), tokens, 1024), mask, {128, 128}));
}

TEST_CASE(
    "rows that each see all keys are a block of their own: its tiles begin with its first row, and it has no mask") {
  // Zigzag: the later half of a rank's rows sees all of the keys of a rank between its two chunks, the earlier none.
  const Index chunk = 96;
  const int groups = 4;
  const TileShape tile{128, 128};
  const Index tokens = 2 * chunk * groups;
  const Geometry geometry = geometry_of(layout_named("zigzag"), tokens, groups);
  const TileTable table(geometry, mask_of({{}}, tokens), tile);
  const TileWork& later = table.at(0, 1);
  CHECK(later.query_rows == chunk);
  CHECK(later.key_rows == 2 * chunk);
  CHECK(later.executed == 1 * 2 * tile.query * tile.key);
  CHECK(later.executed - later.beyond == chunk * 2 * chunk);
  CHECK(later.executed - later.beyond == later.useful);
  // The diagonal is one triangle of 192 rows in 1 + 2 tiles; beyond them lie 64 rows of two tiles, 64 columns of one.
  const TileWork& diagonal = table.at(0, 0);
  CHECK(diagonal.executed == 3 * tile.query * tile.key);
  CHECK(diagonal.beyond == 64 * 2 * tile.key + 64 * 64);
}
