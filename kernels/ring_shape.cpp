#include "kernels/ring.hpp"

namespace orrery {

BlockWork block_work(const RingShape& s, int rank, int owner) {
  BlockWork w;
  w.q_count = w.k_count = s.n;
  w.any = true;
  if (!s.causal) return w;
  if (owner == rank) {  // all layouts keep a rank's tokens in order, so its own block is causal as a whole
    w.mask = Mask::causal;
    return w;
  }
  if (s.layout == Layout::contiguous) {
    w.any = owner < rank;
    return w;
  }
  if (s.layout == Layout::striped) {  // key j of an earlier rank lies just before query j, of a later rank just behind
    w.mask = Mask::causal;
    if (owner > rank) {
      w.q_from = 1;
      w.q_count = w.k_count = s.n - 1;
    }
    return w;
  }
  const int64_t half = s.n / 2;
  if (owner < rank) {  // of its chunks only the early one lies before this rank's tokens, and before all of them
    w.k_count = half;
  } else {  // only this rank's late chunk sees the block, and sees all of it
    w.q_from = half;
    w.q_count = half;
  }
  return w;
}

BlockWork partial_queries(const RingShape& s) {
  for (int owner = 0; owner < s.ranks; ++owner) {
    for (int rank = 0; rank < s.ranks; ++rank) {
      const BlockWork w = block_work(s, rank, owner);
      if (w.any && w.q_count < s.n) return w;
    }
  }
  return {};
}

int64_t global_token(const RingShape& s, int rank, int64_t i) {
  if (s.layout == Layout::contiguous) return rank * s.n + i;
  if (s.layout == Layout::striped) return i * s.ranks + rank;
  const int64_t half = s.n / 2;
  return i < half ? rank * half + i : (2 * s.ranks - 1 - rank) * half + (i - half);
}

static AttentionShape attention_shape(const RingShape& s, const BlockWork& w) {
  AttentionShape a;
  a.n_q = w.q_count;
  a.n_k = w.k_count;
  a.heads = s.heads;
  a.kv_heads = s.kv_heads;
  a.head_dim = s.head_dim;
  a.mask = w.mask;
  return a;
}

std::vector<AttentionPlanKey> ring_plans(const RingShape& s, bool backward) {
  std::vector<AttentionPlanKey> keys;
  for (int rank = 0; rank < s.ranks; ++rank) {
    for (int owner = 0; owner < s.ranks; ++owner) {
      const BlockWork w = block_work(s, rank, owner);
      if (!w.any) continue;
      keys.push_back({attention_shape(s, w), Pass::forward});
      if (backward) keys.push_back({attention_shape(s, w), Pass::backward});
    }
  }
  return keys;
}

}  // namespace orrery
