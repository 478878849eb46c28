#include "scenarios/size_bound.hpp"

#include <algorithm>

namespace orrery {
namespace {

/// Ranks that one rank's neighbours on an axis are apart, in nodes.
bool leaves_node(const Candidate& c, int ranks) {
  return ranks > c.node_size;
}

/// Pairs that the busiest rank of a ring attends of full attention, over the mean: the last tokens see all the others.
double imbalance(const SizeProblem& problem, const Candidate& c) {
  if (!problem.causal || c.layout != "contiguous") return 1;
  const auto n = static_cast<double>(problem.tokens);
  const double own = n / c.groups;
  return own * (2 * n - own + 1) / (n * (n + 1)) * c.groups;
}

/// Of one layer, in seconds.
struct LayerTime {
  double forward = 0, backward = 0;

  LayerTime operator+(const LayerTime& other) const { return {forward + other.forward, backward + other.backward}; }
  LayerTime operator*(double times) const { return {forward * times, backward * times}; }
};
LayerTime larger(const LayerTime& a, const LayerTime& b) {
  return {std::max(a.forward, b.forward), std::max(a.backward, b.backward)};
}

/// How long a layer's attention is under way with what travels for it.
struct AttentionTime {
  LayerTime busy;            // of the rank that waits for most of it
  LayerTime idle;            // of that, when the rank has nothing to compute
  LayerTime local, network;  // of the link that carries most, inside a node and between: it may work ahead, into the
                             // layer after

  AttentionTime operator+(const AttentionTime& other) const {
    return {busy + other.busy, idle + other.idle, local + other.local, network + other.network};
  }
  AttentionTime operator*(double times) const { return {busy * times, idle * times, local * times, network * times}; }
};

/// Of all layers of a stage, in seconds: what data-parallel ranks share, once round.
struct ShardTime {
  double local = 0, network = 0;  // of the links that carry most
  double latency = 0;
};

class LeastTime {
 public:
  LeastTime(const SizeProblem& problem, const Candidate& candidate, const MemoryInput& input)
      : problem_(problem),
        c_(candidate),
        in_(input),
        option_(problem.gpus[static_cast<std::size_t>(candidate.gpu)]),
        m_(problem.model),
        d_(candidate.degrees),
        rows_(in_.sequences * (decode() ? 1 : in_.tokens / d_.context)),
        weights_((m_.attention_parameters() + m_.ffn_parameters()) / d_.tensor) {}

  struct Step {
    double time, beside_kernels;
  };
  // A full pipeline idles (p - 1) / v of its microbatch. Shards of parameters and gradients travel over the links of
  // the attention's blocks.
  Step of_step() const {
    const double times = c_.microbatches;
    const LayerTime matrices = of_matrices(), turns = of_tensor_turns();
    const AttentionTime attention = decode() ? AttentionTime{{of_cache(), 0}, {}, {}, {}} : of_attention();
    const double busy = of_slot(matrices + turns + attention.busy);
    const double local = of_slot(attention.local), network = of_slot(attention.network);
    const double bubble = busy * (d_.pipeline - 1.0) / d_.virtual_stages;
    Step step{std::max({busy, local, network}) * times + bubble, of_slot(turns + attention.idle) * times + bubble};
    if (!training()) return step;
    step.time += 3 * of_head() * times;
    if (d_.replicas() == 1) return step;
    const ShardTime shards = of_shards();
    // What optimizers have changed is gathered after them.
    if (d_.zero == 1 || d_.zero == 2) {
      const double gathered = std::max(shards.local, shards.network) + shards.latency;
      step.time += gathered;
      step.beside_kernels += gathered;
    }
    const double passes = d_.zero >= 3 ? 3 * times : 2;
    step.time = std::max({step.time, local * times + shards.local * passes, network * times + shards.network * passes});
    return step;
  }

 private:
  bool decode() const { return in_.pass == StepPass::decode; }
  bool training() const { return in_.pass == StepPass::training; }
  /// Of a microbatch through a stage, and back.
  double of_slot(const LayerTime& t) const {
    const bool again = training() && c_.recompute == Recompute::full;
    return layers() * (t.forward + (training() ? t.backward + (again ? t.forward : 0) : 0));
  }
  double layers() const { return static_cast<double>(m_.layers) / d_.pipeline; }
  const LinkType& link(bool between) const { return between ? problem_.network : option_.link; }
  double rate(bool between) const {
    return (link(between).bandwidth * (between ? 1 : option_.profile.link_efficiency.value)).si();
  }

