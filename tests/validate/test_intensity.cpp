// The verdict c >= F/B: the paper's for its rings, the simulator's for everything else.
#include <fmt/format.h>

#include <cmath>

#include "scenarios/intensity.hpp"
#include "tests/catch.hpp"
#include "tests/validate/ring_times.hpp"

using namespace orrery;
namespace paper = orrery::ring_attention_paper;

namespace {

/// The rank that computes most.
Rank busiest(const AttentionProgram& program) {
  Rank most = 0;
  for (Rank r = 1; r < program.ranks(); ++r) {
    if (program.flops_of(r).executed > program.flops_of(most).executed) most = r;
  }
  return most;
}

Intensities intensities(const IdealCase& c) {
  const AttentionProgram program = program_of(c);
  return intensities_of(program, one_node(c), busiest(program));
}

/// With merges and sums of gradients in kernels of their own.
IdealCase ring(const paper::Accelerator& accelerator, int ranks, Index block) {
  IdealCase c = ring_on(accelerator, ranks, block);
  c.implementation.merge = c.implementation.gradient_sum = Merge::kernel;
  return c;
}

const paper::Accelerator& a100_infiniband() {
  return row_named(std::span<const paper::Accelerator>(paper::table_2()), "A100 InfiniBand");
}

/// Two nodes; within one, links `faster` times as fast as between them.
Cluster two_nodes(const IdealCase& c, double faster) {
  const auto link = [&](double factor) { return LinkSpec{BytesPerSecond::from_si(c.bandwidth * factor), Seconds()}; };
  const Rank gpus = c.ranks() / 2;
  return fat_tree({132, BytesPerSecond::from_si(1e18)}, {.nodes = 2,
                                                         .node = NvSwitch{gpus, link(faster)},
                                                         .network = link(1),
                                                         .nodes_per_pod = 2,
                                                         .oversubscription = 1,
                                                         .uplink_latency = Seconds()});
}

}  // namespace

TEST_CASE("the verdict on a ring of full attention is c >= F/B to the last bit") {
  for (const paper::Accelerator& row : paper::table_2()) {
    const double threshold = paper::min_block(row.flop_rate, row.bandwidth);
    const auto enough = static_cast<Index>(std::ceil(threshold));
    for (const int ranks : {2, 4, 8}) {
      for (const bool extra_hop : {false, true}) {  // P - 1 hops or P: the condition is about one
        for (const Index block : {enough - 1, enough, enough + 1}) {
          INFO(fmt::format("{}, P = {}, c = {}, extra hop {}", row.name, ranks, block, extra_hop));
          IdealCase c = ring(row, ranks, block);
          c.implementation.extra_ring_hop = extra_hop;
          const Intensities found = intensities(c);
          REQUIRE(found.hops.size() == 1);
          const Intensity& hop = found.hops.front();
          CHECK(hop.compute_rate == row.flop_rate);
          CHECK(hop.link_rate == row.bandwidth);
          CHECK_THAT(hop.needed_tokens(), WithinRel(threshold, 1e-15));
          CHECK(hop.holds() == (static_cast<double>(block) >= threshold));
        }
      }
    }
  }
}

TEST_CASE("the verdict follows grouped queries, causal zigzag, and the gradients of the backward pass") {
  const paper::Accelerator& row = a100_infiniband();
  const double ratio = paper::min_block(row.flop_rate, row.bandwidth);
  for (const bool causal : {false, true}) {
    for (const bool fp32 : {false, true}) {
      IdealCase c = ring(row, 4, 2048);
      c.causal = causal;
      c.layout = causal ? "zigzag" : "contiguous";
      c.kv_heads = 8;
      c.backward = true;
      c.implementation.gradients_in_fp32 = fp32;
      const Intensities found = intensities(c);
      REQUIRE(found.hops.size() == 2);
      const double forward = ratio / 4 * (causal ? 2 : 1);
      CHECK(found.hops[0].phase == Phase::forward);
      CHECK_THAT(found.hops[0].needed_tokens(), WithinRel(forward, 1e-12));
      CHECK(found.hops[1].phase == Phase::backward);
      CHECK_THAT(found.hops[1].needed_tokens(), WithinRel(forward * (fp32 ? 1.2 : 0.8), 1e-12));
    }
  }
}

