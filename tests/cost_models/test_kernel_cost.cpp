// Work of kernels and the roofline.
#include "cost_models/kernel_cost.hpp"

#include <algorithm>
#include <set>

#include "cost_models/measured_kernels.hpp"
#include "tests/catch.hpp"
#include "tests/cost_models/measured_models.hpp"

using namespace orrery;
using Catch::Matchers::WithinRel;

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

Constant constant(double value) {
  return {"", value, "1", Provenance::assumed, "test"};
}

/// Every constant another number, so that a wrong one shows.
Profile uneven_profile() {
  Profile p;
  p.attention_forward_efficiency = constant(0.5);
  p.attention_backward_efficiency = constant(0.25);
  p.dense_efficiency = constant(0.75);
  p.hbm_efficiency = constant(0.8);
  p.kernel_overhead = constant(3e-6);
  return p;
}

const GpuPeaks round_peaks{FlopsPerSecond::from_si(1e15), BytesPerSecond::from_si(2e12), 100};

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

TEST_CASE("thread blocks that start together wait for Q and O at the rate of copies, backward for K, V, dK and dV") {
  Profile profile = measured_profile();
  const double rows = 128, width = 128, heads = 100, sms = round_peaks.sms;
  const AttentionShape shape{
      .pairs = rows * rows, .query_rows = rows, .key_rows = rows, .heads = heads, .kv_heads = heads, .head_dim = width};
  for (AttentionModel model : profile.kernels->attention) {
    if (model.head_dim != width) continue;
    const auto unclocked = [&](double waves) {
      model.waves_in_step = number(waves);
      return attention_load(shape, model, *profile.kernels, round_peaks, rows, rows).unclocked.si();
    };
    const double tensors = model.phase == Phase::forward ? 2 : 4, drift = 3;
    const double waves = std::ceil(heads / sms);
    const double starts = drift * (1 - std::exp(-waves / drift)) * std::min(1.0, heads / sms);
    CHECK_THAT(
        unclocked(drift) - unclocked(0),
        WithinRel(starts * sms * tensors * rows * width * 2 / memory_rate(*profile.kernels, round_peaks).si(), 1e-9));
  }
}

namespace {

/// Cycles of such a block, as a row of a measured file has it.
double cycles_of(Phase phase, MaskShape mask, double masked_tile = 2000) {
  const TilePairs pairs = tile_pairs(mask, 128, 128);
  const AttentionShape shape{.pairs = pairs.executed,
                             .query_rows = mask.n_q,
                             .key_rows = mask.n_k,
                             .heads = 2,
                             .kv_heads = 2,
                             .head_dim = 128,
                             .masked_pairs = pairs.masked,
                             .pairs_beyond = pairs.beyond,
                             .window = mask.mask == "window"};
  const Profile profile = measured_profile();
  AttentionModel model = *profile.kernels->attention_of(phase, 128);
  model.masked_tile = number(masked_tile);
  return attention_load(shape, model, *profile.kernels, {round_peaks.matrix, round_peaks.hbm, 10}, 128, 128).cycles;
}

}  // namespace

TEST_CASE("a tile that is partly full takes the tensor cores as long as a whole one, with a mask or without") {
  for (const std::string mask : {"full", "causal", "window"}) {
    const auto cycles = [&](double n) { return cycles_of(Phase::forward, {n, n, mask, 512}); };
    CHECK(cycles(1152) > cycles(1024));
    for (const double n : {1025.0, 1056.0, 1088.0, 1151.0}) {
      INFO(mask << " " << n);
      CHECK(cycles(n) == cycles(1152));
    }
  }
}

TEST_CASE("backward, kernels go through the queries in steps of half a tile") {
  // 9 key tiles of 2 heads on 10 SMs: two waves, or the longest lists of a triangle.
  const double list_start = 1000, tile = 2000;
  for (const double n : {1025.0, 1088.0})
    CHECK(cycles_of(Phase::backward, {n, n, "full", 0}) == 2 * (list_start + 8.5 * tile));
  for (const double n : {1089.0, 1152.0})
    CHECK(cycles_of(Phase::backward, {n, n, "full", 0}) == 2 * (list_start + 9 * tile));
  // Every list of a triangle ends with the last queries.
  const double half = cycles_of(Phase::backward, {1088, 1088, "causal", 0});
  CHECK(half < cycles_of(Phase::backward, {1152, 1152, "causal", 0}));
  CHECK(half > cycles_of(Phase::backward, {1024, 1024, "causal", 0}));
}

