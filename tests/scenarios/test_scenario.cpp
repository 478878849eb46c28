// What a scenario file becomes.
#include "scenarios/scenario.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <string>

#include "scenarios/report.hpp"
#include "tests/catch.hpp"
#include "tests/scenarios/messages.hpp"

using namespace orrery;

namespace {

/// A scenario of whole layers on 4 H200 with a model of hidden size 96, 6 heads and 2 KV heads of 20, an MLP of 160.
std::string file_of(std::string_view pattern, int tokens) {
  return fmt::format(R"(description = "test"
[workload]
model = "model.toml"
tokens = {}
batch = 3
dtype = "bf16"
pass = "forward"
scope = "layers"
[attention]
causal = true
pattern = [{}]
[parallelism]
ranks = 4
schedule = "ring"
layout = "contiguous"
implementation = "ideal"
[cluster]
gpu = "h200_sxm"
profile = "peak"
topology = "nvswitch"
link = "nvlink4"
)",
                     tokens, pattern);
}

std::filesystem::path written(const ScratchFolder& folder, std::string_view scenario, bool gated) {
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
  return folder.write("scenario.toml", scenario);
}

}  // namespace

TEST_CASE(
    "dense work of a layer: two FLOPs per weight and token; weights, inputs and outputs of each product in bytes") {
  for (const bool gated : {true, false}) {
    const ScratchFolder folder;
    const Scenario scenario = load_scenario(written(folder, file_of("{kind = \"full\"}", 512), gated));
    const AttentionProgram program = build_program(scenario);
    const double rows = 512.0 / 4 * 3;
    // One row: (inputs, outputs) of q, k and v together, of the output projection, of gate and up together, of down.
    struct Product {
      double in, out;
    };
    const double q = 6 * 20, kv = 2 * 20, up = gated ? 2 * 160 : 160;
    double flops = 0, bytes = 0, outputs = 0;
    for (const Product& product : {Product{96, q + 2 * kv}, {q, 96}, {96, up}, {160, 96}}) {
      flops += 2 * rows * product.in * product.out;
      bytes += 2 * (product.in * product.out + rows * (product.in + product.out));
      outputs += rows * product.out;
    }
    CHECK(program.input().dense.flops.si() == flops);
    CHECK(program.input().dense.bytes.si() == bytes);
    CHECK(program.input().dense.outputs == outputs);
  }
}

TEST_CASE("a topology that takes more links of a GPU than it has is simulated, and the report calls them assumed") {
  const ScratchFolder folder;
  const auto assumed = [&](const std::string& topology, const std::string& link) {
    std::string text = file_of("{kind = \"full\"}", 512);
    text.replace(text.find("topology = "), std::string::npos, topology + "\nlink = \"" + link + "\"\n");
    const Scenario scenario = load_scenario(written(folder, text, true));
    const Report report = predict(scenario);
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

TEST_CASE("skips that cannot be counted are an error at the pattern") {
  std::string skips;
  for (const int period : {2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61, 67, 71}) {
    skips += fmt::format("{}{{kind = \"stride\", period = {}, count = \"all\"}}", skips.empty() ? "" : ", ", period);
  }
  const ScratchFolder folder;
  const std::filesystem::path file = written(folder, file_of(skips, 1 << 30), true);
  const std::string message = message_of([&] { load_scenario(file); });
  CHECK_THAT(message, ContainsSubstring("scenario.toml:11:11: the skips of a layer meet in more than 4096 ways"));
}
