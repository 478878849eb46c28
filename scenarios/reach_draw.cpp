#include "scenarios/reach_draw.hpp"

#include <algorithm>
#include <cmath>

namespace orrery {

std::vector<Interval> choices(const FreeBlocks& free, const ReachProblem& problem, Index b) {
  const Index blocks = ceil_div(problem.tokens(), free.size);
  const Index own = b * free.query_block / free.size;
  std::vector<Interval> found;
  const Interval earlier{free.first, own - free.before - 1};
  if (earlier.first <= earlier.last) found.push_back(earlier);
  if (problem.causal) return found;
  const Index query_end = std::min((b + 1) * free.query_block, problem.tokens()) - 1;
  const Interval later{std::max(free.first, query_end / free.size + free.before + 1), blocks - 1};
  if (later.first <= later.last) found.push_back(later);
  return found;
}

Index picked(const ReachPrimitive& select, Index available) {
  if (select.density == 0) return std::min(select.pick, available);
  return std::min(available, static_cast<Index>(std::llround(select.density * static_cast<double>(available))));
}

// splitmix64 (Steele, Lea, Flood, OOPSLA 2014): the standard distributions differ from library to library.
std::uint64_t ReachDraws::next() {
  std::uint64_t z = state_ += 0x9e3779b97f4a7c15U;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9U;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebU;
  return z ^ (z >> 31);
}

Index ReachDraws::below(Index limit) {
  __extension__ using Wide = unsigned __int128;
  return static_cast<Index>(static_cast<Wide>(next()) * static_cast<std::uint64_t>(limit) >> 64);
}

// Floyd's algorithm (Bentley and Floyd, CACM 1987): `pick` distinct choices with `pick` draws.
std::vector<Index> ReachDraws::blocks(const ReachPrimitive& select, const std::vector<Interval>& choices) {
  Index available = 0;
  for (const Interval& range : choices) available += range.last - range.first + 1;
  const Index pick = picked(select, available);
  std::vector<Index> all;
  if (pick == 0) return all;
  if (static_cast<Index>(taken_.size()) < available) taken_.resize(static_cast<std::size_t>(available));
  const auto block_of = [&](Index choice) {
    for (const Interval& range : choices) {
      if (choice <= range.last - range.first) return range.first + choice;
      choice -= range.last - range.first + 1;
    }
    return Index{0};
  };
  for (int head = 0; head < select.heads; ++head) {
    ++draw_;
    for (Index j = available - pick; j < available; ++j) {
      Index choice = below(j + 1);
      if (taken_[static_cast<std::size_t>(choice)] == draw_) choice = j;
      taken_[static_cast<std::size_t>(choice)] = draw_;
      all.push_back(block_of(choice));
    }
  }
  std::sort(all.begin(), all.end());
  all.erase(std::unique(all.begin(), all.end()), all.end());
  return all;
}

std::vector<Index> ReachDraws::same_bucket(const ReachPrimitive& bucket, const std::vector<Interval>& queries,
                                           Index tokens, bool causal) {
  std::vector<Index> found;
  std::vector<Index> bucket_of(static_cast<std::size_t>(tokens));
  for (int head = 0; head < bucket.heads; ++head) {
    for (Index& b : bucket_of) b = below(bucket.buckets);
    std::vector<Index> last_query(static_cast<std::size_t>(std::min(bucket.buckets, tokens * 64)), -1);
    for (const Interval& run : queries) {
      for (Index q = run.first; q <= run.last; ++q) {
        last_query[static_cast<std::size_t>(bucket_of[static_cast<std::size_t>(q)])] = q;
      }
    }
    for (Index t = 0; t < tokens; ++t) {
      const Index last = last_query[static_cast<std::size_t>(bucket_of[static_cast<std::size_t>(t)])];
      if (last >= 0 && (!causal || t <= last)) found.push_back(t);
    }
  }
  std::sort(found.begin(), found.end());
  found.erase(std::unique(found.begin(), found.end()), found.end());
  return found;
}

}  // namespace orrery