TEST_CASE("longer blocks never take less, whatever is left of their last tiles") {
  for (const Phase phase : {Phase::forward, Phase::backward}) {
    for (const std::string mask : {"full", "causal", "window"}) {
      double before = 0;
      // Backward, blocks no longer than what sees a list of a window (427 queries) are of whole tiles, others of steps.
      const double others_from = phase == Phase::backward && mask == "window" ? 432 : 0;
      for (double n = 16; n <= 1500; n += 16) {
        const double cycles = cycles_of(phase, {n, n, mask, 300}, 3000);
        INFO(name_of(phase) << " " << mask << " " << n);
        if (n == others_from) before = 0;
        // The lists of a window are known by their sum, from which the longest of a few is guessed.
        CHECK(cycles >= before * (1 - (mask == "window" ? 1e-2 : 1e-12)));
        before = cycles;
      }
    }
  }
}

namespace {

/// An unmasked block of 2 heads, or a window over as many queries as keys.
AttentionShape block(double n_q, double n_k, double window = 0) {
  const TilePairs pairs = tile_pairs({n_q, n_k, window > 0 ? "window" : "full", window}, 128, 128);
  return {.pairs = pairs.executed,
          .query_rows = n_q,
          .key_rows = n_k,
          .heads = 2,
          .kv_heads = 2,
          .head_dim = 128,
          .masked_pairs = pairs.masked,
          .pairs_beyond = pairs.beyond,
          .window = window > 0};
}

KernelLoad load_of(const AttentionShape& shape, Phase phase, const Profile& profile) {
  return attention_load(shape, *profile.kernels->attention_of(phase, 128), *profile.kernels,
                        {round_peaks.matrix, round_peaks.hbm, 10}, 128, 128);
}

}  // namespace

TEST_CASE("a kernel starts later if what it reads is not in L2: after a flush, or because it does not fit") {
  Profile profile = measured_profile();
  for (AttentionModel& model : profile.kernels->attention) model.cold_start = number(3e-6);
  AttentionShape shape = block(1024, 1024);
  for (const Phase phase : {Phase::forward, Phase::backward}) {
    const double bytes = attention_bytes(shape, phase).si();
    const auto unclocked = [&](bool cold, double cache) {
      profile.kernels->streams.front().cache = number(cache);
      shape.cold = cold;
      return load_of(shape, phase, profile).unclocked.si();
    };
    const double warm = unclocked(false, bytes);
    CHECK_THAT(unclocked(true, bytes) - warm, WithinRel(3e-6, 1e-9));
    CHECK_THAT(unclocked(false, bytes - 1) - warm, WithinRel(3e-6, 1e-9));
  }
}

TEST_CASE("a kernel row reads from HBM unless its column or the file's header says warm; other words are errors") {
  const auto cold = [](const std::string& header, const std::string& cell) {
    std::vector<MeasuredKernel> rows;
    add_rows(MeasuredTable::parse(header +
                                      "gpu,schedule,pass,heads,kv_heads,head_dim,n_q,n_k,mask,cache,time_ms,status\n"
                                      "h200_sxm,kernel,forward,2,2,128,512,512,full," +
                                      cell + ",0.01,ok\n",
                                  "made.csv"),
             rows);
    return rows.at(0).attention.cold;
  };
  CHECK(cold("", ""));
  for (const std::string cell : {"flushed", "flushed_per_sample", "rotated"}) CHECK(cold("# cache = warm\n", cell));
  CHECK_FALSE(cold("", "warm"));
  CHECK_FALSE(cold("# cache = warm\n", ""));
  CHECK_THROWS_WITH(cold("", "hot"), Catch::Matchers::Contains("cache = \"hot\" is unknown"));
}

TEST_CASE("of a whole rectangle under a mask, three of five backward products are with the zeros of what is hidden") {
  AttentionShape shape = masked_rectangle(6);
  Profile profile = measured_profile();
  profile.kernels->attention.back().rectangle_edge = number(300);
  const KernelLoad load = load_of(shape, Phase::backward, profile);
  const double all = 256 * 512, seen = shape.pairs - shape.masked_pairs, flops_of_pair = 10 * 128;
  CHECK_THAT(load.flops.si(), WithinRel(all * flops_of_pair, 1e-12));
  CHECK_THAT(load.with_zeros.si(), WithinRel(3.0 / 5 * (all - seen) * flops_of_pair, 1e-12));
}

