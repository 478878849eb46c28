// Counting pairs by interval arithmetic against looking at every pair.
#include "scenarios/mask.hpp"

#include <algorithm>
#include <random>
#include <set>
#include <sstream>

#include "tests/catch.hpp"

using namespace orrery;

namespace {

class Random {
 public:
  explicit Random(std::uint32_t seed) : engine_(seed) {}
  /// From low to high, both included. Not a standard distribution: those differ between libraries.
  Index number(Index low, Index high) {
    return low + static_cast<Index>(engine_() % static_cast<std::uint32_t>(high - low + 1));
  }
  bool coin() { return number(0, 1) == 1; }

 private:
  std::mt19937 engine_;
};

struct RandomMask {
  Index tokens = 0, sink = 0;
  bool causal = false;
  std::vector<LagProgression> lags{};
  std::vector<Index> documents{};

  Mask mask() const { return Mask(tokens, causal, lags, sink, documents); }
  std::string text() const {
    std::ostringstream out;
    out << tokens << " tokens, causal " << causal << ", sink " << sink << ", lags";
    for (const LagProgression& p : lags) out << " " << p.first << ".." << p.last << "/" << p.step;
    out << ", documents";
    for (const Index d : documents) out << " " << d;
    return out.str();
  }
};

LagProgression random_lags(Random& random, Index tokens) {
  const Index first = random.number(-tokens - 2, tokens + 2);
  return {first, first + random.number(-1, 2 * tokens), random.number(1, 3) == 1 ? 1 : random.number(1, 9)};
}

RandomMask random_mask(Random& random) {
  RandomMask m;
  m.tokens = random.number(1, 36);
  m.causal = random.coin();
  for (Index i = random.number(0, 3); i > 0; --i) m.lags.push_back(random_lags(random, m.tokens));
  if (random.coin()) m.sink = random.number(0, 5);
  if (random.coin()) {
    for (Index left = m.tokens; left > 0; left -= m.documents.back()) m.documents.push_back(random.number(1, left));
  }
  return m;
}

/// Disjoint ranges of one stride, in any order.
TokenSet random_tokens(Random& random, Index tokens, Index stride) {
  std::vector<bool> used(static_cast<std::size_t>(tokens));
  std::vector<TokenRange> ranges;
  for (Index tries = random.number(0, 4); tries > 0; --tries) {
    TokenRange range{random.number(0, tokens - 1), 1, stride};
    range.count = random.number(1, (tokens - 1 - range.begin) / stride + 1);
    bool free = true;
    for (Index i = 0; i < range.count; ++i) free = free && !used[static_cast<std::size_t>(range.at(i))];
    if (!free) continue;
    for (Index i = 0; i < range.count; ++i) used[static_cast<std::size_t>(range.at(i))] = true;
    ranges.push_back(range);
  }
  return TokenSet(std::move(ranges));
}

Index stride_of_set(Random& random) {
  constexpr Index strides[] = {1, 1, 2, 3, 5};
  return strides[random.number(0, 4)];
}

TokenSet all(Index tokens) {
  return TokenSet({{0, tokens, 1}});
}

Index executed_pairs(const Mask& mask, const TokenSet& queries, const TokenSet& keys, TileShape shape) {
  return mask.local(queries, keys).tiles(shape).executed;
}

Mask causal_mask(Index tokens, std::vector<LagProgression> lags, Index sink = 0, std::vector<Index> documents = {}) {
  return Mask(tokens, true, std::move(lags), sink, documents);
}

}  // namespace

TEST_CASE("allows follows the definition: same document, a lag of the list or a sink, not later if causal") {
  Random random(11);
  for (int i = 0; i < 500; ++i) {
    const RandomMask m = random_mask(random);
    const Mask mask = m.mask();
    std::vector<Index> begin_of(static_cast<std::size_t>(m.tokens), 0);
    Index begin = 0;
    for (const Index length : m.documents) {
      std::fill_n(begin_of.begin() + begin, length, begin);
      begin += length;
    }
    for (Index q = 0; q < m.tokens; ++q) {
      for (Index k = 0; k < m.tokens; ++k) {
        const Index document = begin_of[static_cast<std::size_t>(k)];
        bool expected = k < document + m.sink;
        for (const LagProgression& p : m.lags) {
          for (Index lag = p.first; lag <= p.last; lag += p.step) expected = expected || q - k == lag;
        }
        expected = expected && document == begin_of[static_cast<std::size_t>(q)] && (!m.causal || k <= q);
        if (mask.allows(q, k) != expected) FAIL(m.text() << ": " << q << ", " << k);
      }
    }
  }
  SUCCEED();
}

