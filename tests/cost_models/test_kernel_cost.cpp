// Work of kernels and the roofline.
#include "cost_models/kernel_cost.hpp"

#include <algorithm>
#include <set>

#include "tests/catch.hpp"
#include "tests/cost_models/measured_models.hpp"

using namespace orrery;

namespace {

constexpr double queries = 512, keys = 256, heads = 32, kv_heads = 8, dim = 128, batch = 3;

AttentionShape shape_of(double pairs) {
  return {.pairs = pairs,
          .query_rows = queries,
          .key_rows = keys,
          .heads = heads,
          .kv_heads = kv_heads,
          .head_dim = dim,
          .batch = batch,
          .element_bytes = 2};
}

/// Every constant another number, so that a wrong one shows.
Profile uneven_profile() {
  Profile p;
  p.attention_forward_efficiency = number(0.5);
  p.attention_backward_efficiency = number(0.25);
  p.dense_efficiency = number(0.75);
  p.hbm_efficiency = number(0.8);
  p.kernel_overhead = number(3e-6);
  return p;
}

}  // namespace

TEST_CASE("attention takes four FLOPs per pair, head and element forward, and 2.5 times that backward") {
  const AttentionShape shape = shape_of(queries * keys);
  CHECK(attention_flops(shape, Phase::forward).si() == 4 * queries * keys * dim * heads * batch);
  CHECK(attention_flops(shape, Phase::backward).si() == 10 * queries * keys * dim * heads * batch);
}

TEST_CASE("attention reads Q, K, V and writes O; backward it also reads O and dO and writes dQ, dK, dV") {
  const double row = dim * batch * 2;
  const double q = queries * heads * row, kv = 2 * keys * kv_heads * row;
  CHECK(attention_bytes(shape_of(1), Phase::forward).si() == q + kv + q);
  CHECK(attention_bytes(shape_of(1), Phase::backward).si() == (q + kv + q + q) + (q + kv));
}

TEST_CASE("bytes grow with the size of an element and not with the pairs") {
  AttentionShape wide = shape_of(7);
  wide.element_bytes = 4;
  CHECK(attention_bytes(wide, Phase::forward).si() == 2 * attention_bytes(shape_of(1), Phase::forward).si());
}

TEST_CASE("an attention kernel takes its FLOPs at the achieved rate, plus overhead, if that is the longer") {
  const AttentionShape shape = shape_of(1e9);
  const Profile profile = uneven_profile();
  const KernelCost forward = attention_cost(shape, Phase::forward, round_peaks, profile);
  CHECK_THAT(forward.duration.si(), WithinRel(4 * 1e9 * dim * heads * batch / (1e15 * 0.5) + 3e-6, 1e-14));
  const KernelCost backward = attention_cost(shape, Phase::backward, round_peaks, profile);
  CHECK_THAT(backward.duration.si(), WithinRel(10 * 1e9 * dim * heads * batch / (1e15 * 0.25) + 3e-6, 1e-14));
  CHECK(forward.flops == attention_flops(shape, Phase::forward));
  CHECK(backward.flops == attention_flops(shape, Phase::backward));
  CHECK(forward.hbm_traffic == attention_bytes(shape, Phase::forward));
  CHECK(backward.hbm_traffic == attention_bytes(shape, Phase::backward));
}

TEST_CASE("an attention kernel of few pairs takes its bytes at the achieved HBM rate") {
  const KernelCost cost = attention_cost(shape_of(1), Phase::forward, round_peaks, uneven_profile());
  const double bytes = attention_bytes(shape_of(1), Phase::forward).si();
  CHECK_THAT(cost.duration.si(), WithinRel(bytes / (2e12 * 0.8) + 3e-6, 1e-14));
}

TEST_CASE("a streaming kernel takes its bytes at the achieved HBM rate and no FLOPs") {
  const KernelCost cost = streaming_cost(Bytes::from_si(1e9), round_peaks, uneven_profile());
  CHECK_THAT(cost.duration.si(), WithinRel(1e9 / (2e12 * 0.8) + 3e-6, 1e-14));
  CHECK(cost.flops == Flops());
  CHECK(cost.hbm_traffic == Bytes::from_si(1e9));
}

TEST_CASE("dense work takes the longer of FLOPs at the dense rate and bytes at the HBM rate") {
  const double inner = 5000, columns = 7000;
  for (const double rows : {10000.0, 1.0}) {
    const DenseShape shape{.products = {{rows, columns, inner}}, .element_bytes = 1};  // results have two
    const double flops = 2 * rows * columns * inner, bytes = rows * inner + inner * columns + 2 * rows * columns;
    const KernelCost cost = dense_cost(shape, round_peaks, uneven_profile());
    const double at_matrix = flops / (1e15 * 0.75), at_memory = bytes / (2e12 * 0.8);
    CHECK((at_matrix > at_memory) == (rows > 1));  // both sides are seen
    CHECK_THAT(cost.duration.si(), WithinRel(std::max(at_matrix, at_memory) + 3e-6, 1e-14));
    CHECK(cost.flops.si() == flops);
    CHECK(cost.hbm_traffic.si() == bytes);
  }
}

