// What an op means: which rows of which buffer it reads and writes. The simulator sees only the op; the byte counts and
// durations of ops are derived from actions, and the functional check executes actions on real tensors. So the program
// that is timed is the program that is checked.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "scenarios/token_set.hpp"
#include "sim/program.hpp"

namespace orrery {

/// Where tensors live on a rank. KV buffers hold K and V (or dK and dV), query buffers one tensor.
enum class BufferKind : std::uint8_t {
  // One of each per layer. own_*: the rank's tokens with all heads. Without a head exchange they are the same as the
  // unprefixed ones, which hold the tokens of the rank's group and its share of heads.
  own_query,
  own_kv,
  own_output,
  own_d_output,
  own_d_query,
  own_d_kv,
  query,
  kv,
  output,
  d_output,
  d_query,
  d_kv,
  saved_kv,  // the block that came last in the forward pass
  // Reused by every layer, `slot` tells several apart.
  kv_slot,        // a visiting block
  outer_kv_slot,  // double_ring: the block an inner ring starts from
  d_kv_work,      // gradient of the visiting block, this rank's contribution first
  d_kv_in,        // gradient that arrives with or after the block
  outer_d_kv_work,
  outer_d_kv_in,
};

/// Holds one tensor with query heads; the others hold two with KV heads.
constexpr bool is_query_like(BufferKind kind) {
  return kind != BufferKind::own_kv && kind != BufferKind::own_d_kv && kind != BufferKind::kv &&
         kind < BufferKind::d_kv;
}

struct Buffer {
  BufferKind kind = BufferKind::query;
  int slot = 0;
  /// Counts the contents that the slot is filled with, one after the other, so that the functional check can tell them
  /// apart: whoever writes another one destroys all of the last.
  std::int64_t use = 0;
};

/// The buffer of that use, one of `slots` that take turns.
constexpr Buffer slot_of(BufferKind kind, std::int64_t use, int slots) {
  return {kind, static_cast<int>(use % slots), use};
}

struct HeadRange {
  int first = 0;
  int count = 0;
};

enum class ActionKind : std::uint8_t {
  marker,           // no work
  dense,            // projections and MLP: no work on the tensors here
  attend,           // softmax(Q K^T) V of `queries` against the keys `rows` in `from`
  merge,            // folds the latest attend into the running (O, log-sum-exp)
  attend_backward,  // dQ += ..., into = dK, dV of `rows`; adds `in` if there is one
  accumulate,       // into += from
  transfer,         // messages
};

/// One message of a transfer: rows and heads of a buffer on `source` to the same rows and heads of one on
/// `destination`.
struct MessageAction {
  Rank source = -1;
  Rank destination = -1;
  Buffer from;
  Buffer to;
  const TokenSet* rows = nullptr;
  HeadRange heads;
  bool adds = false;  // into what is there (a reduction), otherwise overwrites
  SignalRef delivered;
  Index values_alone = 0;    // rows of V that a gated skip reads beyond `rows`: counted, not executed
  bool values_only = false;  // `rows` of V without K: nobody on their way scores these keys any more
};

struct Action {
  ActionKind kind = ActionKind::marker;
  int layer = 0;
  const TokenSet* queries = nullptr;
  const TokenSet* rows = nullptr;
  Index values_alone = 0;    // accumulate: rows of dV beyond them
  bool values_only = false;  // accumulate: only gated skips add to these rows, and to dV alone
  HeadRange query_heads{};
  HeadRange kv_heads{};
  Buffer from{};
  Buffer into{};
  Buffer in{};
  bool adds_in = false;       // attend_backward: adds `in`
  bool first = false;         // attend, attend_backward: starts the layer's O (dQ) anew
  bool merges = false;        // attend: folds its result in itself
  int step = 0;               // for names only
  bool last = false;          // of the steps of a ring, or of the blocks of a gather
  std::string_view kernel{};  // of sums and of what a step launches; for names only
  bool is_tail = false;       // the kernel of the op before goes on
  std::vector<MessageAction> messages{};
};

}  // namespace orrery
