// One scenario after another in which every schedule, layout, pattern, implementation and topology meets.
#pragma once

#include <fmt/format.h>

#include <string>
#include <utility>
#include <vector>

#include "tests/validate/ideal_runs.hpp"

namespace orrery {

struct NamedCase {
  std::string name;
  IdealCase scenario;
  int topology = 0;
};

inline constexpr int topology_count = 9;
inline constexpr double hbm_of_cluster = 1.5e12;

/// Eight GPUs; `speed` multiplies every bandwidth.
inline Cluster cluster_of(int topology, double speed) {
  const GpuResources gpu{132, BytesPerSecond::from_si(hbm_of_cluster)};
  const auto link = [&](double gigabytes, double microseconds) {
    return LinkSpec{BytesPerSecond::from_si(gigabytes * 1e9 * speed), Seconds::from_si(microseconds * 1e-6)};
  };
  const NvSwitch node{4, link(450, 0.5)};
  const PcieTree tree{4, 2, link(50, 0.3), link(50, 0.2), 1, {}};
  switch (topology) {
    case 0:
      return nvswitch(gpu, {8, link(450, 0.5)});
    case 1:
      return nvswitch(gpu, {8, link(30, 1)});
    case 2:
      return full_mesh(gpu, {8, link(50, 0.7)});
    case 3:
      return pcie_tree(gpu, {8, 2, link(50, 0.3), link(50, 0.2), 2, link(40, 0.4)});
    case 4:
      return torus(gpu, {8, {8}, link(45, 1)});
    case 5:
      return torus(gpu, {8, {4, 2}, link(45, 1), true});
    case 6:
      return torus(gpu, {8, {2, 2, 2}, link(45, 1)});
    case 7:
      return fat_tree(gpu, {2, node, link(50, 1.5), 1, 2, Seconds::from_si(1e-6)});
    default:
      return fat_tree(gpu, {2, tree, link(25, 1.5), 2, 1, Seconds::from_si(1e-6)});
  }
}

/// Every schedule, layout, pattern, implementation and topology several times, in ever new company.
inline std::vector<NamedCase> cases() {
  using Kind = Primitive::Kind;
  Primitive skip{.kind = Kind::stride, .period = 96, .count = 1};
  Primitive odd_skip = skip;
  odd_skip.layers = {2};
  const Primitive window{.kind = Kind::window, .left = 40};
  const std::vector<std::vector<Primitive>> patterns = {
      {{}},
      {window},
      {window, skip},
      {window, odd_skip},
      {window, {.kind = Kind::sink, .first = 4}, {.kind = Kind::stride, .period = 32, .count = 0}},
      {{.kind = Kind::window, .left = 300, .right = 20}},
      {window, {.kind = Kind::gated_skip, .period = 200}},
  };
  std::vector<NamedCase> all;
  for (const ScheduleKind& schedule : schedules()) {
    for (const Layout& layout : layouts()) {
      for (int variant = 0; variant < 3; ++variant) {
        const std::size_t i = all.size();
        IdealCase c = ideal_case();
        c.schedule = schedule.name;
        c.layout = layout.name;
        c.tokens = 512;
        c.residue_period = 32;
        c.groups = 8;
        if (schedule.head_exchange == ScheduleKind::HeadExchange::all_ranks) std::swap(c.groups, c.members);
        if (schedule.head_exchange == ScheduleKind::HeadExchange::stated) {
          c.groups = variant == 0 ? 4 : 2;
          c.members = 8 / c.groups;
        }
        if (schedule.needs_inner_ring) c.inner_ring = 1 << (variant + 1);
        if (c.schedule == "all_gather") c.inner_ring = 1 << variant;  // places of a node
        c.heads = 16;
        c.kv_heads = i % 2 == 0 ? 4 : 16;
        c.head_dim = 64;
        c.layers = 2;
        c.backward = i % 4 != 3;
        c.causal = i % 5 != 4;
        if (i % 7 == 6) c.documents = {100, 300, 112};
        const std::size_t pattern = (i + i / patterns.size()) % patterns.size();
        c.pattern = patterns[pattern];
        c.matrix_peak = i % 3 == 0 ? 2e12 : 2e13;
        c.hbm = hbm_of_cluster;
        Implementation& how = c.implementation;
        how.transport = i / 2 % 2 == 0 ? Transport::copy_engine : Transport::nccl;
        how.merge = i / 3 % 2 == 0 ? Merge::kernel : Merge::fused;
        how.gradient_sum = i / 5 % 2 == 0 ? Merge::kernel : Merge::fused;
        how.merge_bytes_per_element = constant(12);
        how.transfer_order = static_cast<TransferOrder>(i / 5 % 3);
        how.ring_backward = i / 4 % 2 == 0 ? RingBackward::own : RingBackward::last_received;
        how.extra_ring_hop = i % 8 == 1;
        if (how.extra_ring_hop) how.ring_backward = RingBackward::own;
        how.gradients_in_fp32 = i / 3 % 2 == 0;
        how.gather_attention = i % 3 == 1 ? GatherAttention::per_rank : GatherAttention::together;
        how.gather_gradients = i / 6 % 2 == 0 ? GatherGradients::ring : GatherGradients::reduce_scatter;
        how.gather_kv_heads = i % 3 == 2 ? 2 : 0;
        how.kv_messages = how.qkv_messages = i % 2 == 0 ? 2 : 1;
        if (i % 4 >= 2) {
          how.message_startup = constant(1.5e-6);
          how.launch = constant(0.2e-6);
        }
        if (how.transport == Transport::nccl) how.sms = constant(16);
        const int topology = static_cast<int>((i + i / 9) % topology_count);
        all.push_back({fmt::format("{}: {}, {}, pattern {}, topology {}", i, c.schedule, c.layout, pattern, topology),
                       c, topology});
      }
    }
  }
  return all;
}

inline AttentionProgram tiled_program(const NamedCase& named) {
  AttentionProgramInput input = program_of(named.scenario).input();
  input.profile.tile_query = constant(16);
  input.profile.tile_key = constant(8);
  return AttentionProgram(std::move(input));
}

}  // namespace orrery