TEST_CASE("backward each product has two as large: what comes in gets the weights', the weights the rows' sum") {
  const DenseShape forward{.products = {{6, 10, 14}, {6, 22, 26}}};
  const DenseShape backward = gradients_of(forward);
  REQUIRE(backward.products.size() == 4);
  CHECK(backward.flops() == forward.flops() * 2);
  CHECK(backward.bytes() == forward.bytes() * 2);
  for (std::size_t i = 0; i < 2; ++i) {
    const MatrixProduct &product = forward.products[i], &input = backward.products[2 * i];
    const MatrixProduct& weights = backward.products[2 * i + 1];
    CHECK((input.rows == product.rows && input.columns == product.inner && input.inner == product.columns));
    CHECK((weights.rows == product.inner && weights.columns == product.columns && weights.inner == product.rows));
  }
}

TEST_CASE("a profile lists each of its constants once") {
  const Profile profile = uneven_profile();
  const auto constants = profile.constants();
  CHECK(std::set<const Constant*>(constants.begin(), constants.end()).size() == constants.size());
  const auto has = [&](const Constant& c) { return std::count(constants.begin(), constants.end(), &c) == 1; };
  CHECK(has(profile.attention_forward_efficiency));
  CHECK(has(profile.attention_backward_efficiency));
  CHECK(has(profile.dense_efficiency));
  CHECK(has(profile.hbm_efficiency));
  CHECK(has(profile.link_efficiency));
  CHECK(has(profile.kernel_overhead));
  CHECK(has(profile.tile_query));
  CHECK(has(profile.tile_key));
}

TEST_CASE(
    "a measured product of few rows takes what its bytes take at the rate of copies, one of many rows its cycles") {
  Profile profile = measured_profile();
  GemmModel& model = profile.kernels->gemm.emplace();
  model.launch = number(3e-6);
  model.efficiency = number(0.5);
  model.tile_ends = number(200);
  model.operand_rate = number(80);
  model.power = {number(0), number(1000)};
  profile.kernels->clock.tensor_flops_per_cycle = number(1e6);
  const double width = 4096, copy_rate = 4e12, flops_per_cycle = 1e6 * 0.5;
  const ProductRates rates{.multiply_adds = flops_per_cycle / 2 / round_peaks.sms,
                           .operand_elements = 80.0 / 2,
                           .tile_ends = 200,
                           .partial_sums = copy_rate / profile.kernels->clock.maximum_clock.value / (2 * sizeof(float)),
                           .sms = round_peaks.sms};
  for (const double rows : {1.0, 8.0, 64.0, 4096.0}) {
    const DenseShape shape{.products = {{rows, width, width}, {rows, width / 2, width}}};
    const double bytes = 2 * (1.5 * width * width + 3.5 * rows * width);
    const KernelCost cost = dense_cost(shape, round_peaks, profile, Regime::burst);
    double cycles = 0;
    for (const MatrixProduct& product : shape.products) cycles += tile_product(product, rates).cycles;
    CHECK_THAT(cost.duration.si(), WithinRel(2 * 3e-6 + std::max(cycles / test_clock, bytes / copy_rate), 1e-12));
    CHECK((rows < 10) == (bytes / copy_rate > cycles / test_clock));  // both sides are seen
  }
}

TEST_CASE("rows are aligned to the largest power of two of bytes, at most 16, of the worst of their widths") {
  CHECK(row_alignment({4096, 50304}, 2) == 16);
  CHECK(row_alignment({4096, 50264}, 2) == 16);
  CHECK(row_alignment({4096, 50260}, 2) == 8);
  CHECK(row_alignment({50258, 4096}, 2) == 4);
  CHECK(row_alignment({4096, 50257}, 2) == 2);
  CHECK(row_alignment({4096, 50257.0 / 2}, 2) == 2);  // 25129 and 25128
  CHECK(row_alignment({4096, 50257}, 1) == 1);
}

TEST_CASE("a product of rows that are not aligned takes its cycles at the efficiency of its layout, if that is known") {
  Profile profile = measured_profile();
  GemmModel& model = profile.kernels->gemm.emplace();
  model.launch = model.tile_ends = number(0);
  model.operand_rate = number(1e9);
  model.efficiency = number(0.8);
  model.even_rows_backward = number(0.4);
  model.odd_rows_forward = number(0.2);
  model.power = {number(0), number(1000)};
  // Ten whole waves of tiles, so that tiles take what the FLOPs take.
  const MatrixProduct product{256.0 * round_peaks.sms, 128 * 10, 1e5};
  const auto time_of = [&](int alignment, Phase phase) {
    return dense_cost({.products = {product}, .row_alignment = alignment, .phase = phase}, round_peaks, profile,
                      Regime::burst)
        .duration.si();
  };
  const double aligned = 2 * product.rows * product.columns * product.inner / (0.8 * 1e5 * test_clock);
  CHECK_THAT(time_of(16, Phase::forward), WithinRel(aligned, 1e-12));
  CHECK_THAT(time_of(8, Phase::backward), WithinRel(2 * aligned, 1e-12));
  CHECK_THAT(time_of(4, Phase::backward), WithinRel(2 * aligned, 1e-12));
  CHECK_THAT(time_of(4, Phase::forward), WithinRel(aligned, 1e-12));  // not measured
  CHECK_THAT(time_of(2, Phase::forward), WithinRel(4 * aligned, 1e-12));
}
