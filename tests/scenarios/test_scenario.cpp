// What a scenario file becomes.
#include "scenarios/scenario.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <string>

#include "scenarios/report.hpp"
#include "tests/catch.hpp"
#include "tests/each_op.hpp"
#include "tests/scenario_text.hpp"
#include "tests/scenarios/messages.hpp"
#include "tests/scratch_folder.hpp"

using namespace orrery;

namespace {

/// A scenario of whole layers on 4 H200 with a model of hidden size 96, 6 heads and 2 KV heads of 20, an MLP of 160.
ScenarioText layers_of(std::int64_t tokens, const std::string& pattern = "{kind = \"full\"}") {
  return {.model = "model.toml", .tokens = tokens, .batch = 3, .scope = "layers", .pattern = pattern, .ranks = 4};
}

ScenarioText ulysses_of_two(std::int64_t tokens) {
  ScenarioText text = layers_of(tokens);
  text.ranks = 2;
  text.schedule = "ulysses";
  text.implementation = "orrery_ulysses_nccl";
  text.profile = "h200_sxm";
  return text;
}

Scenario load(const ScenarioText& scenario, bool gated = true) {
  const ScratchFolder folder;
  folder.write("model.toml", fmt::format(R"(kind = "model"
description = "test"
source = "test"
layers = 2
hidden = 96
heads = 6
kv_heads = 2
head_dim = 20
ffn_hidden = 160
gated_ffn = {}
vocabulary = 1000
tied_embeddings = false
learned_positions = 0
)",
                                         gated));
  return load_scenario(folder.write("scenario.toml", scenario.text()));
}

}  // namespace

TEST_CASE(
    "dense work of a layer: two FLOPs per weight and token; weights, inputs and outputs of each product in bytes") {
  for (const bool gated : {true, false}) {
    const AttentionProgram program = build_program(load(layers_of(512), gated));
    const double rows = 512.0 / 4 * 3;
    // One row: (inputs, outputs) of q, k and v together, of the output projection, of gate and up together, of down.
    struct Product {
      double in, out;
    };
    const double q = 6 * 20, kv = 2 * 20, up = gated ? 2 * 160 : 160;
    double flops = 0, bytes = 0;
    std::size_t at = 0;
    const DenseShape& dense = program.input().dense;
    REQUIRE(dense.products.size() == 4);
    for (const Product& product : {Product{96, q + 2 * kv}, {q, 96}, {96, up}, {160, 96}}) {
      flops += 2 * rows * product.in * product.out;
      bytes += 2 * (product.in * product.out + rows * (product.in + product.out));
      const MatrixProduct& built = dense.products[at++];
      CHECK((built.rows == rows && built.columns == product.out && built.inner == product.in));
    }
    CHECK(dense.flops().si() == flops);
    CHECK(dense.bytes().si() == bytes);
  }
}

TEST_CASE("a topology that takes more links of a GPU than it has is simulated, and the report calls them assumed") {
  const auto assumed = [](const std::string& topology, const std::string& link) {
    ScenarioText text = layers_of(512);
    text.topology = topology + "\nlink = \"" + link + "\"\n";
    const Report report = predict(load(text));
    const auto found = std::find_if(report.constants.begin(), report.constants.end(),
                                    [](const ConstantReport& c) { return c.name == "link.links_per_gpu"; });
    return found == report.constants.end() ? "" : found->value + " " + found->provenance;
  };
  CHECK(assumed("topology = \"nvswitch\"", "nvlink4") == "");
  CHECK(assumed("topology = \"full_mesh\"", "nvlink4") == "3 assumed");  // one NVLink 4 is all links of a GPU
  CHECK(assumed("topology = \"torus\"\nshape = [4]", "nvlink4") == "2 assumed");
  CHECK(assumed("topology = \"full_mesh\"", "ici_v4") == "");  // has 6
  CHECK(assumed("topology = \"torus\"\nshape = [2, 2]", "ici_v5e") == "");
}