  LayerTime of_matrices() const {
    const double read = weights_ * (problem_.fp8_matrices ? 1 : in_.element_bytes) / option_.fastest.weights.si();
    const double products = 2 * rows_ * weights_ / option_.fastest.dense.si();
    const double forward = std::max(products, read);
    return {forward, 2 * forward};
  }

  // Rows are gathered before both halves of a layer and sums scattered after them, in turn with the matrices. In the
  // backward pass only the gathers are waited for.
  LayerTime of_tensor_turns() const {
    if (d_.tensor == 1) return {};
    const double hidden = rows_ * static_cast<double>(m_.hidden) * in_.element_bytes;
    const double turn = hidden * (d_.tensor - 1.0) / d_.tensor / rate(leaves_node(c_, d_.tensor));
    return {4 * turn, 2 * turn};
  }

  /// Of a layer's cached keys, those that the rank with the last tokens reads in a decode step, or all on the average.
  double keys_read(const SizeProblem::LayerKind& kind) const {
    const double mean = static_cast<double>(kind.keys_of_last.size()) / d_.context;
    if (c_.layout != "contiguous") return mean;
    const Index begin = problem_.tokens - problem_.tokens / d_.context;
    Index last = 0;
    for (const TokenRange& range : kind.keys_of_last.ranges()) last += range.clipped(begin, problem_.tokens).count;
    return std::max(mean, static_cast<double>(last));
  }

  double of_cache() const {
    double keys = 0;
    for (const SizeProblem::LayerKind& kind : problem_.layer_kinds) keys += kind.share * keys_read(kind);
    const double kv_heads =
        static_cast<double>(m_.kv_heads) / std::min<double>(d_.tensor, static_cast<double>(m_.kv_heads));
    return in_.sequences * keys * 2 * kv_heads * static_cast<double>(m_.head_dim) * in_.element_bytes /
           option_.gpu.hbm_bandwidth.si();
  }

  AttentionTime of_attention() const {
    AttentionTime mean;
    for (const SizeProblem::LayerKind& kind : problem_.layer_kinds) mean = mean + of_attention(kind) * kind.share;
    return mean;
  }

  AttentionTime of_attention(const SizeProblem::LayerKind& kind) const {
    const double uneven = kind.full ? imbalance(problem_, c_) : 1;
    const double attended =
        4 * in_.sequences * kind.pairs * static_cast<double>(m_.heads * m_.head_dim) / d_.tensor / d_.context * uneven;
    const LayerTime attend = {attended / option_.fastest.attention_forward.si(),
                              2.5 * attended / option_.fastest.attention_backward.si()};
    // A ring skips what a sparse pattern has no use for.
    AttentionTime time = kind.full ? of_blocks() : AttentionTime{};
    const LayerTime waited = time.busy;
    const double exchange = of_head_exchange();
    time.idle = {exchange, exchange};
    if (!gathers_first()) {
      // Ranks with less to attend than the busiest have sent their blocks before it asks for them.
      time.busy = uneven == 1 ? larger(waited, attend) : attend;
    } else if (uneven == 1) {
      time.busy = waited + attend;
      time.idle = time.idle + waited;
    } else {
      // In every layer the blocks that a node gathers wait for a rank of the node before: once round all of them, the
      // mean.
      const LayerTime passed_on = waited + attend * (1 / uneven);
      time.busy = of_slot(passed_on) > of_slot(attend) ? passed_on : attend;
    }
    time.busy = time.busy + LayerTime{exchange, exchange};
    return time;
  }

  /// All of a layer's keys before its attention, and its gradients after it.
  bool gathers_first() const {
    const Implementation& implementation = problem_.implementation;
    return c_.schedule->slots.hold == ScheduleKind::Slots::Hold::sequence &&
           implementation.gather_attention == GatherAttention::together && implementation.gather_kv_heads == 0;
  }

