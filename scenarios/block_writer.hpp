// Turns actions into ops: adds the durations, bytes and demands that follow from what an action does.
#pragma once

#include <map>
#include <optional>
#include <span>
#include <vector>

#include "cost_models/kernel_cost.hpp"
#include "scenarios/action.hpp"
#include "scenarios/geometry.hpp"
#include "scenarios/implementation.hpp"
#include "scenarios/kernel_program.hpp"
#include "sim/program.hpp"

namespace orrery {

/// Pairs and rows of one attention kernel, per head and sequence.
struct TileWork {
  Index useful = 0;      // unmasked pairs
  Index executed = 0;    // pairs in the tiles the kernel computes, which are whole
  Index beyond = 0;      // of these, pairs beyond the last query or key
  Index query_rows = 0;  // queries with at least one key here
  Index key_rows = 0;    // keys that at least one query scores, or that the kernel goes over all the same

  TileWork& operator+=(const TileWork& other) {
    useful += other.useful;
    executed += other.executed;
    beyond += other.beyond;
    query_rows += other.query_rows;
    key_rows += other.key_rows;
    return *this;
  }

  bool operator==(const TileWork&) const = default;
};

/// A kernel that does a part of an attention, and rows that are summed with another part's behind it: of dQ, of dK and
/// dV.
struct AttentionPart {
  TileWork work;
  Index sum_queries = 0, sum_keys = 0;

  bool operator==(const AttentionPart&) const = default;
};

/// What ops are accounted under.
enum class Category : std::uint8_t { attention, merge, dense, kv_transfer, gradient_transfer, head_exchange, marker };
inline constexpr int category_count = static_cast<int>(Category::marker) + 1;
std::span<const std::string> category_names();

/// What a message takes beyond its route's latency and its bytes at the link's rate, by a table of measured times.
struct LinkTiming {
  LinkTable table;
  std::map<int, LinkTable> by_channels;  // of NCCL, if they were measured
  Seconds latency;                       // of the route
  BytesPerSecond rate;                   // of the link in the profile

  Seconds startup(Bytes size, int channels) const;
};

/// Of one launch of a collective: NCCL's ring of `hops` hops for an all-gather or a reduce-scatter, one for an
/// all-to-all.
struct CollectiveTiming {
  LinkTiming link;
  int hops = 1;

  /// Of one of its hops; `size` as the table counts it.
  Seconds startup_of_hop(Bytes size, Bytes sent) const;
  /// Of all-to-alls one after the other in `launches` groups: NCCL sends a peer the messages of a group in turn, each
  /// at the rate of its own size. `sent` of them all leaves the rank.
  Seconds startup_of_group(std::span<const Bytes> tensors, int launches, Bytes sent) const;
};

/// Whatever the profile measured on the links that alone join the ranks of a domain, so many in a row. It holds for
/// messages and groups inside one, whatever joins the domains.
struct LinkTimings {
  Rank domain = 1;
  std::optional<LinkTiming> neighbours;
  std::optional<CollectiveTiming> gather, scatter, exchange;

  bool join(Rank a, Rank b) const { return a / domain == b / domain; }
};

struct CostContext {
  const Geometry* geometry = nullptr;
  const Implementation* implementation = nullptr;
  const Profile* profile = nullptr;
  GpuPeaks peaks;
  ClockCap clock_cap = Regime::sustained;
  bool plain_window = false;  // the pattern is one window
  double element_bytes = 2;
  /// Projections and MLP of one layer on one rank, forward; no product if the scenario simulates attention alone.
  DenseShape dense;
  const LinkTimings* links = nullptr;
  AttentionCosts* attention = nullptr;
};

/// Matrix products of a pass for each of the forward pass; backward, gradients of the inputs and of the weights.
constexpr double dense_passes(Phase phase) {
  return phase == Phase::forward ? 1.0 : 2.0;
}

/// Sums over the ops written.
struct WorkTotals {
  Flops useful;
  Flops executed;
  Bytes sent;                // to other ranks
  Bytes kv_sent;             // of which KV of the context-parallel schedule
  Flops attention_executed;  // of `executed`
  KernelWork kernels;
};

class BlockWriter {
 public:
  /// `gated`: the layer has a gated skip. `places`: the ranks of the cluster that those of the geometry are.
  BlockWriter(const CostContext& context, Phase phase, bool gated, OpBuffer& ops, RankSet places)
      : context_(context), phase_(phase), gated_(gated), ops_(ops), places_(places) {}
  /// Also keep the actions, op by op, and sum up their work.
  void record(std::vector<Action>* actions, WorkTotals* totals);

