#include "validate/closed_form.hpp"

#include <algorithm>
#include <cassert>

namespace orrery {

Ticks message_time(Seconds startup, Seconds latency, Bytes size, BytesPerSecond bandwidth) {
  return shared_link_time(startup, latency, 1, size, bandwidth);
}

Ticks shared_link_time(Seconds startup, Seconds latency, int messages, Bytes size, BytesPerSecond bandwidth) {
  return to_ticks(startup) + to_ticks(latency) + to_ticks(size * messages / bandwidth);
}

Ticks ring_forward(int ranks, Ticks first, Ticks tile, Ticks hop) {
  if (ranks == 1) return first;
  const Ticks start_of_step_1 = std::max(first, hop);
  if (ranks == 2) return start_of_step_1 + tile;
  const Ticks start_of_step_2 = std::max(start_of_step_1 + tile, 2 * hop);
  return start_of_step_2 + (ranks - 3) * std::max(tile, hop) + tile;
}

Ticks ring_forward_full_circle(int ranks, Ticks tile, Ticks hop) {
  return ranks == 1 ? tile : ranks * std::max(tile, hop);
}

Ticks ring_forward_causal_contiguous(int ranks, Ticks diagonal, Ticks tile, Ticks hop) {
  assert(diagonal <= tile && (hop <= diagonal || hop >= tile));
  if (ranks == 1) return diagonal;
  return hop <= diagonal ? diagonal + (ranks - 1) * tile : (ranks - 1) * hop + tile;
}

Ticks ring_backward_fused(int ranks, Ticks tile, Ticks kv_hop, Ticks gradient_hop) {
  if (ranks == 1) return tile;
  return (ranks - 1) * (std::max(tile, kv_hop) + gradient_hop) + tile + gradient_hop;
}

Ticks ring_backward_summed(int ranks, Ticks tile, Ticks kv_hop, Ticks gradient_hop, Ticks sum) {
  if (ranks == 1) return tile;
  const Ticks step = std::max({tile + sum, gradient_hop + sum, gradient_hop + kv_hop});
  return std::max(tile, kv_hop) + (ranks - 2) * step + std::max(tile, gradient_hop) + sum + gradient_hop;
}

Ticks ring_backward_full_circle(int ranks, Ticks tile, Ticks kv_hop, Ticks gradient_hop) {
  return ranks == 1 ? tile : ranks * (std::max(tile, kv_hop) + gradient_hop);
}

Ticks ring_backward_to_home_summed(int ranks, Ticks tile, Ticks kv_hop, Ticks joint_hop, Ticks gradient_hop,
                                   Ticks sum) {
  if (ranks == 1) return tile;
  return std::max(tile, kv_hop) + (ranks - 2) * (std::max(tile, joint_hop) + sum) + std::max(tile, gradient_hop) + sum;
}

Ticks ring_backward_to_home_fused(int ranks, Ticks tile, Ticks kv_hop, Ticks joint_hop, Ticks gradient_hop) {
  if (ranks == 1) return tile;
  return std::max(tile, kv_hop) + (ranks - 2) * (joint_hop + tile) + gradient_hop + tile;
}

Ticks all_gather_forward(int ranks, int gathers, Ticks hop, Ticks attention) {
  const Ticks gather = (ranks - 1) * hop;
  return gather + (gathers - 1) * std::max(gather, attention) + attention;
}

Ticks all_gather_forward_per_rank(int ranks, Ticks tile, Ticks hop) {
  return std::max(tile, (ranks - 1) * hop) + (ranks - 1) * tile;
}

Ticks all_gather_backward(int ranks, Ticks hop, Ticks attention, Ticks gradient_hop) {
  return (ranks - 1) * hop + attention + (ranks - 1) * gradient_hop;
}

Ticks all_gather_backward_ring_fused(int ranks, Ticks tile, Ticks hop, Ticks gradient_hop) {
  return std::max(tile, (ranks - 1) * hop) + gradient_hop + (ranks - 1) * (tile + gradient_hop);
}

Ticks all_gather_backward_ring_summed(int ranks, Ticks tile, Ticks hop, Ticks gradient_hop, Ticks sum) {
  return std::max(tile, (ranks - 1) * hop) + (ranks - 1) * (std::max(tile, gradient_hop) + sum) + gradient_hop;
}

Index causal_pairs(Index tokens) {
  return tokens % 2 == 0 ? tokens / 2 * (tokens + 1) : (tokens + 1) / 2 * tokens;
}

double contiguous_causal_efficiency(int ranks) {
  return static_cast<double>(ranks) / (2 * ranks - 1);
}

double contiguous_causal_efficiency_in_pairs(int ranks, Index block) {
  return static_cast<double>(ranks * block + 1) / static_cast<double>((2 * ranks - 1) * block + 1);
}

Index zigzag_pairs(Index block, int step) {
  assert(block % 2 == 0);
  return step == 0 ? causal_pairs(block) : block / 2 * block;
}

Index striped_pairs(Index block, int query_rank, int key_rank) {
  return key_rank <= query_rank ? causal_pairs(block) : causal_pairs(block - 1);
}

Bytes kv_bytes(Index rows, int kv_heads, int head_dim, double element_bytes) {
  return Bytes::from_si(2.0 * static_cast<double>(rows) * kv_heads * head_dim * element_bytes);
}

Index halo_rows(Index left, Index period, Index block) {
  if (period == 0) return left;
  if (period <= block) return std::max(left, period);
  assert(period >= block + std::min(left, block));
  return std::min(left, block) + block;
}

Index window_sources(Index left, Index block) {
  return ceil_div(left, block);
}

int kv_heads_per_member(int kv_heads, int members) {
  return std::max(1, kv_heads / members);
}

Bytes head_exchange_bytes(Index rows, int members, int heads, int kv_heads, int head_dim, double element_bytes,
                          bool with_kv) {
  const double peers = members - 1;
  const double query_row = static_cast<double>(heads) / members * head_dim * element_bytes;
  const Bytes queries = Bytes::from_si(peers * static_cast<double>(rows) * query_row);
  if (!with_kv) return queries;
  return queries + peers * kv_bytes(rows, kv_heads_per_member(kv_heads, members), head_dim, element_bytes);
}

}  // namespace orrery
