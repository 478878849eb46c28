// Ring Attention's condition c >= F/B (Liu, Zaharia, Abbeel 2023, arXiv 2310.01889, section 3): a hop of a KV block of
// c tokens hides under the attention of one block. Here for what a program really computes and sends.
#pragma once

#include <string>
#include <vector>

#include "scenarios/attention_program.hpp"
#include "sim/cluster.hpp"

namespace orrery {

/// The hop of a pass over a layer that is hardest to hide, and the attention it runs beside. As in the paper only rates
/// count: start-up, latency and kernel overheads are left out, and so is what travels beside no attention at all (head
/// exchanges, the gradient's last hop home).
struct Intensity {
  Phase phase = Phase::forward;
  bool outer = false;           // double_ring: a hop between inner rings, beside the steps of a whole inner ring
  double tokens = 0;            // c, tokens of a group
  Bytes bytes;                  // of the hop on its busiest link; more than a block if ranks share the link
  BytesPerSecond link_rate;     // B: of that link, times efficiency
  Flops flops;                  // executed beside it on the rank that computes most
  FlopsPerSecond compute_rate;  // F: peak times efficiency

  Seconds hop() const { return bytes / link_rate; }
  Seconds attention() const { return flops / compute_rate; }
  /// hop() / attention() from one rounded product on each side, so that c = F/B gives exactly 1.
  double ratio() const { return bytes.si() * compute_rate.si() / (flops.si() * link_rate.si()); }
  bool holds() const { return ratio() <= 1; }
  /// The c from which it holds, if the attention is full: then bytes grow with c and FLOPs with c^2.
  double needed_tokens() const { return tokens * ratio(); }
};

struct Intensities {
  std::vector<Intensity> hops;       // at most one per pass and kind of hop
  std::vector<std::string> without;  // why a pass has none
};

/// `busiest`: the rank that computes most. A ring moves at the pace of its slowest link and its busiest rank. Costs one
/// block of every rank and all blocks of one, per pass and class of layers.
Intensities intensities_of(const AttentionProgram& program, const Cluster& cluster, Rank busiest);

}  // namespace orrery