TEST_CASE("a batch is computed and sent as often as it has sequences") {
  ScenarioText text = layers_of(512);
  const Report three = predict(load(text));
  text.batch = 1;
  const Report one = predict(load(text));
  CHECK(three.useful.si() == 3 * one.useful.si());
  CHECK(three.executed.si() == 3 * one.executed.si());
  CHECK(three.sent_in_all.si() == 3 * one.sent_in_all.si());
}

TEST_CASE("fp32 sends twice the bytes of bf16") {
  ScenarioText text = layers_of(512);
  const double bf16 = predict(load(text)).sent_in_all.si();
  text.dtype = "fp32";
  CHECK(predict(load(text)).sent_in_all.si() == 2 * bf16);
}

TEST_CASE("in a burst kernels run at the clock of a cool GPU") {
  ScenarioText text = layers_of(65536);
  text.profile = "h200_sxm";
  const Report sustained = predict(load(text));
  text.workload = "regime = \"sustained\"\n";
  CHECK(predict(load(text)).step_time == sustained.step_time);
  text.workload = "regime = \"burst\"\n";
  CHECK(predict(load(text)).step_time < sustained.step_time);
}

TEST_CASE("the report lists the constants that its prediction rests on, and no others") {
  const auto constants = [](const ScenarioText& text) { return predict(load(text)).constants; };
  const auto count = [](const std::vector<ConstantReport>& list, std::string_view part) {
    return std::count_if(list.begin(), list.end(),
                         [&](const ConstantReport& c) { return c.name.find(part) != std::string::npos; });
  };
  const ScenarioText layers = layers_of(512);
  ScenarioText text = layers;
  text.scope = "attention";
  const auto peak = constants(text);
  CHECK(count(peak, "attention_forward_efficiency") == 1);
  CHECK(count(peak, "attention_backward_efficiency") == 0);
  CHECK(count(peak, "dense_efficiency") == 0);
  CHECK(count(peak, "hbm_efficiency") == 1);
  CHECK(count(constants(layers), "dense_efficiency") == 1);
  text = layers;
  text.pass = "training_step";
  CHECK(count(constants(text), "attention_backward_efficiency") == 1);

  text = layers;
  text.profile = "h200_sxm";
  text.model = "llama3_8b";
  const auto measured = constants(text);
  CHECK(count(measured, "attention.forward.d128.full_tile") == 1);
  CHECK(count(measured, ".d64.") == 0);
  CHECK(count(measured, ".backward.") == 0);
  CHECK(count(measured, ".gemm.efficiency") == 1);
  CHECK(count(measured, "dense_efficiency") == 0);
  CHECK(count(measured, "hbm_efficiency") == 0);
  CHECK(count(measured, "stream.rms_norm") == 0);
  CHECK(count(measured, "attention.head_dim") == 0);

  const auto extrapolated = [](const std::vector<ConstantReport>& list) {
    std::string names;
    for (const ConstantReport& c : list) {
      if (c.provenance == "extrapolated") names += c.name + " = " + c.value;
    }
    return names;
  };
  CHECK(extrapolated(measured) == "");
  text.model = layers.model;
  CHECK(extrapolated(constants(text)) == "h200_sxm.attention.head_dim = 20");
  text.dtype = "fp32";
  const auto fp32 = constants(text);
  CHECK(extrapolated(fp32) == "h200_sxm.dtype = fp32");
  CHECK(count(fp32, "dense_efficiency") == 1);
  CHECK(count(fp32, ".gemm.") == 0);
}