TEST_CASE("a stream behind a flush first writes half of L2, once for all launches of a sample") {
  Profile profile = measured_profile();
  const StreamModel stream{"copy_kernel", number(2e-6), number(4e12), number(8e12), number(5e7)};
  profile.kernels->streams = {stream};
  const auto seconds = [&](const std::string& cells) {
    std::vector<MeasuredKernel> rows;
    add_rows(MeasuredTable::parse("gpu,kernel,width,bytes,cache,launches_per_sample,time_us,status\n"
                                  "h200_sxm,copy_kernel,1,1e9," +
                                      cells + ",250,ok\n",
                                  "made.csv"),
             rows);
    return predicted_time(rows.at(0), {FlopsPerSecond::from_si(1e14), BytesPerSecond::from_si(4e12), test_sms}, profile)
        .si();
  };
  const double alone = stream.time(Bytes::from_si(1e9)).si(), written = 0.5 * 5e7 / 4e12;
  for (const std::string cells : {"rotated,4", "warm,1", ","}) CHECK(seconds(cells) == alone);
  CHECK_THAT(seconds("flushed,1"), WithinRel(alone + written, 1e-9));
  CHECK_THAT(seconds("flushed,"), WithinRel(alone + written, 1e-9));
  CHECK_THAT(seconds("flushed_per_sample,4"), WithinRel(alone + written / 4, 1e-9));
  CHECK_THROWS_WITH(seconds("flushed,0"), Catch::Matchers::Contains("launches_per_sample = 0 is not positive"));
}

TEST_CASE("the end of the keys inside a tile is looked for in every tile, forward unless a mask hides it") {
  Profile profile = measured_profile();
  for (AttentionModel& model : profile.kernels->attention) model.guarded_kernel = number(1.5);
  const double list_start = 1000, tile = 2000;
  const auto cycles = [&](double n_q, double n_k, Phase phase) {
    return load_of(block(n_q, n_k), phase, profile).cycles;
  };
  // 2 heads of 4 lists on 10 SMs; forward a tile has 128 keys, backward a step has 64.
  CHECK(cycles(512, 512, Phase::forward) == list_start + 4 * tile);
  CHECK(cycles(512, 448, Phase::forward) == list_start + 4 * tile * 1.5);
  CHECK(cycles(480, 512, Phase::forward) == list_start + 4 * tile);
  CHECK(cycles(512, 512, Phase::backward) == list_start + 4 * tile);
  CHECK(cycles(512, 448, Phase::backward) == list_start + 4 * tile);
  CHECK(cycles(512, 480, Phase::backward) == list_start + 4 * tile * 1.5);
  CHECK(cycles(480, 512, Phase::backward) == list_start + 4 * tile);
  AttentionShape causal = block(512, 480);
  causal.masked_pairs = 1;
  CHECK_FALSE(causal.guarded(Phase::forward, 128));
  CHECK(causal.guarded(Phase::backward, 128));
}

TEST_CASE("a window's kernel has a launch, a start of its lists and tiles of its own, and a guard per list or tile") {
  Profile profile = measured_profile();
  const auto load = [&](double n, Phase phase) { return load_of(block(n, n, 128), phase, profile); };
  // One list of one tile a head: a block as long as its window is a triangle of one tile.
  for (const Phase phase : {Phase::forward, Phase::backward}) {
    for (AttentionModel& model : profile.kernels->attention)
      model = *measured_profile().kernels->attention_of(phase, 128);
    const Seconds before = load(128, phase).unclocked;
    for (AttentionModel& model : profile.kernels->attention) {
      model.phase = phase;
      model.window_launch = number(1e-6);
      model.window_kernel = number(1.25);
      model.window_start = number(700);
      model.guarded_window = number(300);
    }
    CHECK(load(128, phase).cycles == 1000 + 700 + 1.25 * 2000);
    CHECK_THAT((load(128, phase).unclocked - before).si(), WithinRel(1e-6, 1e-6));
  }
  profile.kernels->attention.front().phase = Phase::forward;
  CHECK(load(96, Phase::forward).cycles == 1000 + 700 + 300 + 1.25 * 2000);
  profile.kernels->attention.front().phase = Phase::backward;
  CHECK(load(96, Phase::backward).cycles == 1000 + 700 + 1.25 * 2000 + 300);
}