TEST_CASE("the backward verdict of a ring that ends at home counts block and gradient in one message") {
  IdealCase c = ring(a100_infiniband(), 4, 2048);
  c.backward = true;
  c.implementation.ring_backward = RingBackward::last_received;
  const Intensities found = intensities(c);
  REQUIRE(found.hops.size() == 2);
  CHECK_THAT(found.hops[1].needed_tokens(), WithinRel(0.8 * found.hops[0].needed_tokens(), 1e-12));
}

TEST_CASE("a contiguous causal ring is judged by its diagonal block, which has half the pairs") {
  const paper::Accelerator& row = a100_infiniband();
  const Index block = 2048;
  IdealCase c = ring(row, 4, block);
  c.causal = true;
  const Intensities found = intensities(c);
  REQUIRE(found.hops.size() == 1);
  // c (c + 1) / 2 pairs on the diagonal.
  const auto tokens = static_cast<double>(block);
  CHECK_THAT(found.hops[0].needed_tokens(),
             WithinRel(paper::min_block(row.flop_rate, row.bandwidth) * 2 * tokens / (tokens + 1), 1e-12));
}

TEST_CASE("a double ring has a verdict for each kind of hop: the outer one has a whole inner ring to hide under") {
  IdealCase c = ring(a100_infiniband(), 8, 2048);
  c.schedule = "double_ring";
  c.inner_ring = 4;
  c.backward = true;
  const AttentionProgram program = program_of(c);
  const double faster = 18;
  const Intensities found = intensities_of(program, two_nodes(c, faster), 0);
  REQUIRE(found.hops.size() == 4);
  const double ratio = c.matrix_peak / c.bandwidth;
  CHECK_FALSE(found.hops[0].outer);
  CHECK_THAT(found.hops[0].needed_tokens(), WithinRel(ratio / faster, 1e-12));
  CHECK(found.hops[1].outer);
  CHECK_THAT(found.hops[1].needed_tokens(), WithinRel(ratio / 4, 1e-12));
  // Backward, the block and the gradient of the step before.
  CHECK_THAT(found.hops[2].needed_tokens(), WithinRel(0.8 * ratio / faster, 1e-12));
  CHECK(found.hops[3].outer);
}

TEST_CASE("a ring is as slow as its slowest link, whichever rank the link belongs to") {
  IdealCase c = ring(a100_infiniband(), 4, 2048);
  c.schedule = "usp";
  c.members = 2;
  c.tokens *= 2;
  const AttentionProgram program = program_of(c);
  // Groups 0 and 1 are on one node, so rank 0 sends to its own node only.
  const Intensities found = intensities_of(program, two_nodes(c, 10), 0);
  REQUIRE(found.hops.size() == 1);
  CHECK(found.hops[0].link_rate.si() == c.bandwidth);
  CHECK(found.hops[0].tokens == 4096);
  CHECK_THAT(found.hops[0].needed_tokens(), WithinRel(c.matrix_peak / c.bandwidth, 1e-12));
}

TEST_CASE("a halo is judged by its fetch and the local attention, though the last rank of a causal one sends nothing") {
  const paper::Accelerator& row = a100_infiniband();
  const Index block = 4096, left = 512;
  IdealCase c = ring(row, 4, block);
  c.schedule = "halo";
  c.causal = true;
  c.pattern = {{.kind = Primitive::Kind::window, .left = left}};
  const Intensities found = intensities(c);
  REQUIRE(found.hops.size() == 1);
  const double local = static_cast<double>((left + 1) * block - left * (left + 1) / 2);
  CHECK(found.hops[0].bytes.si() == 4.0 * left * c.kv_heads * c.head_dim);
  CHECK(found.hops[0].flops.si() == 4 * local * c.heads * c.head_dim);
}