TEST_CASE("every key of a topology is in the cluster it builds") {
  const auto cluster_of = [](const std::string& topology) {
    ScenarioText text = layers_of(512);
    text.topology = topology;
    return load(text).cluster;
  };
  const auto link = [](const Cluster& cluster, const std::string& name) {
    const auto found =
        std::find_if(cluster.links().begin(), cluster.links().end(), [&](const Link& l) { return l.name == name; });
    return found == cluster.links().end()
               ? "no such link"
               : fmt::format("{} GB/s, {} us", found->bandwidth.si() / 1e9, found->latency.si() * 1e6);
  };
  const Cluster tree = cluster_of(
      "topology = \"pcie_tree\"\ngpus_per_switch = 1\nsockets = 2\nlink = \"pcie4_x16\"\n"
      "uplink = \"pcie5_x16\"\ninter_socket = \"infiniband_hdr\"\n");
  CHECK(link(tree, "gpu0 -> pcie0") == "31.5 GB/s, 0.5 us");
  CHECK(link(tree, "pcie0 -> root0") == "63 GB/s, 0.5 us");
  CHECK(link(tree, "pcie3 -> root1") == "63 GB/s, 0.5 us");
  CHECK(link(tree, "root0 -> root1") == "25 GB/s, 1 us");
  const std::string fabric =
      "topology = \"fat_tree\"\nnodes = 2\nnetwork = \"infiniband_hdr\"\nnodes_per_pod = 1\n"
      "oversubscription = 2\nuplink_latency = \"3 us\"\n";
  const Cluster fat = cluster_of(fabric + "node = {topology = \"nvswitch\", gpus = 2, link = \"nvlink4\"}\n");
  CHECK(link(fat, "gpu0 -> node0 nvswitch") == "450 GB/s, 0.5 us");
  CHECK(link(fat, "gpu2 -> pod1 rail0") == "25 GB/s, 1 us");
  CHECK(link(fat, "pod1 rail1 -> spine") == "12.5 GB/s, 3 us");
  const Cluster boxes = cluster_of(fabric +
                                   "node = {topology = \"pcie_tree\", gpus = 2, gpus_per_switch = 1, sockets = 1, "
                                   "link = \"pcie4_x16\", uplink = \"pcie5_x16\"}\n");
  CHECK(link(boxes, "gpu1 -> node0 pcie1") == "31.5 GB/s, 0.5 us");
  CHECK(link(boxes, "nic1 -> node0 pcie1") == "31.5 GB/s, 0.5 us");
  CHECK(link(boxes, "node1 pcie1 -> node1 root0") == "63 GB/s, 0.5 us");
  CHECK(link(boxes, "nic3 -> pod1 rail1") == "25 GB/s, 1 us");
  const Cluster grid = cluster_of("topology = \"torus\"\nshape = [2, 2]\nlink = \"ici_v3\"\n");
  CHECK(link(grid, "gpu1 -> gpu3") == "70 GB/s, 0.5 us");
  CHECK(link(cluster_of("topology = \"full_mesh\"\nlink = \"ici_v3\"\n"), "gpu1 -> gpu2") == "70 GB/s, 0.5 us");
}

TEST_CASE("skips that cannot be counted are an error at the pattern") {
  std::string skips;
  for (const int period : {2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61, 67, 71}) {
    skips += fmt::format("{}{{kind = \"stride\", period = {}, count = \"all\"}}", skips.empty() ? "" : ", ", period);
  }
  const std::string message = message_of([&] { load(layers_of(1 << 30, skips)); });
  CHECK_THAT(message, ContainsSubstring("scenario.toml:11:11: the skips of a layer meet in more than 4096 ways"));
}

