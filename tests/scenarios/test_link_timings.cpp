// Which messages take the times that were measured between GPUs of a node, in clusters of several nodes.
#include <fmt/format.h>

#include <cmath>
#include <string>
#include <vector>

#include "cost_models/nccl_channels.hpp"
#include "scenarios/scenario.hpp"
#include "scenarios/step_scenario.hpp"
#include "sim/simulate.hpp"
#include "sim/topologies.hpp"
#include "tests/catch.hpp"
#include "tests/each_op.hpp"
#include "tests/scenario_text.hpp"

using namespace orrery;

namespace {

/// A forward pass of two layers of Llama-3-8B on nodes of four H200.
struct Job {
  std::string schedule, implementation;
  std::string more{};  // keys of [parallelism]
  std::string pattern = "{kind = \"full\"}";
  int nodes = 1, data = 1, context = 4;
  std::string scope = "step";
};

Scenario load(const Job& job) {
  const std::string degrees = job.scope == "step" ? fmt::format("data_parallel = {}\n", job.data) : std::string();
  return ScenarioText{.tokens = 2048 * job.context,
                      .batch = job.data,
                      .scope = job.scope,
                      .workload = "layers = 2\n",
                      .pattern = job.pattern,
                      .ranks = job.context * job.data,
                      .schedule = job.schedule,
                      .implementation = job.implementation,
                      .parallelism = degrees + job.more,
                      .profile = "h200_sxm",
                      .topology = job.nodes == 1 ? ScenarioText().topology : fat_tree_text(job.nodes, 4)}
      .scenario();
}

/// Duration, SMs and bytes of each transfer of a category.
std::vector<std::string> transfers(const Program& program, Rank rank, Category category) {
  std::vector<std::string> found;
  for_each_op(program, rank, category, [&](const Op& op, std::span<const Message> messages) {
    found.push_back(fmt::format("{} {}", op.duration, op.sms));
    for (const Message& message : messages) found.back() += fmt::format(" {}", message.size.si());
  });
  return found;
}

/// The transfers of keys and values of a rank.
std::vector<Op> hops_of(const Program& program, Rank rank) {
  std::vector<Op> hops;
  for_each_op(program, rank, Category::kv_transfer, [&](const Op& op, auto) { hops.push_back(op); });
  return hops;
}

Op first_hop(const Program& program, Rank rank) {
  const std::vector<Op> hops = hops_of(program, rank);
  return hops.empty() ? Op() : hops.front();
}

void check_partition(const Program& program) {
  std::vector<RankSet> sets;
  OpBuffer buffer;
  const auto durations = [&](Rank rank, std::int64_t block) {
    std::string text;
    buffer.begin(block);
    program.generate(rank, block, buffer);
    for (const Op& op : buffer.ops()) text += fmt::format("{} {} ", op.duration, op.sms);
    return text;
  };
  int different = 0;
  for (std::int64_t block = 0; block < program.blocks(); ++block) {
    sets.clear();
    program.partition(block, sets);
    Rank ranks = 0;
    for (const RankSet& set : sets) {
      ranks += set.count;
      for (Rank i = 1; i < set.count; ++i) different += durations(set[i], block) != durations(set[0], block);
    }
    CHECK(ranks == program.ranks());
  }
  CHECK(different == 0);
}

}  // namespace

TEST_CASE("what ranks of one node do takes as long with a second node beside it, to the picosecond") {
  const std::string window = "{kind = \"window\", left = 1024}";
  const Job jobs[] = {
      {"ring", "orrery_ring"},
      {"ring", "orrery_ring_nccl"},
      {"double_ring", "loongtrain", "inner_ring = 2\n"},
      {"all_gather", "orrery_all_gather_nccl"},
      {"ulysses", "orrery_ulysses_nccl"},
      {"usp", "orrery_usp_nccl", "ulysses_degree = 2\n"},
      {"halo", "orrery_window", "", window},
      {"halo", "orrery_window_nccl", "", window},
  };
  for (Job job : jobs) {
    INFO(job.schedule << " " << job.implementation);
    const Scenario alone = load(job);
    job.nodes = job.data = 2;
    const Scenario beside = load(job);
    const StepProgram one = build_step(alone), two = build_step(beside);
    for (const Category category : {Category::kv_transfer, Category::head_exchange}) {
      for (Rank rank = 0; rank < 4; ++rank) {
        const std::vector<std::string> expected = transfers(one, rank, category);
        CHECK(transfers(two, rank, category) == expected);
        CHECK(transfers(two, rank + 4, category) == expected);
      }
    }
    CHECK(simulate(two, beside.cluster).end == simulate(one, alone.cluster).end);
  }
}

TEST_CASE("a ring's hop is among the ranks of its context group, however many groups the job has") {
  // By its table of a number of channels, or of a number of ranks.
  for (const char* implementation : {"orrery_ring_nccl", "ring_flash_attention_ring"}) {
    Job job{.schedule = "ring", .implementation = implementation, .context = 2};
    const std::vector<std::string> expected = transfers(build_step(load(job)), 0, Category::kv_transfer);
    REQUIRE(expected.size() == 2);
    job.data = 4;
    CHECK(transfers(build_step(load(job)), 0, Category::kv_transfer) == expected);
  }
}