TEST_CASE("pairs, keys and queries are those that looking at every pair finds") {
  Random random(1);
  for (int i = 0; i < 6000; ++i) {
    const RandomMask m = random_mask(random);
    const Mask mask = m.mask();
    const Index stride = stride_of_set(random);
    const TokenSet queries = random_tokens(random, m.tokens, stride), keys = random_tokens(random, m.tokens, stride);
    Index pairs = 0;
    std::vector<Index> keys_needed, queries_served;
    for (const Index q : queries.tokens()) {
      const auto scored = [&](Index k) { return mask.allows(q, k); };
      const std::vector<Index> k = keys.tokens();
      const Index count = std::count_if(k.begin(), k.end(), scored);
      pairs += count;
      if (count > 0) queries_served.push_back(q);
    }
    for (const Index k : keys.tokens()) {
      const std::vector<Index> q = queries.tokens();
      if (std::any_of(q.begin(), q.end(), [&](Index t) { return mask.allows(t, k); })) keys_needed.push_back(k);
    }
    INFO(i << ": " << m.text() << ", stride of the sets " << stride);
    if (mask.pairs(queries, keys) != pairs) CHECK(mask.pairs(queries, keys) == pairs);
    if (mask.keys_needed(queries, keys).tokens() != keys_needed) {
      CHECK(mask.keys_needed(queries, keys).tokens() == keys_needed);
    }
    const std::vector<Index> served = queries.rows(mask.local(queries, keys).rows()).tokens();
    if (served != queries_served) CHECK(served == queries_served);
  }
  SUCCEED();
}

TEST_CASE("sets of many ranges count the same pairs") {
  Random random(2);
  for (int i = 0; i < 300; ++i) {
    RandomMask m = random_mask(random);
    m.tokens = 60;
    m.documents.clear();
    if (random.coin()) m.documents = {random.number(1, 59)};
    if (!m.documents.empty()) m.documents.push_back(60 - m.documents[0]);
    const Mask mask = m.mask();
    const Index run = random.number(1, 3), gap = random.number(1, 3);
    std::vector<TokenRange> ranges, others;
    for (Index at = 0; at + run <= 60; at += run + gap) ranges.push_back({at, run, 1});
    for (Index at = random.number(0, 5); at < 58; at += 4) others.push_back({at, 2, 1});
    const TokenSet queries(ranges), keys(others);
    Index pairs = 0;
    for (const Index q : queries.tokens()) {
      for (const Index k : keys.tokens()) pairs += mask.allows(q, k) ? 1 : 0;
    }
    INFO(m.text() << ", runs of " << run << " and gaps of " << gap);
    CHECK(mask.pairs(queries, keys) == pairs);
  }
}

namespace {

/// The definition: whole tiles of one grid over the queries and keys in their local order, each that holds a pair.
TilePlaces tiles_one_by_one(const Mask& mask, const TokenSet& queries, const TokenSet& keys, TileShape shape) {
  const std::vector<Index> q = queries.tokens(), k = keys.tokens();
  std::set<std::pair<std::size_t, std::size_t>> tiles;
  for (std::size_t i = 0; i < q.size(); ++i) {
    for (std::size_t j = 0; j < k.size(); ++j) {
      if (mask.allows(q[i], k[j])) {
        tiles.insert({i / static_cast<std::size_t>(shape.query), j / static_cast<std::size_t>(shape.key)});
      }
    }
  }
  TilePlaces places;
  for (const auto& [row, column] : tiles) {
    const Index rows = std::min(shape.query, queries.size() - static_cast<Index>(row) * shape.query);
    const Index columns = std::min(shape.key, keys.size() - static_cast<Index>(column) * shape.key);
    places.executed += shape.query * shape.key;
    places.beyond += shape.query * shape.key - rows * columns;
  }
  return places;
}

}  // namespace

TEST_CASE(
    "a kernel computes whole tiles of places in memory: those that hold a pair of the union, each once, also beyond "
    "the last row and column") {
  Random random(3);
  for (int i = 0; i < 6000; ++i) {
    const RandomMask m = random_mask(random);
    const Mask mask = m.mask();
    const Index stride = stride_of_set(random);
    const TokenSet queries = random_tokens(random, m.tokens, stride), keys = random_tokens(random, m.tokens, stride);
    const TileShape shape{random.number(1, 6), random.number(1, 6)};
    INFO(i << ": " << m.text() << ", stride " << stride << ", tiles " << shape.query << " x " << shape.key);
    const TilePlaces found = mask.local(queries, keys).tiles(shape);
    const TilePlaces expected = tiles_one_by_one(mask, queries, keys, shape);
    if (found != expected) CHECK((found.executed == expected.executed && found.beyond == expected.beyond));
    // Tiles of one pair hold nothing else.
    const Index useful = mask.pairs(queries, keys);
    if (executed_pairs(mask, queries, keys, {1, 1}) != useful)
      CHECK(executed_pairs(mask, queries, keys, {1, 1}) == useful);
  }
  SUCCEED();
}