TEST_CASE("a sparse ring is judged by the hops it makes") {
  const Index block = 4096, left = 512;
  IdealCase c = ring(a100_infiniband(), 8, block);
  c.causal = true;
  c.pattern = {{.kind = Primitive::Kind::window, .left = left}};
  const Intensities found = intensities(c);
  REQUIRE(found.hops.size() == 1);
  const double local = static_cast<double>((left + 1) * block - left * (left + 1) / 2);
  CHECK(found.hops[0].bytes.si() == 4.0 * block * c.kv_heads * c.head_dim);
  CHECK(found.hops[0].flops.si() == 4 * local * c.heads * c.head_dim);
}

TEST_CASE("hops beside a step without work cannot be hidden by any block") {
  const Index block = 1024;
  IdealCase c = ring(a100_infiniband(), 4, block);
  c.causal = true;
  c.pattern = {{.kind = Primitive::Kind::window, .left = 8},
               {.kind = Primitive::Kind::stride, .period = 3 * block, .count = 1}};
  const Intensities found = intensities(c);
  REQUIRE(found.hops.size() == 1);
  CHECK_FALSE(found.hops[0].holds());
  CHECK(std::isinf(found.hops[0].needed_tokens()));
}

TEST_CASE("the verdict is yes exactly if the simulated forward pass exposes no communication on the busiest rank") {
  for (const std::string schedule : {"ring", "halo", "double_ring"}) {
    for (const bool causal : {false, true}) {
      for (const bool window : {false, true}) {
        int yes = 0, no = 0;
        for (const double bandwidth : {2e9, 6e9, 12e9, 25e9, 50e9, 100e9, 200e9, 400e9, 3200e9}) {
          IdealCase c = ring(a100_infiniband(), 8, 2048);
          c.schedule = schedule;
          c.inner_ring = 4;
          c.layout = causal && !window ? "zigzag" : "contiguous";
          c.causal = causal;
          if (window) c.pattern = {{.kind = Primitive::Kind::window, .left = 700}};
          c.bandwidth = bandwidth;
          const AttentionProgram program = program_of(c);
          const Rank rank = busiest(program);
          // Inner and outer hops of a double ring leave through different links.
          const Cluster cluster = schedule == "double_ring" ? two_nodes(c, 4) : one_node(c);
          const Intensities found = intensities_of(program, cluster, rank);
          INFO(fmt::format("{}, causal {}, window {}, {} B/s", schedule, causal, window, bandwidth));
          bool holds = true;
          for (const Intensity& hop : found.hops) holds = holds && hop.holds();
          const SimulationResult result = simulate(program, cluster);
          CHECK(holds == (result.ranks[static_cast<std::size_t>(rank)].exposed_comm == 0));
          ++(holds ? yes : no);
        }
        if (!(window && schedule == "double_ring")) CHECK(yes > 0);
        CHECK(no > 0);
      }
    }
  }
}

TEST_CASE("where no hop runs beside an attention there is no verdict but its reason") {
  const auto reason = [](const IdealCase& c) {
    const Intensities found = intensities(c);
    CHECK(found.hops.empty());
    return found.without.empty() ? std::string() : found.without.front();
  };
  IdealCase c = ring(a100_infiniband(), 4, 256);
  c.schedule = "all_gather";
  CHECK_THAT(reason(c), ContainsSubstring("a gather is over before"));
  c.schedule = "ring";
  c.implementation.transfer_order = TransferOrder::same_step_compute;
  CHECK_THAT(reason(c), ContainsSubstring("only after the attention of its step"));
  c = ring(a100_infiniband(), 1, 1024);
  CHECK_THAT(reason(c), ContainsSubstring("no rank sends"));
  c.schedule = "ulysses";
  c.members = 4;
  CHECK_THAT(reason(c), ContainsSubstring("no rank sends"));
  c.implementation.transfer_order = TransferOrder::same_step_compute;
  CHECK_THAT(reason(c), ContainsSubstring("no rank sends"));
}

TEST_CASE("a backward attention that waits for the gradient it adds to has no verdict") {
  IdealCase c = ring(a100_infiniband(), 4, 1024);
  c.backward = true;
  c.implementation.gradient_sum = Merge::fused;
  const Intensities found = intensities(c);
  REQUIRE(found.hops.size() == 1);
  CHECK(found.hops[0].phase == Phase::forward);
  REQUIRE(found.without.size() == 1);
  CHECK_THAT(found.without[0], ContainsSubstring("waits for the gradient"));
}