TEST_CASE(
    "backward, the end of the queries inside a tile spares steps where all lists reach it, of sparse blocks none") {
  const Profile profile = measured_profile();
  const auto cycles = [&](double n_q, double share) {
    const double n_k = 1024;
    AttentionShape shape = block(1024, n_k);
    shape.query_rows = n_q;
    shape.pairs = share * 1024 * n_k;
    shape.masked_pairs = shape.pairs_beyond = 0;
    const AttentionModel* backward = profile.kernels->attention_of(Phase::backward, 128);
    return attention_load(shape, *backward, *profile.kernels, round_peaks, 128, 128).busy_cycles;
  };
  // 960 queries are 7 tiles of 128 and one step of 64: half a tile of each of 8 lists of 2 heads.
  const double half_tile = profile.kernels->attention_of(Phase::backward, 128)->full_tile.value / 2;
  CHECK_THAT(cycles(1024, 1) - cycles(960, 1), WithinRel(8 * 2 * half_tile / round_peaks.sms, 1e-9));
  CHECK(cycles(960, 0.25) == cycles(1024, 0.25));
}

TEST_CASE("backward, a list under a window ends with the last step of 64 queries that sees one of its keys") {
  // Keys of one list are seen by 127 + w queries: the 128 beside them and w - 1 more.
  Profile profile = measured_profile();
  for (AttentionModel& model : profile.kernels->attention) {
    model.window_kernel = number(1);
    model.window_start = number(1e-9);
  }
  const auto cycles = [&](double window) {
    return load_of(block(4096, 4096, window), Phase::backward, profile).cycles;
  };
  // ceil((127 + w) / 64) is 4, 5, 5 and 6 steps. Half a tile in 32 lists of 2 heads on 10 SMs, less what the end of the
  // block cuts off.
  const double a_step = 32 * 2 / 10.0 * 2000 / 2;
  CHECK_THAT(cycles(160) - cycles(128), WithinRel(a_step, 0.15));
  CHECK(cycles(192) == cycles(160));
  CHECK_THAT(cycles(256) - cycles(192), WithinRel(a_step, 0.15));
}

TEST_CASE("an interval is that of the group's band, beyond its range or over other numbers of ranks the wider one") {
  Profile profile = measured_profile();
  profile.kernels->links.push_back({"wire", "nccl", "all_gather", {1e6, 1e9}, {1e-5, 1e-2}, ""});
  profile.kernels->bands.push_back({"collectives >= 1 MB", 0.05, 0.1, 1e6, 1e9, 9});
  const auto interval = [&](double bytes, int ranks) {
    MeasuredKernel row;
    row.kind = MeasuredKernel::Kind::message;
    row.link = "wire";
    row.mechanism = "nccl";
    row.op = "all_gather";
    row.ranks = ranks;
    row.bytes = Bytes::from_si(bytes);
    name_message(row, "");
    return interval_of(row, round_peaks, profile).value();
  };
  CHECK(interval(1e8, 2).half_width == 0.05);
  CHECK_FALSE(interval(1e8, 2).extrapolated);
  for (const KernelInterval& wide : {interval(1e8, 4), interval(2e9, 2)}) {
    CHECK(wide.half_width == 0.1);
    CHECK(wide.extrapolated);
  }
}

TEST_CASE("the interval of both passes together is the wider one of theirs, extrapolated if either is") {
  Profile profile = measured_profile();
  for (AttentionModel& model : profile.kernels->attention) model.full_tile.provenance = Provenance::fitted;
  const auto interval = [&](double forward, double backward, double most_backward) {
    profile.kernels->bands = {{"attention forward", forward, 2 * forward, 1, 1e15, 9},
                              {"attention backward", backward, 2 * backward, 1, most_backward, 9}};
    MeasuredKernel row;
    row.both_passes = true;
    row.attention = {.pairs = 4096.0 * 4096, .query_rows = 4096, .key_rows = 4096, .heads = 8, .kv_heads = 8};
    row.attention.head_dim = 128;
    return interval_of(row, round_peaks, profile).value();
  };
  CHECK(interval(0.05, 0.03, 1e15).half_width == 0.05);
  CHECK(interval(0.03, 0.05, 1e15).half_width == 0.05);
  CHECK_FALSE(interval(0.03, 0.05, 1e15).extrapolated);
  CHECK(interval(0.03, 0.05, 1).half_width == 2 * 0.05);
  CHECK(interval(0.03, 0.05, 1).extrapolated);
}

