// Reach as a bit for every token: breadth-first search of the layered token graph, a whole layer at a time. The edges
// of a stage repeat with the position, so following all of them is shifting all bits.
#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <stdexcept>

#include "scenarios/reach_draw.hpp"
#include "scenarios/reach_engines.hpp"

namespace orrery {
namespace {

using Words = std::vector<std::uint64_t>;

class BitsetEngine {
 public:
  using Set = Words;

  BitsetEngine(const ReachProblem& problem, std::uint64_t seed)
      : problem_(problem), tokens_(problem.tokens()), draws_(seed) {
    if (tokens_ > most_bitset_tokens) {
      throw std::invalid_argument(fmt::format(
          "n = {} is past {} (the most tokens of the bitset engine, whose result may take 2 GB there), use fewer "
          "tokens or --engine intervals",
          tokens_, most_bitset_tokens));
    }
  }

  Set start() const {
    Set bits(static_cast<std::size_t>(tokens_ + 63) / 64);
    set_range(bits, problem_.query - problem_.begin, problem_.query - problem_.begin);
    return bits;
  }

  void apply(const ReachStep& step, Set& set) {
    const Set before = set;
    for (const LagProgression& lags : step.lags) add_keys_at(lags, before, set);
    if (step.sink > 0) add_sinks(step.sink, before, set);
    if (step.near.empty() && step.free.empty() && step.drawn.empty()) return;
    const std::vector<Interval> runs = runs_of(before);
    for (const NearBlocks& near : step.near) add_near(near, runs, set);
    for (const FreeBlocks& free : step.free) add_free(free, runs, set);
    for (const ReachPrimitive& p : step.drawn) add_drawn(p, runs, set);
  }

  /// Positions in the whole sequence.
  IntervalSet intervals(const Set& set) const {
    std::vector<Interval> runs = runs_of(set);
    for (Interval& run : runs) run = {run.first + problem_.begin, run.last + problem_.begin};
    return IntervalSet::merged(std::move(runs));
  }

 private:
  static bool test(const Words& bits, Index i) { return (bits[static_cast<std::size_t>(i >> 6)] >> (i & 63) & 1) != 0; }

  void set_range(Words& bits, Index first, Index last) const {
    first = std::max<Index>(first, 0), last = std::min(last, tokens_ - 1);
    if (first > last) return;
    const auto low = static_cast<std::size_t>(first >> 6), high = static_cast<std::size_t>(last >> 6);
    const std::uint64_t from = ~std::uint64_t{0} << (first & 63), until = ~std::uint64_t{0} >> (63 - (last & 63));
    if (low == high) {
      bits[low] |= from & until;
      return;
    }
    bits[low] |= from;
    for (std::size_t w = low + 1; w < high; ++w) bits[w] = ~std::uint64_t{0};
    bits[high] |= until;
  }

  /// into |= bits moved down by `move` tokens (up, if negative). `into` may not be `bits`.
  void or_moved(const Words& bits, Index move, Words& into) const {
    if (move >= tokens_ || -move >= tokens_) return;
    const std::size_t size = bits.size();
    const auto words = static_cast<std::size_t>(std::abs(move) >> 6);
    const int shift = static_cast<int>(std::abs(move) & 63);
    const auto at = [&](std::size_t w) { return w < size ? bits[w] : 0; };  // also for w below zero, which wraps
    if (move >= 0) {
      for (std::size_t w = 0; w + words < size; ++w) {
        into[w] |= shift == 0 ? bits[w + words] : bits[w + words] >> shift | at(w + words + 1) << (64 - shift);
      }
    } else {
      for (std::size_t w = words; w < size; ++w) {
        into[w] |= shift == 0 ? bits[w - words] : bits[w - words] << shift | at(w - words - 1) >> (64 - shift);
      }
      trim(into);
    }
  }

  void trim(Words& bits) const {
    if ((tokens_ & 63) != 0) bits.back() &= ~std::uint64_t{0} >> (64 - (tokens_ & 63));
  }

  void or_keys(const Words& queries, Index lag, Words& into) const {
    if (!problem_.ring) return or_moved(queries, lag, into);
    const Index down = lag - floor_div(lag, tokens_) * tokens_;
    or_moved(queries, down, into);
    or_moved(queries, down - tokens_, into);
  }

