#include "kernels/context_shape.hpp"

#include <stdexcept>

namespace orrery {

AttentionShape ContextShape::whole() const {
  AttentionShape a;
  a.n_q = a.n_k = n * ranks;
  a.heads = heads;
  a.kv_heads = kv_heads;
  a.head_dim = head_dim;
  a.mask = causal ? Mask::causal : Mask::full;
  return a;
}

void require_even(const ContextShape& s) {
  if (s.ranks % s.members) throw std::invalid_argument("the ranks do not form groups of equal size");
  if (s.heads % s.members || s.kv_heads % s.members) {
    throw std::invalid_argument("query and key heads must be multiples of the ranks that exchange them");
  }
  if (s.layout == Layout::zigzag && s.attended().n % 2) throw std::invalid_argument("zigzag halves an odd number");
}

BlockWork block_work(const ContextShape& s, int group, int owner) {
  const int64_t n = s.attended().n;
  BlockWork w;
  w.q_count = w.k_count = n;
  w.any = true;
  if (!s.causal) return w;
  if (owner == group) {  // all layouts keep a group's tokens in order, so its own block is causal as a whole
    w.mask = Mask::causal;
    return w;
  }
  if (s.layout == Layout::contiguous) {
    w.any = owner < group;
    return w;
  }
  if (s.layout == Layout::striped) {  // key j of an earlier group lies just before query j, of a later one just behind
    w.mask = Mask::causal;
    if (owner > group) {
      w.q_from = 1;
      w.q_count = w.k_count = n - 1;
    }
    return w;
  }
  const int64_t half = n / 2;
  if (owner < group) {  // of its chunks only the early one lies before this group's tokens, and before all of them
    w.k_count = half;
  } else {  // only this group's late chunk sees the block, and sees all of it
    w.q_from = half;
    w.q_count = half;
  }
  return w;
}

BlockWork partial_queries(const ContextShape& s) {
  for (int owner = 0; owner < s.groups(); ++owner) {
    for (int group = 0; group < s.groups(); ++group) {
      const BlockWork w = block_work(s, group, owner);
      if (w.any && w.q_count < s.attended().n) return w;
    }
  }
  return {};
}

std::vector<BlockWork> whole_sequence_work(const ContextShape& s, int group) {
  if (s.causal && s.layout == Layout::striped)
    throw std::invalid_argument("no kernel has the mask of gathered stripes");
  const int64_t n = s.attended().n, half = n / 2;
  if (!s.causal) return {{true, Mask::full, 0, n, 0, n * s.groups()}};
  if (s.layout == Layout::contiguous || s.groups() == 1) return {{true, Mask::causal, 0, n, 0, n * (group + 1)}};
  return {{true, Mask::causal, 0, half, 0, half * (group + 1)},
          {true, Mask::causal, half, half, 0, half * (2 * s.groups() - group)}};
}

std::vector<BlockWork> before_and_diagonal(const BlockWork& w) {
  if (w.mask != Mask::causal || w.k_count <= w.q_count) return {w};
  const int64_t before = w.k_count - w.q_count;
  return {{true, Mask::full, w.q_from, w.q_count, w.k_from, before},
          {true, Mask::causal, w.q_from, w.q_count, w.k_from + before, w.q_count}};
}

AttentionShape attention_shape(const ContextShape& s, const BlockWork& w) {
  const Shard shard = s.attended();
  AttentionShape a;
  a.n_q = w.q_count;
  a.n_k = w.k_count;
  a.heads = shard.heads;
  a.kv_heads = shard.kv_heads;
  a.head_dim = shard.head_dim;
  a.mask = w.mask;
  return a;
}

int64_t global_token(const ContextShape& s, int rank, int64_t in_rank) {
  const int64_t n = s.attended().n, group = s.group_of(rank), i = s.member_of(rank) * s.n + in_rank;
  if (s.layout == Layout::contiguous) return group * n + i;
  if (s.layout == Layout::striped) return i * s.groups() + group;
  const int64_t half = n / 2;
  return i < half ? group * half + i : (2 * s.groups() - 1 - group) * half + (i - half);
}

std::vector<GatherPart> gather_parts(const ContextShape& s) {
  const int64_t n = s.attended().n, half = n / 2;
  if (s.layout == Layout::contiguous) return {{0, n, 0, false}};
  if (s.layout == Layout::striped) throw std::invalid_argument("gathered stripes are not in the order of the sequence");
  return {{0, half, 0, false}, {half, half, half * s.groups(), true}};
}

std::vector<ExchangePiece> exchange_pieces(const ContextShape& s, int token_member, int head_member) {
  const Shard shard = s.attended();
  const int64_t q = s.n * shard.row(), kv = s.n * shard.kv_row(), values = shard.kv_count();
  return {{false, head_member * q, token_member * q, q},
          {true, head_member * 2 * kv, token_member * kv, kv},
          {true, head_member * 2 * kv + kv, values + token_member * kv, kv}};
}

}  // namespace orrery