TEST_CASE("heads exchanged inside nodes take as long as in one node, whatever goes between nodes") {
  Job job{.schedule = "usp", .implementation = "orrery_usp_nccl", .more = "ulysses_degree = 4\n", .scope = "attention"};
  const std::vector<std::string> expected = transfers(build_program(load(job)), 0, Category::head_exchange);
  REQUIRE(expected.size() == 4);  // in and out in each layer
  job.nodes = 2;
  job.context = 8;
  const Scenario s = load(job);
  const AttentionProgram program = build_program(s);
  for (const Rank rank : {0, 3, 4, 7}) CHECK(transfers(program, rank, Category::head_exchange) == expected);
  // The ring around them goes between nodes alone.
  const double assumed = s.implementation.message_startup.value + s.implementation.dependency.value;
  for (const Rank rank : {0, 7}) CHECK(first_hop(program, rank).duration == to_ticks(Seconds::from_si(assumed)));
}

TEST_CASE("links of a network carry their own rate, those inside a node the profile's share of theirs") {
  Job job{.schedule = "ring", .implementation = "orrery_ring_nccl", .nodes = 2, .context = 8, .scope = "attention"};
  const Scenario s = load(job);
  REQUIRE(s.profile.link_efficiency.value < 0.9);
  const double nvlink = load_link("nvlink4").bandwidth.si() * s.profile.link_efficiency.value;
  const double network = load_link("infiniband_ndr").bandwidth.si();
  int of_network = 0;
  for (const Link& link : s.cluster.links()) {
    INFO(link.name);
    const bool uplink = link.name.find("spine") != std::string::npos;  // of a leaf for two nodes
    of_network += is_network_link(link) ? 1 : 0;
    CHECK_THAT(link.bandwidth.si(), WithinRel(uplink ? 2 * network : is_network_link(link) ? network : nvlink, 1e-12));
  }
  CHECK(of_network == 2 * (8 + 4));  // both ways: a NIC for each GPU, a leaf for each place in a node
}

TEST_CASE("a gather of NCCL is one call of the host and waits for one other stream, however many hops it takes") {
  for (const int ranks : {2, 4, 8}) {
    Job job{.schedule = "all_gather",
            .implementation = "pytorch_context_parallel_allgather",
            .context = ranks,
            .scope = "attention"};
    const Scenario s = load(job);
    const std::vector<Op> hops = hops_of(build_program(s), 0);
    Ticks host = 0;
    for (const Op& op : hops) host += op.launch;
    const Implementation& i = s.implementation;
    const Ticks call = to_ticks(Seconds::from_si(i.launch.value + i.host_message.value));
    CHECK(hops.size() == static_cast<std::size_t>(s.layers * (ranks - 1)));
    CHECK(host == s.layers * call);
  }
}

TEST_CASE("of a ring over nodes the hops inside are measured, on the channels that NICs leave; those between are not") {
  Job job{.schedule = "ring", .implementation = "orrery_ring_nccl", .nodes = 2, .context = 8, .scope = "attention"};
  const Scenario s = load(job);
  const AttentionProgram program = build_program(s);
  const Bytes block = Bytes::from_si(2 * 2048 * 2 * 8 * 128);  // K and V of 2048 tokens, 8 heads of 128, bf16
  const BytesPerSecond rate = s.links.back().type.bandwidth * s.profile.link_efficiency.value;
  const Seconds measured = send_recv_by_channels(*s.profile.kernels, "nvlink4").at(2).time(block);
  const Seconds dependency = Seconds::from_si(s.implementation.dependency.value);
  const Seconds inside = measured - s.cluster.route(0, 1).latency - block / rate;
  const Seconds between = Seconds::from_si(s.implementation.message_startup.value);
  for (Rank rank = 0; rank < 8; ++rank) {
    CHECK(first_hop(program, rank).duration == to_ticks((rank % 4 == 3 ? between : inside) + dependency));
    CHECK(first_hop(program, rank).sms == 2);
  }
  // Copy engines know no channels.
  job.implementation = "orrery_ring";
  const AttentionProgram copies = build_program(load(job));
  job.nodes = 1;
  job.context = 4;
  CHECK(first_hop(copies, 0).duration == first_hop(build_program(load(job)), 0).duration);
}

TEST_CASE("a gather over nodes is one collective, which nobody measured") {
  const Scenario s =
      load({.schedule = "all_gather", .implementation = "orrery_all_gather_nccl", .nodes = 2, .context = 8});
  const std::vector<Op> hops = hops_of(build_step(s), 0);
  const Implementation& i = s.implementation;
  for (const Op& op : hops) {
    const auto launches = std::llround((to_seconds(op.duration).si() - i.dependency.value) / i.message_startup.value);
    CHECK(op.duration ==
          to_ticks(Seconds::from_si(i.message_startup.value * static_cast<double>(launches) + i.dependency.value)));
  }
  CHECK(hops.size() == 2 * (1 + 3));  // in each layer one over the network, and three inside the node
}

