// How the sequence and the heads are spread over ranks: rings of groups, groups of ranks that exchange heads.
#pragma once

#include <vector>

#include "scenarios/action.hpp"
#include "scenarios/layout.hpp"
#include "scenarios/token_set.hpp"

namespace orrery {

/// Ranks g*U .. g*U+U-1 form group g. A group holds one layout set of tokens; its members hold equal parts of it, and
/// after the head exchange all of it for a share of the heads. Member u of every group belongs to the same ring. U = 1:
/// plain context parallelism. One group: DeepSpeed-Ulysses. Both above 1: USP.
struct Geometry {
  int groups = 1;                      // members of a ring, R
  int members = 1;                     // ranks that exchange heads, U
  std::vector<TokenSet> group_tokens;  // by group
  std::vector<TokenSet> rank_tokens;   // by rank
  TokenSet all_tokens;                 // concatenation of group_tokens
  int heads = 1, kv_heads = 1, head_dim = 1;
  Index batch = 1;
  bool even = true;  // all groups hold equally many tokens

  Rank ranks() const { return groups * members; }
  int group_of(Rank rank) const { return rank / members; }
  int member_of(Rank rank) const { return rank % members; }
  /// The rank `distance` groups further round the ring.
  Rank neighbour(Rank rank, int distance) const;
  const TokenSet& tokens_of(Rank rank) const { return group_tokens[static_cast<std::size_t>(group_of(rank))]; }

  /// The share of query heads a member attends, and the KV heads these need. With fewer KV heads than members each KV
  /// head is replicated on members / kv_heads of them.
  HeadRange query_heads(int member) const;
  HeadRange kv_heads_of(int member) const;
};

/// Throws std::invalid_argument if tokens, heads or ranks do not divide.
Geometry make_geometry(const Layout& layout, Index tokens, Index residue_period, int groups, int members, int heads,
                       int kv_heads, int head_dim, Index batch);

}  // namespace orrery