TEST_CASE("primitives that repeat each other add nothing to useful or executed pairs") {
  const Index n = 4096;
  const TileShape tile{128, 64};
  const auto same = [&](const Mask& a, const Mask& b) {
    CHECK(a.pairs(all(n), all(n)) == b.pairs(all(n), all(n)));
    CHECK(executed_pairs(a, all(n), all(n), tile) == executed_pairs(b, all(n), all(n), tile));
  };
  const Mask full = causal_mask(n, {{-n, n, 1}}), window = causal_mask(n, {{0, 1000, 1}});
  same(causal_mask(n, {{-n, n, 1}, {-n, n, 1}}), full);
  same(causal_mask(n, {{0, 100, 1}, {0, 1000, 1}, {0, 10, 1}}), window);
  same(causal_mask(n, {{0, 500, 1}, {501, 1000, 1}}), window);
  same(causal_mask(n, {{0, 700, 1}, {300, 1000, 1}}), window);
  same(causal_mask(n, {{0, 1000, 1}, {100, 1000, 100}}), window);
  same(causal_mask(n, {{0, n, 1}}, 100), full);
  const Mask strided = causal_mask(n, {{64, n, 64}});
  same(causal_mask(n, {{64, n, 64}, {64, n, 64}, {128, 2048, 128}, {192, 192, 1}}), strided);
  std::vector<LagProgression> nested;
  for (Index left = 50; left <= 1000; left += 50) nested.push_back({0, left, 1});
  same(causal_mask(n, nested), window);
}

TEST_CASE("executed pairs do not depend on how the tokens are stored") {
  Random random(5);
  for (int i = 0; i < 200; ++i) {
    const RandomMask m = random_mask(random);
    const Mask mask = m.mask();
    const Index stride = random.number(1, 4);
    const TokenRange q{random.number(0, m.tokens - 1), 0, stride}, k{random.number(0, m.tokens - 1), 0, stride};
    const auto as_progression = [&](TokenRange r) {
      r.count = (m.tokens - 1 - r.begin) / stride + 1;
      return TokenSet({r});
    };
    const auto one_by_one = [&](const TokenSet& set) {
      std::vector<TokenRange> ranges;
      for (const Index token : set.tokens()) ranges.push_back({token, 1, 1});
      return TokenSet(ranges);
    };
    const TokenSet queries = as_progression(q), keys = as_progression(k);
    const TileShape shape{random.number(1, 5), random.number(1, 5)};
    INFO(m.text() << ", stride " << stride);
    CHECK(executed_pairs(mask, queries, keys, shape) ==
          executed_pairs(mask, one_by_one(queries), one_by_one(keys), shape));
    CHECK(mask.pairs(queries, keys) == mask.pairs(one_by_one(queries), one_by_one(keys)));
  }
}

TEST_CASE("a skip costs a diagonal of tiles, skips closer than a tile every tile") {
  const Index n = 1024, tile = 64, period = 256;
  const Index side = n / tile;
  const Mask single = causal_mask(n, {{period, period, period}});
  CHECK(executed_pairs(single, all(n), all(n), {tile, tile}) == (side - period / tile) * tile * tile);
  // Not a multiple of the tile: two tiles for each row of tiles but the first and the last.
  const Mask uneven = causal_mask(n, {{period + 1, period + 1, 1}});
  const Index rows = side - period / tile;
  CHECK(executed_pairs(uneven, all(n), all(n), {tile, tile}) == (2 * rows - 1) * tile * tile);
  // Diagonals at 256, 512 and 768: 12, 8 and 4 tiles.
  const Mask strided = causal_mask(n, {{period, n, period}});
  CHECK(executed_pairs(strided, all(n), all(n), {tile, tile}) == (12 + 8 + 4) * tile * tile);
  const Mask close = causal_mask(n, {{32, n, 32}});
  CHECK(executed_pairs(close, all(n), all(n), {tile, tile}) == side * (side + 1) / 2 * tile * tile);
}

TEST_CASE("a causal mask is covered by its lower triangle of tiles") {
  const Index tile = 128, tiles = 64, n = tile * tiles;
  const Mask mask = causal_mask(n, {{-n, n, 1}});
  CHECK(executed_pairs(mask, all(n), all(n), {tile, tile}) == tiles * (tiles + 1) / 2 * tile * tile);
  const Mask full(n, false, {{-n, n, 1}}, 0, {});
  CHECK(executed_pairs(full, all(n), all(n), {tile, tile}) == n * n);
  // A ragged edge counts whole.
  CHECK(executed_pairs(full, TokenSet({{0, tile + 1, 1}}), all(n), {tile, tile}) == 2 * tile * n);
}

