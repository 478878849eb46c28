// What measured constants say of an attention kernel: its tiles, its lists, and what comes before them.
#include "cost_models/kernel_cost.hpp"

#include <algorithm>
#include <cmath>

#include "cost_models/measured_kernels.hpp"
#include "tests/catch.hpp"
#include "tests/cost_models/measured_models.hpp"

using namespace orrery;

namespace {

/// A block of 2 heads.
AttentionShape block(const MaskShape& mask) {
  const TilePairs pairs = tile_pairs(mask, 128, 128);
  return {.pairs = pairs.executed,
          .query_rows = mask.n_q,
          .key_rows = mask.n_k,
          .heads = 2,
          .kv_heads = 2,
          .head_dim = 128,
          .masked_pairs = pairs.masked,
          .pairs_beyond = pairs.beyond,
          .window = mask.mask == "window"};
}
AttentionShape block(double n_q, double n_k, double window = 0) {
  return block({n_q, n_k, window > 0 ? "window" : "full", window});
}

KernelLoad load_of(const AttentionShape& shape, Phase phase, const Profile& profile) {
  return attention_load(shape, *profile.kernels->attention_of(phase, 128), *profile.kernels, test_peaks, 128, 128);
}

/// Cycles of such a block, as a row of a measured file has it.
double cycles_of(Phase phase, const MaskShape& mask, double masked_tile = 2000) {
  Profile profile = measured_profile();
  for (AttentionModel& model : profile.kernels->attention) model.masked_tile = number(masked_tile);
  return load_of(block(mask), phase, profile).cycles;
}

}  // namespace

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

TEST_CASE("of a whole rectangle under a mask, three of five backward products are with the zeros of what is hidden") {
  AttentionShape shape = masked_rectangle(6);
  Profile profile = measured_profile();
  profile.kernels->attention.back().rectangle_edge = number(300);
  const KernelLoad load = load_of(shape, Phase::backward, profile);
  const double all = 256 * 512, seen = shape.pairs - shape.masked_pairs, flops_of_pair = 10 * 128;
  CHECK_THAT(load.flops.si(), WithinRel(all * flops_of_pair, 1e-12));
  CHECK_THAT(load.with_zeros.si(), WithinRel(3.0 / 5 * (all - seen) * flops_of_pair, 1e-12));
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
    return (attention_cost(shape, Phase::forward, test_peaks, profile).duration.si() - 5e-6) * test_clock;
  };
  const double at_64 = 800 + 2 * 1500, at_128 = 1000 + 2 * 2000;  // lists of two tiles, all at once
  CHECK_THAT(cycles(64), WithinRel(at_64, 1e-9));
  CHECK_THAT(cycles(96), WithinRel((at_64 + at_128) / 2, 1e-9));
  CHECK_THAT(cycles(80), WithinRel(at_64 + (at_128 - at_64) / 4, 1e-9));
  CHECK_THAT(cycles(128), WithinRel(at_128, 1e-9));
  CHECK_THAT(cycles(256), WithinRel(at_128 * 2, 1e-9));
  CHECK_THAT(cycles(32), WithinRel(at_64 / 2, 1e-9));
}