TEST_CASE("ranks that stand elsewhere in their nodes are not alike, and engines agree on them") {
  Scenario s = load({.schedule = "ring", .implementation = "orrery_ring", .nodes = 2, .context = 8, .scope = "layers"});
  const AttentionProgram ring = build_program(s);
  check_partition(ring);
  s.cluster = s.cluster.with_gpu({0, BytesPerSecond::from_si(0)});
  const Ticks end = simulate(ring, s.cluster, {.engine = Engine::event}).end;
  CHECK(simulate(ring, s.cluster, {.engine = Engine::dependency}).end == end);
  // Rings of three on nodes of four: ranks 0 to 2, 3 to 5 (over two nodes), 6 to 8 (too), 9 to 11.
  const Scenario uneven = load(
      {.schedule = "ring", .implementation = "orrery_ring_nccl", .nodes = 3, .data = 4, .context = 3, .scope = "step"});
  const StepProgram rings = build_step(uneven);
  check_partition(rings);
  const auto hop = [&](Rank rank) { return first_hop(rings, rank).duration; };
  const Ticks between = hop(3);
  CHECK(hop(2) == hop(0));
  CHECK(hop(4) != hop(0));  // on fewer channels
  CHECK(hop(5) == between);
  CHECK(hop(6) == hop(4));
  CHECK(hop(7) == between);
  CHECK(hop(9) == hop(0));
}

namespace {

/// A ring over NCCL of four ranks with so many tokens each, without a mask.
Scenario unmasked_ring(int rows, int batch) {
  Scenario s = load({.schedule = "ring", .implementation = "orrery_ring_nccl", .context = 4, .scope = "attention"});
  s.causal = false;
  s.tokens = 4 * rows;
  s.batch = batch;
  return s;
}

/// The channels that carry the keys and values of a rank, of so many sequences.
int channels_of_hop(const Scenario& s, int batch) {
  const double row = 2.0 * static_cast<double>(s.model.kv_heads * s.model.head_dim) * 2;
  const double rows = static_cast<double>(s.tokens) / 4;
  return nccl_send_recv_channels(static_cast<int>(s.implementation.sms.value), 4, Bytes::from_si(batch * rows * row));
}

/// Of a block of that ring, beside such a hop.
KernelCost block_cost(const Scenario& s, int held) {
  const double n = static_cast<double>(s.tokens) / 4;
  const AttentionShape block{.pairs = n * n,
                             .query_rows = n,
                             .key_rows = n,
                             .heads = static_cast<double>(s.model.heads),
                             .kv_heads = static_cast<double>(s.model.kv_heads),
                             .head_dim = static_cast<double>(s.model.head_dim),
                             .batch = static_cast<double>(s.batch)};
  return attention_cost(block, Phase::forward, peaks_of(s), s.profile, s.regime,
                        {.held = held, .to_start = idle_sms_for_nccl(held)});
}

}  // namespace

TEST_CASE("attention makes room for the channels that carry the keys and values of the whole batch") {
  const Scenario s = unmasked_ring(8192, 8);
  const int held = channels_of_hop(s, 8);
  REQUIRE(held > channels_of_hop(s, 1));
  const AttentionProgram program = build_program(s);
  CHECK(first_hop(program, 0).sms == held);
  const KernelCost cost = block_cost(s, held);
  REQUIRE(cost.slowed > 1);
  const double lost = peaks_of(s).sms * (1 - 1 / cost.slowed);
  int kernels = 0;
  for_each_op(program, 0, Category::attention, [&](const Op& op, auto) {
    if (op.duration == 0) return;  // raises a signal
    ++kernels;
    INFO(op.duration);
    CHECK_THAT(op.sms, WithinRel(lost, 1e-9));
  });
  CHECK(kernels > 0);
}

TEST_CASE(
    "attention that hops wait for is two ops: its last wave, which frees SMs, and all before it with gap and launch") {
  Scenario s = unmasked_ring(4096, 1);
  s.implementation.launch.value = 1e-6;
  const KernelCost cost = block_cost(s, channels_of_hop(s, 1));
  REQUIRE(cost.tail > Seconds());
  REQUIRE(cost.tail < cost.duration);
  const Seconds gap = Seconds::from_si(s.implementation.kernel_gap.value);
  int ops = 0;
  for_each_op(build_program(s), 0, Category::attention, [&](const Op& op, auto) {
    if (op.duration == 0) return;
    const bool is_tail = ops++ % 2 == 1;
    const Seconds expected = is_tail ? cost.tail : cost.duration - cost.tail + gap;
    CHECK_THAT(to_seconds(op.duration).si(), WithinRel(expected.si(), 1e-6));
    CHECK(op.launch == (is_tail ? 0 : to_ticks(Seconds::from_si(1e-6))));
    CHECK((op.started.rank == 0) == is_tail);
  });
  CHECK(ops == 2 * 2 * 4);  // in two layers four blocks each
}