  /// The keys at lags first, first + step, ...: the first of them, then twice as many with every copy.
  void add_keys_at(const LagProgression& lags, const Words& queries, Words& set) const {
    if (lags.step == 1 && lags.first < 0 && lags.last > 0) {
      add_keys_at({0, lags.last, 1}, queries, set);
      return add_keys_at({lags.first, 0, 1}, queries, set);
    }
    const Index terms = (lags.last - lags.first) / lags.step + 1;
    const bool earlier = lags.last > 0;
    const Index away = earlier ? lags.step : -lags.step;
    Words keys(queries.size());
    or_keys(queries, earlier ? lags.first : lags.last, keys);
    for (Index done = 1; done < terms;) {
      const Index more = std::min(done, terms - done);
      const Words copy = keys;
      or_keys(copy, more * away, keys);
      done += more;
    }
    for (std::size_t w = 0; w < set.size(); ++w) set[w] |= keys[w];
  }

  std::vector<Interval> runs_of(const Words& bits) const {
    std::vector<Interval> runs;
    for (Index i = next(bits, 0, true); i < tokens_;) {
      const Index past = next(bits, i, false);
      runs.push_back({i, past - 1});
      i = next(bits, past, true);
    }
    return runs;
  }

  /// The first token from `i` on whose bit is `value`, or the number of tokens.
  Index next(const Words& bits, Index i, bool value) const {
    while (i < tokens_) {
      const std::uint64_t word =
          value ? bits[static_cast<std::size_t>(i >> 6)] : ~bits[static_cast<std::size_t>(i >> 6)];
      if (const std::uint64_t rest = word >> (i & 63); rest != 0) return std::min(tokens_, i + std::countr_zero(rest));
      i = (i | 63) + 1;
    }
    return tokens_;
  }

  void add_sinks(Index first, const Words& queries, Words& set) const {
    Index last = tokens_ - 1;
    while (!test(queries, last)) --last;
    set_range(set, 0, problem_.causal ? std::min(first - 1, last) : first - 1);
  }

  /// Calls what(b, last query of it) for every block of `size` tokens that holds a query.
  template <class What>
  static void for_each_block(const std::vector<Interval>& runs, Index size, What what) {
    for (const Interval& run : runs) {
      for (Index b = run.first / size; b <= run.last / size; ++b) what(b, std::min(run.last, b * size + size - 1));
    }
  }

  void add_near(const NearBlocks& near, const std::vector<Interval>& runs, Words& set) const {
    const Index before = std::min(near.before, tokens_ / near.size + 1);
    for_each_block(runs, near.size, [&](Index b, Index last) {
      set_range(set, (b - before) * near.size,
                problem_.causal ? last : std::min((b + before) * near.size, tokens_) + near.size - 1);
    });
  }

  void add_free(const FreeBlocks& free, const std::vector<Interval>& runs, Words& set) const {
    for_each_block(runs, free.query_block, [&](Index b, Index) {
      for (const Interval& blocks : choices(free, problem_, b)) {
        set_range(set, blocks.first * free.size, blocks.last * free.size + free.size - 1);
      }
    });
  }

  void add_drawn(const ReachPrimitive& p, const std::vector<Interval>& runs, Words& set) {
    if (next(set, 0, false) > last_visible()) return;
    if (p.kind == ReachPrimitive::Kind::bucket) {
      for (const Index token : draws_.same_bucket(p, runs, tokens_, problem_.causal)) set_range(set, token, token);
      return;
    }
    // The latest queries choose first: they have most to choose from, so that all is soon seen and nobody need draw.
    const FreeBlocks free{p.query_block, p.size, p.first, p.before};
    constexpr Index draws_between_looks = 16;
    Index drawn = 0;
    for (auto run = runs.rbegin(); run != runs.rend(); ++run) {
      for (Index b = run->last / p.query_block; b >= run->first / p.query_block; --b) {
        if (drawn++ % draws_between_looks == 0 && next(set, 0, false) > last_visible()) return;
        for (const Index block : draws_.blocks(p, choices(free, problem_, b))) {
          set_range(set, block * p.size, block * p.size + p.size - 1);
        }
      }
    }
  }

  Index last_visible() const { return problem_.causal ? problem_.query - problem_.begin : tokens_ - 1; }

  const ReachProblem& problem_;
  Index tokens_;
  ReachDraws draws_;
};

}  // namespace

void reach_by_bitset(const ReachProblem& problem, const ReachVisit& visit, std::uint64_t seed) {
  BitsetEngine engine(problem, seed);
  for_each_layer(problem, engine, [&](int layer, const Words& bits) { visit(layer, engine.intervals(bits)); });
}

}  // namespace orrery