TEST_CASE("keys of a halo and the more values of a gated skip are two messages, each at the rate of its size") {
  const Index left = 16, period = 64, rows_of_batch = 3;
  const std::string pattern =
      fmt::format("{{kind = \"window\", left = {}}}, {{kind = \"gated_skip\", period = {}}}", left, period);
  ScenarioText text = layers_of(4096, pattern);
  text.schedule = "halo";
  text.implementation = "orrery_pi";
  text.profile = "h200_sxm";
  const AttentionProgram program = build_program(load(text));
  const LinkTiming& link = program.input().links.neighbours.value();
  const auto startup_of = [&](Index rows) {  // 2 key heads of 20 in bf16
    const Bytes bytes = Bytes::from_si(static_cast<double>(rows * rows_of_batch) * 2 * 20 * 2);
    return (link.table.time(bytes) - link.latency - bytes / link.rate).si();
  };
  double longest = 0;
  for_each_op(program, 0, [&](const Op& op, std::span<const Message> messages) {
    if (!messages.empty()) longest = std::max(longest, to_seconds(op.duration).si());
  });
  const double expected = startup_of(left + 1) + startup_of(period) + program.input().implementation.dependency.value;
  CHECK(longest == Approx(expected).epsilon(1e-6));
}

TEST_CASE("a ring of a scenario hops as far as a gated skip reads values") {
  for (const auto& [period, hops] : {std::pair<Index, int>{16, 1}, {1024, 1}, {1025, 2}, {3000, 3}, {4096, 1}}) {
    const std::string pattern =
        fmt::format("{{kind = \"window\", left = 16}}, {{kind = \"gated_skip\", period = {}}}", period);
    const AttentionProgram program = build_program(load(layers_of(4096, pattern)));
    CHECK(program.steps(program.visits()[0]) == hops + 1);  // of blocks of 1024 tokens
  }
}

TEST_CASE("kernels that begin a pass stand before the exchange of heads") {
  const AttentionProgram program = build_program(load(ulysses_of_two(4096)));
  OpBuffer buffer;
  const std::vector<Action> first = program.actions(0, 0, buffer);
  const auto exchange =
      std::find_if(first.begin(), first.end(), [](const Action& a) { return a.kind == ActionKind::transfer; });
  REQUIRE(exchange != first.end());
  // Q, and K with V.
  CHECK(std::count_if(first.begin(), exchange, [](const Action& a) { return a.kernel == "copy_kernel"; }) == 2);
}

TEST_CASE("Q, K and V go to their heads in turn: three tensors of the exchange's table") {
  const AttentionProgram program = build_program(load(ulysses_of_two(1 << 20)));
  OpBuffer buffer;
  program.generate(0, 0, buffer);
  const auto exchange =
      std::find_if(buffer.ops().begin(), buffer.ops().end(), [](const Op& op) { return op.message_count > 0; });
  REQUIRE(exchange != buffer.ops().end());
  const auto bytes_of = [](int heads) { return Bytes::from_si((1 << 19) * 3.0 * heads * 20 * 2); };
  const std::array tensors = {bytes_of(6), bytes_of(2), bytes_of(2)};
  const Seconds startup = program.input().links.exchange->startup_of_group(tensors, 1, bytes_of(6 + 2 + 2) / 2);
  CHECK(to_seconds(exchange->duration).si() == Approx(startup.si() + program.input().implementation.dependency.value));
}

TEST_CASE("messages of one group are sent in turn, each as long as alone but for one launch") {
  CollectiveTiming timing;
  timing.link.table = {"nvlink4", "nccl", "all_to_all", {1e3, 1e6, 3e6}, {5e-6, 9e-6, 13e-6}, ""};
  timing.link.latency = Seconds::from_si(1e-6);
  timing.link.rate = BytesPerSecond::from_si(1e12);
  const std::array tensors = {Bytes::from_si(1e6), Bytes::from_si(1e6), Bytes::from_si(1e6)};
  const Bytes sent = Bytes::from_si(1e6);
  const double on_link = 1e-6 + 1e6 / 1e12;  // latency, and the bytes at the link's rate
  CHECK(timing.startup_of_group(tensors, 1, sent).si() == Approx(5e-6 + 3 * (9e-6 - 5e-6) - on_link));
  CHECK(timing.startup_of_group(tensors, 3, sent).si() == Approx(3 * 9e-6 - on_link));
}
