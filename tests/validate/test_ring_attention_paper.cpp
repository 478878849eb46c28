// The numbers of the Ring Attention paper, from its formulas and from the simulator.
#include <fmt/format.h>

#include <cmath>

#include "tests/catch.hpp"
#include "tests/validate/ring_times.hpp"

using namespace orrery;
namespace paper = orrery::ring_attention_paper;

namespace {

Ticks most_exposed(const IdealCase& c) {
  Ticks most = 0;
  for (const RankTotals& rank : run(c).ranks) most = std::max(most, rank.exposed_comm);
  return most;
}

Index next_multiple(double value, Index step) {
  return static_cast<Index>(std::ceil(value / static_cast<double>(step))) * step;
}

}  // namespace

TEST_CASE("table 2 is F / B and 6 F / B to the printed digit") {
  const auto thousands = [](double tokens) { return fmt::format("{:.1f}", tokens / 1000); };
  for (const paper::Accelerator& row : paper::table_2()) {
    INFO(std::string(row.name));
    const double block = paper::min_block(row.flop_rate, row.bandwidth);
    const double sequence = paper::min_sequence(row.flop_rate, row.bandwidth);
    CHECK(sequence == 6 * block);
    if (row.name == "A100 InfiniBand") {
      // The printed 24.5k and 149.5k are not what F = 312 TFLOP/s and B = 12.5 GB/s give.
      CHECK(block == 312e12 / 12.5e9);
      CHECK(thousands(block) == "25.0");
      CHECK(thousands(sequence) == "149.8");
      CHECK(std::abs(block / 1000 / row.printed_block - 1) < 0.02);
      CHECK(std::abs(sequence / 1000 / row.printed_sequence - 1) < 0.002);
      continue;
    }
    CHECK(thousands(block) == fmt::format("{:.1f}", row.printed_block));
    CHECK(thousands(sequence) == fmt::format("{:.1f}", row.printed_sequence));
  }
  const std::vector<std::pair<Index, Index>> tokens = {
      {1040, 6240}, {24960, 149760}, {1098, 6589}, {1026, 6157}, {1054, 6323}};
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    const paper::Accelerator& row = paper::table_2()[i];
    CHECK(std::llround(paper::min_block(row.flop_rate, row.bandwidth)) == tokens[i].first);
    CHECK(std::llround(paper::min_sequence(row.flop_rate, row.bandwidth)) == tokens[i].second);
  }
}

TEST_CASE("a simulated ring exposes communication one token below F / B and none from there on") {
  for (const paper::Accelerator& row : paper::table_2()) {
    const Index enough = next_multiple(paper::min_block(row.flop_rate, row.bandwidth), 1);
    for (const int ranks : {2, 4, 8}) {
      INFO(fmt::format("{}, P = {}, c = {}", row.name, ranks, enough));
      CHECK(most_exposed(ring_on(row, ranks, enough)) == 0);
      CHECK(most_exposed(ring_on(row, ranks, enough + 1)) == 0);
      CHECK(most_exposed(ring_on(row, ranks, 2 * enough)) == 0);
      const IdealCase below = ring_on(row, ranks, enough - 1);
      const Ticks tile = tile_ticks(below);
      const Ticks hop = kv_hop(below);
      CHECK(hop > tile);
      CHECK(most_exposed(below) == (ranks - 1) * (hop - tile));
    }
  }
}

TEST_CASE("grouped queries lower the threshold by their ratio") {
  for (const paper::Accelerator& row : paper::table_2()) {
    const double threshold = paper::min_block(row.flop_rate, row.bandwidth, {.heads = 32, .kv_heads = 8});
    CHECK_THAT(threshold, WithinRel(paper::min_block(row.flop_rate, row.bandwidth) / 4, 1e-12));
    const Index enough = next_multiple(threshold, 1);
    INFO(fmt::format("{}, c = {}", row.name, enough));
    IdealCase c = ring_on(row, 4, enough);
    c.kv_heads = 8;
    CHECK(most_exposed(c) == 0);
    c.tokens = 4 * (enough - 1);
    CHECK(most_exposed(c) > 0);
  }
}

TEST_CASE("a causal zigzag ring needs twice the block: 520 tokens on A100 with NVLink and 32:8 heads") {
  const paper::Accelerator& a100 = paper::table_2()[0];
  const paper::Overlap grouped{.heads = 32, .kv_heads = 8, .causal_balanced = true};
  CHECK(paper::min_block(a100.flop_rate, a100.bandwidth, grouped) == 520);
  for (const paper::Accelerator& row : paper::table_2()) {
    const Index enough = next_multiple(paper::min_block(row.flop_rate, row.bandwidth, grouped), 2);
    INFO(fmt::format("{}, c = {}", row.name, enough));
    IdealCase c = ring_on(row, 4, enough);
    c.causal = true;
    c.layout = "zigzag";
    c.kv_heads = 8;
    CHECK(most_exposed(c) == 0);
    c.tokens = 4 * (enough - 2);  // one chunk is half a block
    CHECK(most_exposed(c) > 0);
  }
}

