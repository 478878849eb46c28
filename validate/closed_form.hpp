// Step times, work and bytes that follow by hand from a schedule, for the ideal case: equal GPUs, every hop alone on
// its links, nothing else on the GPU. The simulator must agree to the picosecond, because every duration is rounded
// once and the rest is max and plus.
//
// Letters: P ranks in the ring, c tokens per rank, t time of a tile (one block of queries against one of keys), k time
// of a hop of keys and values, g time of a hop of their gradients, a time to add an arrived gradient.
#pragma once

#include "cost_models/kernel_cost.hpp"
#include "scenarios/token_set.hpp"
#include "sim/units.hpp"

namespace orrery {

/// alpha + m / beta, each part rounded once. (Hockney 1994, "The communication challenge for MPP".)
Ticks message_time(Seconds startup, Seconds latency, Bytes size, BytesPerSecond bandwidth);

/// `messages` of equal size leave one sender at once and share its link, or arrive at once and share the receiver's:
/// startup + alpha + messages * m / beta.
Ticks shared_link_time(Seconds startup, Seconds latency, int messages, Bytes size, BytesPerSecond bandwidth);

// --- Ring, forward (Ring Attention, arXiv 2310.01889, Algorithm 1) ---

/// Every rank works `first` on its own block and `tile` on each other one. Hop s may start when hop s - 1 has arrived
/// and, from s = 2 on, when the receiver has attended the block of hop s - 2, which is step s - 1. Step s starts after
/// step s - 1 and hop s - 1. From step 2 on both chains advance together by max(t, k), so with equal tiles it is
/// t + (P - 1) * max(t, k): the last tile alone in the transfer-bound case, the first one alone in the other.
Ticks ring_forward(int ranks, Ticks first, Ticks tile, Ticks hop);

/// The block goes all the way round (JAX ringattention): one hop more, under the last tile. P * max(t, k).
Ticks ring_forward_full_circle(int ranks, Ticks tile, Ticks hop);

/// Causal, contiguous: rank P - 1 has a diagonal tile and P - 1 full ones, and nobody has more. The hops hide if
/// k <= diagonal; if k >= t they are the critical path, and one full tile remains after the last.
/// Precondition: one of the two.
Ticks ring_forward_causal_contiguous(int ranks, Ticks diagonal, Ticks tile, Ticks hop);

// --- Ring, backward: keys and their gradients leave on one stream in turn: K0 G0 K1 G1 ... ---

/// The sum with the arrived gradient is part of the attention kernel, so tile s cannot start before gradient hop s - 1
/// is over, and that not before tile s - 1: the gradient hop is never hidden. Hop K_s runs beside tile s.
/// (P - 1) * (max(t, k) + g) + t + g.
Ticks ring_backward_fused(int ranks, Ticks tile, Ticks kv_hop, Ticks gradient_hop);

/// The sum is a kernel of its own after the tile. Gradient hop s starts when sum s is done and hop K_s has left:
///   D_0 = max(t, k), D_s = D_{s-1} + max(t + a, g + a, g + k), D_{P-1} = D_{P-2} + max(t, g) + a (no K_{P-1}),
/// and the last gradient hop home is exposed: D_{P-1} + g. Compute-bound: P t + (P - 1) a + g. Transfer-bound with
/// a <= k: (P - 1) k + P g + a.
Ticks ring_backward_summed(int ranks, Ticks tile, Ticks kv_hop, Ticks gradient_hop, Ticks sum);

/// As ring_backward_fused with the block going full circle: P * (max(t, k) + g).
Ticks ring_backward_full_circle(int ranks, Ticks tile, Ticks kv_hop, Ticks gradient_hop);

/// Starting with the block received last, the ring turned round (TransformerEngine): the block of step s and the
/// gradient of step s - 1 travel in one message of time j; the last one carries a gradient alone. With sums apart,
///   max(t, k) + (P - 2) * (max(t, j) + a) + max(t, g) + a,
/// and with fused ones the tile follows the message: max(t, k) + (P - 2) * (j + t) + g + t.
Ticks ring_backward_to_home_summed(int ranks, Ticks tile, Ticks kv_hop, Ticks joint_hop, Ticks gradient_hop, Ticks sum);
Ticks ring_backward_to_home_fused(int ranks, Ticks tile, Ticks kv_hop, Ticks joint_hop, Ticks gradient_hop);

// --- All-gather (Llama 3, arXiv 2407.21783) ---

/// Ring all-gather, then attention over the whole sequence: (P - 1) * (alpha + m / beta) + attention. In `gathers`
/// parts (some heads at a time; both times are of one part) the next gather runs beside attention:
/// T + (G - 1) * max(T, t) + t.
Ticks all_gather_forward(int ranks, int gathers, Ticks hop, Ticks attention);

/// The local block at once, the others after the gather: max(t, (P - 1) k) + (P - 1) t.
Ticks all_gather_forward_per_rank(int ranks, Ticks tile, Ticks hop);

/// Gather, attention, reduce-scatter; nothing overlaps: (P - 1) k + attention + (P - 1) g.
Ticks all_gather_backward(int ranks, Ticks hop, Ticks attention, Ticks gradient_hop);

/// Gather, then tiles with gradients round a ring (PyTorch context_parallel). Fused sums: max(t, (P - 1) k) + g +
/// (P - 1) (t + g). Sums apart: max(t, (P - 1) k) + (P - 1) (max(t, g) + a) + g.
Ticks all_gather_backward_ring_fused(int ranks, Ticks tile, Ticks hop, Ticks gradient_hop);
Ticks all_gather_backward_ring_summed(int ranks, Ticks tile, Ticks hop, Ticks gradient_hop, Ticks sum);

// --- Causal balance ---

/// n (n + 1) / 2.
Index causal_pairs(Index tokens);

/// Rank P - 1 does 2 P - 1 half blocks where the mean is P (zhuzilin/ring-flash-attention README; DistFlashAttn,
/// arXiv 2310.03294): P / (2 P - 1).
double contiguous_causal_efficiency(int ranks);
/// In pairs, where the diagonal block is c (c + 1) / 2: (P c + 1) / ((2 P - 1) c + 1).
double contiguous_causal_efficiency_in_pairs(int ranks, Index block);

/// Pairs of one rank in one step of a causal ring. zigzag: half a block, in step 0 with its diagonal. striped: half a
/// block with its diagonal if the keys' rank is not above the queries', else without (Striped Attention, arXiv
/// 2311.09431, section 3).
Index zigzag_pairs(Index block, int step);
Index striped_pairs(Index block, int query_rank, int key_rank);

// --- Bytes ---

/// K and V (or dK and dV) of `rows` tokens: 2 * rows * kv_heads * head_dim * element bytes.
Bytes kv_bytes(Index rows, int kv_heads, int head_dim, double element_bytes);

/// Rows a rank fetches for a window of `left` earlier tokens and one skip by `period`, contiguous causal layout, away
/// from the first ranks: max(left, period) while both are at most c (the skip's keys are then the last `period` rows
/// before the rank); min(left, c) + c if period >= c + min(left, c), when window and skip do not meet. left > c without
/// a skip (period 0): left. Own derivation.
Index halo_rows(Index left, Index period, Index block);

/// Ranks an interior rank fetches a window from: ceil(left / c).
Index window_sources(Index left, Index block);

/// KV heads a member of a head exchange attends: h_kv / U, and one (replicated) if there are fewer than members
/// (LoongTrain, arXiv 2406.18485).
int kv_heads_per_member(int kv_heads, int members);

/// Bytes a rank sends in one head exchange into heads (Q, K, V) or back (O), forward: (U - 1) / U of its rows of Q or
/// O, and its rows of K and V once for each other member (DeepSpeed-Ulysses, arXiv 2309.14509).
Bytes head_exchange_bytes(Index rows, int members, int heads, int kv_heads, int head_dim, double element_bytes,
                          bool with_kv);

}  // namespace orrery
