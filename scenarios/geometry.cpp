#include "scenarios/geometry.hpp"

#include <fmt/format.h>

#include <stdexcept>

namespace orrery {
namespace {

void check_head_exchange(int members, int heads, int kv_heads) {
  if (members > heads) {
    throw std::invalid_argument(
        fmt::format("{} ranks cannot share {} attention heads (a head exchange needs at least one head per rank), use "
                    "at most {} ranks or a ring",
                    members, heads, heads));
  }
  if (heads % members != 0) {
    throw std::invalid_argument(
        fmt::format("{} ranks do not divide {} attention heads (every rank gets the same number), use a divisor of {}",
                    members, heads, heads));
  }
  if (kv_heads % members != 0 && members % kv_heads != 0) {
    throw std::invalid_argument(
        fmt::format("{} ranks and {} KV heads do not divide each other (KV heads are dealt out or replicated evenly), "
                    "use a divisor or a multiple of {}",
                    members, kv_heads, kv_heads));
  }
}

}  // namespace

Rank Geometry::neighbour(Rank rank, int distance) const {
  const int group = ((group_of(rank) + distance) % groups + groups) % groups;
  return group * members + member_of(rank);
}

HeadRange Geometry::query_heads(int member) const {
  const int share = heads / members;
  return {member * share, share};
}

HeadRange Geometry::kv_heads_of(int member) const {
  if (kv_heads < members) return {member * kv_heads / members, 1};
  const int share = kv_heads / members;
  return {member * share, share};
}

Geometry make_geometry(const Layout& layout, Index tokens, Index residue_period, int groups, int members, int heads,
                       int kv_heads, int head_dim, Index batch) {
  check_head_exchange(members, heads, kv_heads);
  Geometry g;
  g.groups = groups;
  g.members = members;
  g.heads = heads;
  g.kv_heads = kv_heads;
  g.head_dim = head_dim;
  g.batch = batch;
  g.group_tokens = layout.place({tokens, groups, residue_period});
  for (const TokenSet& set : g.group_tokens) {
    g.even = g.even && set.size() == g.group_tokens.front().size();
    if (set.size() % members != 0) {
      throw std::invalid_argument(
          fmt::format("{} tokens of a group do not divide over its {} ranks (head exchange), use a multiple of {}",
                      set.size(), members, groups * members));
    }
    const Index part = set.size() / members;
    for (int u = 0; u < members; ++u) g.rank_tokens.push_back(set.rows(u * part, part));
  }
  g.all_tokens = concatenate(g.group_tokens);
  return g;
}

}  // namespace orrery
