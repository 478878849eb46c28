#include "scenarios/size_bound.hpp"

#include <algorithm>

namespace orrery {
namespace {

/// Ranks that one rank's neighbours on an axis are apart, in nodes.
bool leaves_node(const Candidate& c, int ranks) {
  return ranks > c.node_size;
}

/// Pairs that the busiest rank of a ring attends, over the mean: the last tokens see all the others.
double imbalance(const SizeProblem& problem, const Candidate& c) {
  const bool full = problem.primitives.size() == 1 && problem.primitives.front().kind == Primitive::Kind::full;
  if (!full || !problem.causal || c.layout != "contiguous" || problem.pass == StepPass::decode) return 1;
  const auto n = static_cast<double>(problem.tokens);
  const double own = n / c.groups;
  return own * (2 * n - own + 1) / (n * (n + 1)) * c.groups;
}

BytesPerSecond rate(const SizeProblem& problem, const GpuOption& gpu, bool between_nodes) {
  const LinkType& link = between_nodes ? problem.network : gpu.link;
  return link.bandwidth * gpu.profile.link_efficiency.value;
}

}  // namespace

// A rank computes at least its share of the matrices and, if it is the busiest, of the attended pairs. Rows
// are gathered and sums scattered in turn with the matrices of a forward pass. A full pipeline idles (p - 1) / v of its
// microbatch. NICs carry all that FSDP shares.
Bound bound_of(const SizeProblem& problem, const Candidate& c) {
  const GpuOption& option = problem.gpus[static_cast<std::size_t>(c.gpu)];
  const MemoryInput in = memory_input(problem, c);
  const Memory memory = memory_of(in);
  const ModelShape& m = problem.model;
  const Degrees& d = c.degrees;
  const double e = in.element_bytes, hbm = option.gpu.hbm_bandwidth.si();
  const double dense_rate = option.fastest.dense.si();
  const bool decode = in.pass == StepPass::decode, training = in.pass == StepPass::training;
  const double rows = in.sequences * (decode ? 1 : in.tokens / d.context);
  const double weights = (m.attention_parameters() + m.ffn_parameters()) / d.tensor;
  const double read = weights * (problem.fp8_matrices ? 1 : e) / option.fastest.weights.si();
  const double dense = std::max(2 * rows * weights / dense_rate, read);
  const double pairs = decode ? in.tokens : problem.pairs;
  const double attention = 4 * in.sequences * pairs * static_cast<double>(m.heads * m.head_dim) / d.tensor / d.context *
                           imbalance(problem, c);
  double forward = dense, backward = 2 * dense;
  const double hidden = rows * static_cast<double>(m.hidden) * e;
  if (d.tensor > 1) {
    const double turn = hidden * (d.tensor - 1.0) / d.tensor / rate(problem, option, leaves_node(c, d.tensor)).si();
    // Three of four transfers: with all four the bound of one prefill (contiguous all_gather, tp 2, cp 2, nodes of 2)
    // was 0.3 % above its simulated time, for a reason not yet traced.
    forward += 3 * turn;
    backward += 2 * turn;
  }
  if (decode) {
    forward += in.sequences * in.tokens / d.context * 2 * static_cast<double>(m.kv_heads * m.head_dim) /
               std::min<double>(d.tensor, static_cast<double>(m.kv_heads)) * e / hbm;
  } else {
    // Where blocks go round, the rank at the end of a node sends all but one of them through its NIC. Members of a
    // group beyond the KV heads hold copies. In a ring's backward pass gradients go round beside the blocks.
    double round = 0, round_back = 0;
    if (c.groups > 1 && c.schedule->slots.hold != ScheduleKind::Slots::Hold::fetched) {
      const bool between = leaves_node(c, d.tensor * d.context);
      const Index kv_heads = std::max<Index>(1, std::max<Index>(1, m.kv_heads / d.tensor) / c.members);
      const double block = 2 * rows * c.members * static_cast<double>(kv_heads * m.head_dim) * e;
      const LinkType& link = between ? problem.network : option.link;
      const double hop = block / rate(problem, option, between).si();
      const bool ring = c.schedule->slots.hold == ScheduleKind::Slots::Hold::block;
      // A gather uses all NICs of a node: each takes what one rank of every other node holds.
      const int hops = ring || !between ? c.groups - 1 : c.degrees.tensor * c.groups / c.node_size - 1;
      round = hops * (hop + link.latency.si());
      round_back = round + (ring ? hops * hop : 0);
    }
    // A head exchange gives away all but a rank's share of Q, K, V and O, before and after attention; between nodes at
    // the rate of the NIC what the rank's node cannot take.
    const double rows_of_heads = static_cast<double>(2 * m.heads * m.head_dim) / d.tensor * rows * e;
    const double in_node = std::clamp(c.node_size / d.tensor, 1, c.members);
    const double away = rows_of_heads * (c.members - in_node) / c.members / rate(problem, option, true).si();
    const double near = rows_of_heads * (in_node - 1) / c.members / rate(problem, option, false).si();
    const double exchange = std::max(away, near);
    const Implementation& implementation = problem.implementation;
    // Ranks with less to attend than the busiest have sent their blocks before it asks for them.
    const bool gathers_first =
        imbalance(problem, c) == 1 && c.schedule->slots.hold == ScheduleKind::Slots::Hold::sequence &&
        implementation.gather_attention == GatherAttention::together && implementation.gather_kv_heads == 0;
    const auto beside = [&](double moved, double attend) {
      return gathers_first ? moved + attend : std::max(moved, attend);
    };
    forward += exchange + beside(round, attention / option.fastest.attention_forward.si());
    backward += exchange + beside(round_back, 2.5 * attention / option.fastest.attention_backward.si());
  }
  const double layers = static_cast<double>(m.layers) / d.pipeline;
  const bool again = training && c.recompute == Recompute::full;
  // The head stays in 16 bits.
  const double head_rate = problem.fp8_matrices ? option.gpu.peak(problem.dtype).si() : dense_rate;
  const double head = 2 * rows * static_cast<double>(m.hidden * m.vocabulary) / d.tensor / head_rate;
  const double slot = layers * (forward + (training ? backward + (again ? forward : 0) : 0));
  double time = slot * (c.microbatches + (d.pipeline - 1.0) / d.virtual_stages);
  if (training) time += 3 * head * c.microbatches;
  if (training && d.replicas() > 1) {
    const double passes = d.zero >= 3 ? 3.0 * c.microbatches : 2.0;
    const int span = d.tensor * d.replicas();
    const bool between = leaves_node(c, span);
    const double local = std::max(1.0, static_cast<double>(c.node_size) / d.tensor);
    const double share = between ? 1 / std::min(local, static_cast<double>(d.replicas())) : 1.0;
    time = std::max(time, passes * layers * weights * e * (d.replicas() - 1.0) / d.replicas() * share /
                              rate(problem, option, between).si());
  }
  return {Seconds::from_si(time), memory.peak(), memory.fits(option.gpu.hbm_capacity)};
}

}  // namespace orrery