TEST_CASE("backward, all but the gradient's last hop home hides from 0.8 F / B in bf16 and 1.2 F / B in fp32") {
  for (const paper::Accelerator& row : paper::table_2()) {
    for (const bool fp32 : {false, true}) {
      for (const bool causal : {false, true}) {
        const paper::Overlap overlap{.causal_balanced = causal, .phase = Phase::backward, .gradients_in_fp32 = fp32};
        const double threshold = paper::min_block(row.flop_rate, row.bandwidth, overlap);
        CHECK_THAT(threshold,
                   WithinRel((fp32 ? 1.2 : 0.8) * (causal ? 2 : 1) * row.flop_rate.si() / row.bandwidth.si(), 1e-12));
        const Index enough = next_multiple(threshold, causal ? 2 : 1);
        const auto exposed_beyond_last_hop = [&](Index block) {
          IdealCase c = ring_on(row, 4, block);
          c.causal = causal;
          c.layout = causal ? "zigzag" : "contiguous";
          c.implementation.merge = c.implementation.gradient_sum = Merge::kernel;
          c.implementation.gradients_in_fp32 = fp32;
          const SimulationResult forward = run(c);
          c.backward = true;
          const SimulationResult both = run(c);
          const Ticks last_hop = hop_ticks(c, block_bytes(c, fp32 ? 4 : 2));
          return both.ranks[0].exposed_comm - forward.ranks[0].exposed_comm - last_hop;
        };
        INFO(fmt::format("{}, c = {}", row.name, enough));
        CHECK(exposed_beyond_last_hop(enough) == 0);
        CHECK(exposed_beyond_last_hop(enough + enough / 2 * 2) == 0);
        CHECK(exposed_beyond_last_hop(enough - (causal ? 2 : 1)) > 0);
      }
    }
  }
}

TEST_CASE("the ratio of training FLOPs reproduces all 54 cells of the figure") {
  // Printed "10M" is 12 * 2^20 and "100M" 128 * 2^20; the hidden size of 13B is 5120 (the text says 5140).
  const double kibi = 1024, mebi = 1024 * 1024;
  const std::vector<double> to = {8 * kibi,   16 * kibi, 32 * kibi, 64 * kibi, 128 * kibi,
                                  256 * kibi, 1 * mebi,  12 * mebi, 128 * mebi};
  struct Row {
    std::string model;
    double hidden;
    std::vector<std::string> printed;
  };
  const std::vector<Row> rows = {
      {"7B", 4096, {"1.1", "1.4", "2.0", "3.1", "5.4", "10.0", "37.4", "439.7", "4682.0"}},
      {"13B", 5120, {"1.1", "1.4", "1.8", "2.8", "4.6", "8.4", "31.0", "362.3", "3855.9"}},
      {"33B", 7168, {"1.1", "1.3", "1.6", "2.3", "3.7", "6.5", "23.2", "268.0", "2850.3"}},
      {"65B", 8192, {"1.1", "1.2", "1.5", "2.2", "3.4", "5.8", "20.6", "237.2", "2521.5"}},
      {"175B", 12288, {"1.1", "1.2", "1.4", "1.8", "2.6", "4.3", "14.4", "162.6", "1725.6"}},
      {"1TB", 36864, {"1.0", "1.1", "1.1", "1.3", "1.6", "2.1", "5.6", "56.8", "596.8"}},
  };
  for (const Row& row : rows) {
    for (std::size_t i = 0; i < to.size(); ++i) {
      INFO(fmt::format("{} to {} tokens", row.model, to[i]));
      const double ratio = paper::data_set_flops_ratio(row.hidden, 4 * kibi, to[i]);
      CHECK(fmt::format("{:.1f}", ratio) == row.printed[i]);
      // The same from the FLOPs of sequences that make up one data set.
      const double sequences = to[i] / (4 * kibi);
      CHECK_THAT(
          paper::training_flops(1, to[i], row.hidden, 32) / paper::training_flops(sequences, 4 * kibi, row.hidden, 32),
          WithinRel(ratio, 1e-12));
    }
  }
}

TEST_CASE("peak activations of a layer depend on the block, not on the number of devices") {
  CHECK(paper::peak_activation(1, 1024, 4096).si() == 6.0 * 1024 * 4096);
}