  /// `op` carries stream, waits and signals; the writer adds cost and accounting.
  /// Raised by an attention kernel and the step kernels behind it.
  struct StepSignals {
    SignalRef done{};      // when the last of them ends
    SignalRef sms_free{};  // when the last wave of attention leaves SMs to transfers
  };
  /// `apart`: the kernels that do it one after the other, if it is not one.
  void attention(const Action& action, const TileWork& work, Op op, const StepSignals& signals,
                 std::span<const AttentionPart> apart = {});
  void merge(const Action& action, Index query_rows, Op op);
  void accumulate(const Action& action, Op op);
  void dense(const Action& action, Op op);
  /// The first ops of a layer's pass: what the host needs before it, the dense work, and behind that, whose results
  /// they pack, the implementation's kernels over the rows whose heads are exchanged (0: none are). The last raises
  /// `ready`.
  void begin(const Action& action, Index exchanged_rows, SignalRef ready);
  void marker(const Action& action, Op op);
  /// Kernels of the implementation that end a layer's pass, over all rows of the rank.
  void end(const Action& action, Index query_rows, Index key_rows);
  /// On the transport's stream, there as a message of its own or as a hop of an all-gather or reduce-scatter; apart
  /// from it on a second one; or on `network` for the outer ring of a hierarchical schedule.
  enum class Path { transport, gather, scatter, apart, network };
  /// `startups`: how many messages of the library one message here stands for (K and V apart). `hop`: of a gather or
  /// scatter, which in NCCL is one call of the host and waits once for another stream.
  void transfer(const Action& action, Category category, int startups, Op op, Path path = Path::transport, int hop = 0);

  Phase phase() const { return phase_; }
  const CostContext& context() const { return context_; }

 private:
  /// Ranks of the geometry.
  struct Communicator {
    Rank first, last;
    int members;
  };
  /// Throws std::overflow_error, naming the op, beyond 2^63 ticks.
  Ticks ticks_of(Seconds duration, const Action& action, Category category) const;
  void add(const Action& action, Category category, Op op, std::span<const Message> messages = {});
  void compute(const Action& action, Category category, const KernelCost& cost, Op op);
  void compute(const Action& action, Category category, const KernelCost& cost, Op op, Seconds host);
  Seconds host_of(const Constant& cost) const;
  KernelCost in_stream(KernelCost cost) const;
  void attention_kernel(const Action& shown, const Action& action, const TileWork& work, Op op, SignalRef sms_free);
  double gradient_sum_bytes() const;
  void sums(const Action& action, const AttentionPart& part);
  void attention_and_tail(const Action& action, const KernelCost& cost, Op op, SignalRef sms_free);
  void step_kernels(const Action& action, StepKernel::When when, Index query_rows, Index key_rows);
  bool has_step_kernels(StepKernel::When when) const;
  Bytes size_of(const MessageAction& message) const;
  Seconds startup_of(const Action& action, Category category, int startups, Path path, Bytes largest,
                     const Communicator& ranks) const;
  Communicator communicator_of(Rank rank, Category category) const;
  bool in_domain(const Communicator& ranks) const;
  int channels_of(Bytes message, const Communicator& ranks) const;
  SmsBeside sms_beside(const Action& action) const;

  const CostContext& context_;
  Phase phase_;
  bool gated_;
  OpBuffer& ops_;
  RankSet places_;
  std::vector<Action>* actions_ = nullptr;
  WorkTotals* totals_ = nullptr;
  std::vector<Message> messages_;
};

}  // namespace orrery
