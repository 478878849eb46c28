// How the tokens and the heads of one sequence lie on ranks, and which part of it a rank attends. No CUDA, so that the
// indices are tested without a GPU.
#pragma once
#include <vector>

#include "kernels/attention_shape.hpp"

namespace orrery {

enum class Layout { contiguous, zigzag, striped };
enum class Transport { copy_engine, nccl };

// Tokens and heads on one rank. Tensors are token-major; keys and values lie together, [2][n][kv_heads][head_dim].
struct Shard {
  int64_t n = 0, heads = 0, kv_heads = 0, head_dim = 0;
  int64_t row() const { return heads * head_dim; }
  int64_t kv_row() const { return kv_heads * head_dim; }
  int64_t q_count() const { return n * row(); }
  int64_t kv_count() const { return n * kv_row(); }  // keys alone
};

// Ranks g*U .. g*U+U-1 form group g. A group holds one layout set of tokens, each of its U members an equal part of
// them in order; after the members have exchanged heads, each holds all tokens of the group for a share of the heads.
// Member u of every group belongs to the same ring. U = 1: no exchange.
struct ContextShape {
  int ranks = 2;
  int members = 1;   // U
  int64_t n = 1024;  // tokens of one rank
  int64_t heads = 32, kv_heads = 32, head_dim = 128;
  bool causal = false;
  Layout layout = Layout::contiguous;
  Transport transport = Transport::copy_engine;
  int channels = 0;  // of NCCL; 0 leaves it to NCCL

  int groups() const { return ranks / members; }
  int group_of(int rank) const { return rank / members; }
  int member_of(int rank) const { return rank % members; }
  // The same member of the group `distance` groups further.
  int neighbour(int rank, int distance) const {
    return ((group_of(rank) + distance + groups()) % groups()) * members + member_of(rank);
  }
  Shard own() const { return {n, heads, kv_heads, head_dim}; }
  Shard attended() const { return {n * members, heads / members, kv_heads / members, head_dim}; }
  AttentionShape whole() const;  // the sequence on one GPU
};
// Throws std::invalid_argument if groups, heads or halves do not come out even.
void require_even(const ContextShape& shape);

// Global position of token i of a rank.
int64_t global_token(const ContextShape& shape, int rank, int64_t i);

// Which part of a (query, key) block pair has work. Offsets and lengths in tokens of the group's own order.
struct BlockWork {
  bool any = false;
  Mask mask = Mask::full;
  int64_t q_from = 0, q_count = 0, k_from = 0, k_count = 0;
};
// A group's queries against the block that group `owner` owns. With zigzag, group g owns the chunks g and 2P-1-g of 2P;
// striped, the tokens g, g + P, g + 2P, ...
BlockWork block_work(const ContextShape& shape, int group, int owner);
// The queries of blocks that not all queries of a group see (zigzag, striped); the same ones for all such blocks.
BlockWork partial_queries(const ContextShape& shape);
// A group's queries against the keys of all groups in the order of the sequence: one block, or with a causal zigzag one
// for each chunk, the late one last. Of the keys each block sees the first k_count. Not for striped tokens.
std::vector<BlockWork> whole_sequence_work(const ContextShape& shape, int group);
// A causal block of more keys than queries as two: the keys that all queries see, and the diagonal. Others as they are.
std::vector<BlockWork> before_and_diagonal(const BlockWork& work);
AttentionShape attention_shape(const ContextShape& shape, const BlockWork& work);

// Rows of a rank that are gathered together: of all ranks in their order, or in the reverse of it, they are consecutive
// in the sequence. Zigzag: the early chunks, and the late ones reversed. Offsets in tokens.
struct GatherPart {
  int64_t own_from = 0, count = 0, gathered_from = 0;
  bool reversed = false;
  int place(int rank, int ranks) const { return reversed ? ranks - 1 - rank : rank; }
};
std::vector<GatherPart> gather_parts(const ContextShape& shape);

// What an all-to-all moves between two members of a group: the tokens of one for the heads of the other. They lie in a
// packed buffer of the first, [members][n][heads / members][head_dim] (keys and values: [members][2][n]...), and among
// the attended tokens of the second. Offsets in numbers.
struct ExchangePiece {
  bool is_keys = false;  // of keys and values; otherwise of what has query heads
  int64_t packed_at = 0, attended_at = 0, count = 0;
};
std::vector<ExchangePiece> exchange_pieces(const ContextShape& shape, int token_member, int head_member);

}  // namespace orrery