TEST_CASE("between measured head_dims an interval is wider by how far one is off that the others would predict") {
  Profile profile = measured_profile();
  AttentionModel narrow = profile.kernels->attention.front();  // 128 wide, forward
  narrow.head_dim = 64;
  narrow.full_tile = number(1500);
  profile.kernels->attention.push_back(narrow);
  for (AttentionModel& model : profile.kernels->attention) model.full_tile.provenance = Provenance::fitted;
  profile.kernels->bands.push_back({"attention forward", 0.05, 0.1, 1, 1e15, 9});
  const GpuPeaks peaks{FlopsPerSecond::from_si(1e14), BytesPerSecond::from_si(4e12), test_sms};
  MeasuredKernel row;
  row.group = "attention forward";
  row.work = 1e12;
  row.attention = {.pairs = 4096.0 * 4096, .query_rows = 4096, .key_rows = 4096, .heads = 8, .kv_heads = 8};
  row.attention.head_dim = 128;
  CHECK(interval_of(row, peaks, profile)->half_width == 0.05);
  row.attention.head_dim = 96;
  const double off = error_of_other_head_dims(row.attention, row.phase, row.regime, peaks, profile);
  REQUIRE(off > 0.2);
  CHECK(interval_of(row, peaks, profile)->half_width == 0.1 + off);
  CHECK(interval_of(row, peaks, profile)->extrapolated);
}

TEST_CASE("between two measured head_dims cycles lie on the line between theirs, beyond them they grow with head_dim") {
  Profile profile = measured_profile();
  const AttentionModel wide = profile.kernels->attention.front();  // 128 wide, forward
  AttentionModel narrow = wide;
  narrow.head_dim = 64;
  narrow.list_start = number(800);
  narrow.full_tile = number(1500);
  profile.kernels->attention.insert(profile.kernels->attention.begin() + 1, narrow);
  const auto cycles = [&](double head_dim) {
    const AttentionShape shape{
        .pairs = 512 * 256, .query_rows = 512, .key_rows = 256, .heads = 1, .kv_heads = 1, .head_dim = head_dim};
    const GpuPeaks peaks{FlopsPerSecond::from_si(1e14), BytesPerSecond::from_si(4e12), test_sms};
    return (attention_cost(shape, Phase::forward, peaks, profile).duration.si() - 5e-6) * test_clock;
  };
  const double at_64 = 800 + 2 * 1500, at_128 = 1000 + 2 * 2000;  // lists of two tiles, all at once
  CHECK_THAT(cycles(64), WithinRel(at_64, 1e-9));
  CHECK_THAT(cycles(96), WithinRel((at_64 + at_128) / 2, 1e-9));
  CHECK_THAT(cycles(80), WithinRel(at_64 + (at_128 - at_64) / 4, 1e-9));
  CHECK_THAT(cycles(128), WithinRel(at_128, 1e-9));
  CHECK_THAT(cycles(256), WithinRel(at_128 * 2, 1e-9));
  CHECK_THAT(cycles(32), WithinRel(at_64 / 2, 1e-9));
}

TEST_CASE(
    "where the mask is, one of two products forward and three of five backward are with zeros; beyond it all are") {
  const Profile profile = measured_profile();
  AttentionShape shape = block(512, 512);
  shape.masked_pairs = 1000;
  shape.pairs_beyond = 10;
  const double product = 2 * shape.head_dim * shape.heads;  // FLOPs of a pair
  // S and O. P is zero, and with it O.
  CHECK(load_of(shape, Phase::forward, profile).with_zeros.si() == product * (1 * 1000 + 2 * 10));
  // S, dP, dV, dQ and dK. P and dS are zero, and with them the last three.
  CHECK(load_of(shape, Phase::backward, profile).with_zeros.si() == product * (3 * 1000 + 5 * 10));
}

TEST_CASE("grouped queries are launched later and move more bytes for each key of each query head") {
  Profile profile = measured_profile();
  const double queries_of_block = 512, keys_of_block = 1024, bytes = 4, launch = 2e-6;
  for (AttentionModel& model : profile.kernels->attention) {
    model.grouped_traffic = number(bytes);
    model.grouped_launch = number(launch);
  }
  AttentionShape shape = block(queries_of_block, keys_of_block);
  const double more = bytes * keys_of_block * shape.heads * shape.head_dim;
  for (const Phase phase : {Phase::forward, Phase::backward}) {
    const auto load = [&](double key_heads) {
      shape.kv_heads = key_heads;
      return load_of(shape, phase, profile);
    };
    const KernelLoad grouped = load(shape.heads / 2), alone = load(shape.heads);
    CHECK_THAT((grouped.unclocked - alone.unclocked).si(),
               WithinRel(launch + more / memory_rate(*profile.kernels, round_peaks).si(), 1e-9));
    const double fewer = attention_bytes(shape, phase).si();  // of all key heads
    shape.kv_heads = shape.heads / 2;
    CHECK_THAT((grouped.hbm_traffic - alone.hbm_traffic).si(),
               WithinRel(more - (fewer - attention_bytes(shape, phase).si()), 1e-9));
  }
}