  // Where blocks go round, the rank at the end of a node sends all but one of them through its NIC. The one at the end
  // of the next waits for those of other nodes; meanwhile it may have begun the next layer. Members of a group beyond
  // the KV heads hold copies. In the backward pass gradients go round too, of a ring beside the blocks.
  AttentionTime of_blocks() const {
    using Hold = ScheduleKind::Slots::Hold;
    const Hold hold = c_.schedule->slots.hold;
    if (c_.groups == 1 || hold == Hold::fetched) return {};
    const bool between = leaves_node(c_, d_.tensor * d_.context);
    const Index kv_heads = std::max<Index>(1, std::max<Index>(1, m_.kv_heads / d_.tensor) / c_.members);
    const double block = 2 * rows_ * c_.members * static_cast<double>(kv_heads * m_.head_dim) * in_.element_bytes;
    const double hop = block / rate(between);
    const double latency = link(between).latency.si();
    // One of a double ring's hops leaves the ring inside the node, for as many that stay.
    if (c_.inner_ring > 1) {
      const int rings = c_.groups / c_.inner_ring, near = rings * (c_.inner_ring - 1), far = rings - 1;
      const double near_hop = block / rate(false), near_latency = link(false).latency.si();
      const double forward = std::max(near * (near_hop + near_latency), far * (hop + latency));
      return {{forward, std::max(near * 2 * near_hop, far * 2 * hop)},
              {},
              {near * near_hop, near * 2 * near_hop},
              {far * hop, far * 2 * hop}};
    }
    const int in_node = between ? std::max(1, c_.node_size / (d_.tensor * c_.members)) : 1;
    int waited = c_.groups - in_node, sent = c_.groups - 1;
    // NCCL's gather uses all NICs of a node: each takes what one rank of every other node holds.
    if (hold == Hold::sequence && problem_.implementation.transport == Transport::nccl)
      waited = sent = between ? d_.tensor * c_.groups / c_.node_size - 1 : c_.groups - 1;
    const double wait = waited * (hop + latency), beside = waited * (2 * hop + latency);
    const LayerTime busy = {wait, hold == Hold::block ? beside : gathers_first() ? 2 * wait : wait};
    const LayerTime link_time = {sent * hop, sent * 2 * hop};
    return {busy, {}, between ? LayerTime{} : link_time, between ? link_time : LayerTime{}};
  }

  // It gives away all but a rank's share of Q, K, V and O, before and after attention; between nodes at the rate of the
  // NIC what the rank's node cannot take.
  double of_head_exchange() const {
    const double rows_of_heads =
        static_cast<double>(2 * m_.heads * m_.head_dim) / d_.tensor * rows_ * in_.element_bytes;
    const double in_node = std::clamp(c_.node_size / d_.tensor, 1, c_.members);
    const double away = rows_of_heads * (c_.members - in_node) / c_.members / rate(true);
    const double near = rows_of_heads * (in_node - 1) / c_.members / rate(false);
    return std::max(away, near);
  }

  // It stays in 16 bits.
  double of_head() const {
    const double peak = problem_.fp8_matrices ? option_.gpu.peak(problem_.dtype).si() : option_.fastest.dense.si();
    return 2 * rows_ * static_cast<double>(m_.hidden * m_.vocabulary) / d_.tensor / peak;
  }

  /// In rings through all NICs of the nodes; not known of those that lie unevenly in their nodes.
  ShardTime of_shards() const {
    const int ranks = d_.tensor * d_.replicas();
    if (ranks % c_.node_size != 0 && c_.node_size % ranks != 0) return {};
    const double replicas = d_.replicas();
    const double all = layers() * weights_ * in_.element_bytes * (replicas - 1) / replicas;
    const double nodes = std::max(1.0, static_cast<double>(ranks) / c_.node_size), in_node = replicas / nodes;
    if (nodes == 1) return {all / rate(false), 0, (replicas - 1) * link(false).latency.si()};
    return {all * (1 - 1 / in_node) / rate(false), all / in_node / rate(true), (nodes - 1) * link(true).latency.si()};
  }

  const SizeProblem& problem_;
  const Candidate& c_;
  const MemoryInput& in_;
  const GpuOption& option_;
  const ModelShape& m_;
  const Degrees& d_;
  double rows_, weights_;
};

}  // namespace

// A rank computes at least its share of the matrices and, if it is the busiest, of the attended pairs.
Bound bound_of(const SizeProblem& problem, const Candidate& c) {
  const MemoryInput in = memory_input(problem, c);
  const Memory memory = memory_of(in);
  const Bytes capacity = problem.gpus[static_cast<std::size_t>(c.gpu)].gpu.hbm_capacity;
  const LeastTime::Step step = LeastTime(problem, c, in).of_step();
  return {Seconds::from_si(step.time), Seconds::from_si(step.beside_kernels), memory.peak(), memory.fits(capacity)};
}

}  // namespace orrery