TEST_CASE("pairs of a million tokens follow the closed forms") {
  const Index n = 1 << 20;
  CHECK(causal_mask(n, {{-n, n, 1}}).pairs(all(n), all(n)) == n * (n + 1) / 2);
  CHECK(Mask(n, false, {{-n, n, 1}}, 0, {}).pairs(all(n), all(n)) == n * n);
  for (const Index w : {0, 1, 1023, 65536, (1 << 20) - 1}) {
    CHECK(causal_mask(n, {{0, w, 1}}).pairs(all(n), all(n)) == n * (w + 1) - w * (w + 1) / 2);
    CHECK(Mask(n, false, {{-w, w, 1}}, 0, {}).pairs(all(n), all(n)) == n * (2 * w + 1) - w * (w + 1));
  }
  for (const Index p : {1, 2, 1024, 1 << 18}) {
    const Index m = n / p;
    CHECK(causal_mask(n, {{p, n, p}}).pairs(all(n), all(n)) == p * (m * (m - 1) / 2));
    CHECK(causal_mask(n, {{p, p, p}}).pairs(all(n), all(n)) == n - p);
    CHECK(causal_mask(n, {{p, 3 * p, p}}).pairs(all(n), all(n)) == 3 * n - 6 * p);
  }
  // Window and skip that meet are not counted twice: the multiples of 64 up to 4096 are inside a window of 4096.
  const Index w = 4096;
  CHECK(causal_mask(n, {{0, w, 1}, {64, w, 64}}).pairs(all(n), all(n)) ==
        causal_mask(n, {{0, w, 1}}).pairs(all(n), all(n)));
  // Sinks: s more keys for each query beyond window and sinks.
  const Index s = 16;
  CHECK(causal_mask(n, {{0, w, 1}}, s).pairs(all(n), all(n)) ==
        n * (w + 1) - w * (w + 1) / 2 + s * (s - 1) / 2 + s * (n - w - s));
  // Documents: each its own triangle.
  const std::vector<Index> documents = {1, n / 2, n / 4, n / 4 - 1};
  Index sum = 0;
  for (const Index d : documents) sum += d * (d + 1) / 2;
  CHECK(causal_mask(n, {{-n, n, 1}}, 0, documents).pairs(all(n), all(n)) == sum);
}

TEST_CASE("windows and periods beyond the sequence are full attention and no skip") {
  const Index n = 1000, beyond = Index{1} << 40;
  const Index full = n * (n + 1) / 2;
  CHECK(causal_mask(n, {{0, beyond, 1}}).pairs(all(n), all(n)) == full);
  CHECK(causal_mask(n, {{-beyond, beyond, 1}}).pairs(all(n), all(n)) == full);
  CHECK(causal_mask(n, {{beyond, beyond, beyond}}).pairs(all(n), all(n)) == 0);
  CHECK(causal_mask(n, {{0, 0, 1}, {n, 4 * n, n}}).pairs(all(n), all(n)) == n);
  CHECK(causal_mask(n, {}, beyond).pairs(all(n), all(n)) == full);
  CHECK(causal_mask(n, {}).pairs(all(n), all(n)) == 0);
}

TEST_CASE("2^31 tokens do not overflow") {
  const Index n = Index{1} << 31;
  CHECK(Mask(n, false, {{-n, n, 1}}, 0, {}).pairs(all(n), all(n)) == n * n);
  CHECK(Mask(n, false, {{-n, n, 1}}, 7, {n / 2, n / 2}).pairs(all(n), all(n)) == n * n / 2);
  const Mask causal = causal_mask(n, {{-n, n, 1}});
  CHECK(causal.pairs(all(n), all(n)) == n / 2 * (n + 1));
  CHECK(causal.keys_needed(all(n), all(n)).size() == n);
  const Index tile = 1 << 20;
  CHECK(executed_pairs(causal, all(n), all(n), {tile, tile}) == (n / tile) * (n / tile + 1) / 2 * tile * tile);
  // Steps whose product is far beyond 64 bits.
  const Index p = (Index{1} << 30) + 7, q = (Index{1} << 30) + 3;
  CHECK(causal_mask(n, {{p, n, p}, {q, n, q}}).pairs(all(n), all(n)) == (n - p) + (n - q));
  const TokenSet striped({{5, n / 64, 64}}), other({{7, n / 64, 64}});
  CHECK(causal.pairs(striped, other) == (n / 64) * (n / 64 - 1) / 2);
  CHECK(causal.pairs(other, striped) == (n / 64) * (n / 64 + 1) / 2);
}
