// Reach by interval arithmetic. One stage maps the set R of reached tokens to R united with the keys its queries see.
// A window turns the interval [a, b] into [a - left, b + right]; a progression of lags is a union of shifted copies,
// built by doubling, so that all multiples of a period cost a logarithm of their number. Clipping at the ends of the
// sequence between the copies is exact, because the copies of a progression move in one direction: what has left
// the sequence does not come back.
#include <algorithm>

#include "scenarios/reach_engines.hpp"

namespace orrery {
namespace {

class IntervalEngine {
 public:
  using Set = IntervalSet;
  explicit IntervalEngine(const ReachProblem& problem) : problem_(problem) {}

  Set start() const { return IntervalSet({problem_.query, problem_.query}); }

  void apply(const ReachStep& step, Set& set) const {
    const Set before = set;
    add_keys(step, before, set);
  }

  void add_keys(const ReachStep& step, const Set& queries, Set& into) const {
    for (const LagProgression& lags : step.lags) into.unite(keys_at(lags, queries));
    if (step.sink > 0) into.unite(sinks(step.sink, queries));
    for (const NearBlocks& near : step.near) into.unite(near_blocks(near, queries));
    for (const FreeBlocks& free : step.free) into.unite(free_blocks(free, queries));
  }

 private:
  Set shifted(const Set& set, Index low, Index high) const {
    if (!problem_.ring) return set.moved(low, high, problem_.domain());
    const Index n = problem_.tokens();
    return high - low + 1 >= n ? whole() : set.turned(low % n, low % n + (high - low), n);
  }

  Set whole() const { return IntervalSet(problem_.domain()); }

  Set keys_at(const LagProgression& lags, const Set& queries) const {
    if (lags.step == 1) return shifted(queries, -lags.last, -lags.first);
    const Index terms = (lags.last - lags.first) / lags.step + 1;
    // From the end nearest to zero outwards.
    const bool earlier = lags.first > 0;
    const Index nearest = earlier ? -lags.first : -lags.last;
    const Index away = earlier ? -lags.step : lags.step;
    Set keys = shifted(queries, nearest, nearest);
    for (Index done = 1; done < terms;) {
      const Index more = std::min(done, terms - done);
      const Index move = problem_.ring ? product_modulo(more, away) : more * away;
      keys.unite(shifted(keys, move, move));
      done += more;
    }
    return keys;
  }

  Index product_modulo(Index a, Index b) const {
    __extension__ using Wide = __int128;
    return static_cast<Index>(static_cast<Wide>(a) * b % problem_.tokens());
  }

  Set sinks(Index first, const Set& queries) const {
    const Index last = problem_.begin + first - 1;
    return IntervalSet({problem_.begin, problem_.causal ? std::min(last, queries.parts().back().last) : last});
  }

  /// For each interval of queries the keys they see, as one or two intervals.
  template <class Keys>
  Set from_each(const Set& queries, Keys keys) const {
    std::vector<Interval> all;
    for (const Interval& part : queries.parts()) keys(part.first - problem_.begin, part.last - problem_.begin, all);
    for (Interval& part : all) {
      part.first = std::max(part.first + problem_.begin, problem_.begin);
      part.last = std::min(part.last + problem_.begin, problem_.end - 1);
    }
    return IntervalSet::merged(std::move(all));
  }

  Set near_blocks(const NearBlocks& near, const Set& queries) const {
    return from_each(queries, [&](Index first, Index last, std::vector<Interval>& all) {
      const Index from = first / near.size >= near.before ? (first / near.size - near.before) * near.size : 0;
      const Index until = problem_.causal ? last : end_of_block(last / near.size, near.before, near.size);
      all.push_back({from, until});
    });
  }

  /// The last token of the block `more` after block `block`, without overflow.
  Index end_of_block(Index block, Index more, Index size) const {
    const Index n = problem_.tokens();
    return more >= n / size - block ? n - 1 : (block + more + 1) * size - 1;
  }

  Set free_blocks(const FreeBlocks& free, const Set& queries) const {
    return from_each(queries, [&](Index first, Index last, std::vector<Interval>& all) {
      const Index from = free.first > problem_.tokens() / free.size ? problem_.tokens() : free.first * free.size;
      const Index own = last / free.query_block * free.query_block / free.size;
      if (own > free.before) all.push_back({from, (own - free.before) * free.size - 1});
      if (problem_.causal) return;
      const Index query_end = std::min(end_of_block(first / free.query_block, 0, free.query_block), problem_.tokens());
      const Index after = end_of_block(query_end / free.size, free.before, free.size) + 1;
      all.push_back({std::max(from, after), problem_.tokens() - 1});
    });
  }

  const ReachProblem& problem_;
};

}  // namespace

IntervalSet keys_of(const ReachProblem& problem, const ReachStep& step, const IntervalSet& queries) {
  IntervalSet keys;
  IntervalEngine(problem).add_keys(step, queries, keys);
  return keys;
}

void reach_by_intervals(const ReachProblem& problem, const ReachVisit& visit) {
  IntervalEngine engine(problem);
  for_each_layer(problem, engine, visit);
}

}  // namespace orrery
