// Tile lists on SMs, against schedules done by hand.
#include "cost_models/attention_tiles.hpp"

#include <cmath>

#include "tests/catch.hpp"
#include "tests/cost_models/measured_models.hpp"

using namespace orrery;

namespace {
const TileCycles cycles{1000, 2000, 3000};
constexpr int sms = 10;

TileLists full_block(std::int64_t lists, double length, std::int64_t heads) {
  return {.lists = lists, .longest = length, .tiles = static_cast<double>(lists) * length, .heads = heads};
}
}  // namespace

TEST_CASE("equal lists take whole waves: one list more than the SMs costs a wave") {
  const double list = 1000 + 4 * 2000;
  CHECK(makespan(full_block(10, 4, 1), cycles, sms).cycles == list);
  CHECK(makespan(full_block(11, 4, 1), cycles, sms).cycles == 2 * list);
  CHECK(makespan(full_block(5, 4, 4), cycles, sms).cycles == 2 * list);
  CHECK(makespan(full_block(5, 4, 4), cycles, sms - 1).cycles == 3 * list);
}

TEST_CASE("the tail of a kernel is its last wave, if that leaves enough SMs without work") {
  const double list = 1000 + 4 * 2000;
  // 15 lists on 10 SMs: five SMs have nothing to do in the second wave.
  CHECK(makespan(full_block(15, 4, 1), cycles, sms, 5).tail == list);
  CHECK(makespan(full_block(15, 4, 1), cycles, sms, 6).tail == 0);
  // Lists of 1, 2, 3 tiles of a cycle, longest first, on three SMs: they end at 3, 2 and 1.
  const TileLists causal{.lists = 3, .longest = 3, .tiles = 6, .heads = 1, .longest_first = true};
  CHECK_THAT(makespan(causal, {0, 1, 1}, 3, 1).tail, WithinRel(2.0, 1e-6));
  CHECK_THAT(makespan(causal, {0, 1, 1}, 3, 2).tail, WithinRel(1.0, 1e-6));
}

TEST_CASE("SMs are busy for the work of all lists, shared by all of them") {
  const double list = 1000 + 4 * 2000;
  CHECK_THAT(makespan(full_block(15, 4, 1), cycles, sms).busy, WithinRel(15 * list / sms, 1e-12));
  const TileLists causal{.lists = 3, .longest = 3, .tiles = 6, .heads = 2, .longest_first = true};
  CHECK_THAT(makespan(causal, {0, 1, 1}, 3).busy, WithinRel(2 * 6 / 3.0, 1e-6));
  const TileLists alone{.lists = 3, .longest = 3, .tiles = 6, .heads = 1, .longest_first = true};  // 3, 2 and 1 tiles
  CHECK_THAT(makespan(alone, {0, 1, 1}, 3).cycles, WithinRel(3.0, 1e-6));
  CHECK_THAT(makespan(alone, {0, 1, 1}, 3).busy, WithinRel(6 / 3.0, 1e-6));
}

TEST_CASE("a masked tile costs its own cycles in place of a full tile's") {
  TileLists lists = full_block(10, 4, 1);
  lists.masked_tiles = 10;  // one in each list
  CHECK(makespan(lists, cycles, sms).cycles == 1000 + 3 * 2000 + 3000);
}

TEST_CASE("a causal square of one head on many SMs takes its longest list") {
  // Lists of 1, 2, 3, 4 tiles, one masked each.
  const TileLists causal{.lists = 4, .longest = 4, .tiles = 10, .masked_tiles = 4, .heads = 1};
  CHECK_THAT(makespan(causal, cycles, sms).cycles, WithinRel(1000.0 + 3 * 2000 + 3000, 1e-6));
}

TEST_CASE("list scheduling takes lists in order: longest first ends sooner than shortest first") {
  // Lists of 1, 2, 3 tiles without a start cost, one cycle a tile, on two SMs: shortest first the SMs end at 1 + 3 = 4
  // and 2; longest first both at 3.
  const TileCycles one{0, 1, 1};
  TileLists causal{.lists = 3, .longest = 3, .tiles = 6, .heads = 1};
  CHECK_THAT(makespan(causal, one, 2).cycles, WithinRel(4.0, 1e-6));
  causal.longest_first = true;
  CHECK_THAT(makespan(causal, one, 2).cycles, WithinRel(3.0, 1e-6));
}

TEST_CASE("a window's lists grow to its width and stay there") {
  // Ten lists of 1, 2, 2, ..., 2 tiles on ten SMs: the longest has two.
  const TileCycles one{0, 1, 1};
  const TileLists window{.lists = 10, .longest = 10, .tiles = 19, .heads = 1};
  CHECK_THAT(makespan(window, one, 10).cycles, WithinRel(2.0, 1e-6));
}

TEST_CASE("beyond the exact limit a makespan is the work of all SMs and at most one list more") {
  const std::int64_t n = 1 << 12;
  const double tiles = static_cast<double>(n) * (static_cast<double>(n) + 1) / 2;
  for (const std::int64_t heads : {1, 3, 5, 64}) {
    const TileLists causal{.lists = n, .longest = static_cast<double>(n), .tiles = tiles, .heads = heads};
    const double work = (static_cast<double>(n) * 1000 + tiles * 2000) * static_cast<double>(heads);
    const double end = makespan(causal, cycles, sms).cycles;
    CHECK(end >= work / sms * (1 - 1e-9));
    CHECK(end <= work / sms + 1000 + static_cast<double>(n) * 2000);
  }
}

TEST_CASE("an attention kernel takes launch, streams at the rate of copies, and its tiles at the clock") {
  // 512 x 256, one head: forward 4 lists of 2 tiles; backward 2 lists of 4 tiles, and 16 B per element of Q.
  const AttentionShape shape{
      .pairs = 512 * 256, .query_rows = 512, .key_rows = 256, .heads = 1, .kv_heads = 1, .head_dim = 128};
  const Profile profile = measured_profile();
  CHECK_THAT(attention_cost(shape, Phase::forward, test_peaks, profile).duration.si(),
             WithinRel(5e-6 + (1000 + 2 * 2000) / test_clock, 1e-6));
  CHECK_THAT(attention_cost(shape, Phase::backward, test_peaks, profile).duration.si(),
             WithinRel(5e-6 + 16 * 512 * 128 / 4e12 + (1000 + 4 * 2000) / test_clock, 1e-6));
}

TEST_CASE("grouped keys cost the backward pass the sums over query heads") {
  AttentionShape shape{
      .pairs = 256 * 256, .query_rows = 256, .key_rows = 256, .heads = 4, .kv_heads = 4, .head_dim = 128};
  const Profile profile = measured_profile();
  const Seconds alone = attention_cost(shape, Phase::backward, test_peaks, profile).duration;
  shape.kv_heads = 2;
  const Seconds grouped = attention_cost(shape, Phase::backward, test_peaks, profile).duration;
  CHECK_THAT((grouped - alone).si(), WithinRel(4.0 * 256 * 4 * 128 / 4e12, 1e-6));
}

TEST_CASE("a kernel that goes through all of a masked rectangle takes a mask's edges more for every tile") {
  // 256 queries on 512 keys: 2 x 4 tiles. Backward four lists of two tiles on SMs enough; a window has two edges.
  AttentionShape shape = masked_rectangle(6);
  Profile profile = measured_profile();
  const auto seconds = [&] { return attention_cost(shape, Phase::backward, test_peaks, profile).duration.si(); };
  const double streams = 5e-6 + 16 * 256 * 128 / 4e12;
  profile.kernels->attention.back().rectangle_edge = number(300);
  CHECK_THAT(seconds(), WithinRel(streams + (1000 + 2 * (2000 + 300)) / test_clock, 1e-6));
  shape.window = true;
  CHECK_THAT(seconds(), WithinRel(streams + (1000 + 2 * (2000 + 2 * 300)) / test_clock, 1e-6));
  // Of as many keys as queries it skips what is masked: one list of two tiles and one of one.
  shape = {.pairs = 3 * 128 * 128, .query_rows = 256, .key_rows = 256, .heads = 1, .kv_heads = 1, .head_dim = 128};
  const double without = seconds();
  profile.kernels->attention.back().rectangle_edge = number(0);
  CHECK(seconds() == without);
}

TEST_CASE("a kernel that skips what is masked of a rectangle has lists that start later") {
  // 256 queries on 512 keys, causal: lists of three and four tiles, of which each has one on the diagonal.
  const AttentionShape shape = masked_rectangle(7);
  Profile profile = measured_profile();
  const auto seconds = [&] { return attention_cost(shape, Phase::forward, test_peaks, profile).duration.si(); };
  const double before = seconds();
  profile.kernels->attention.front().rectangle_start = number(700);
  CHECK_THAT(seconds() - before, WithinRel(700 / test_clock, 1e-6));
}

TEST_CASE("forward, lists of a window with a halo are as long as each other") {
  // Two lists of two tiles, on SMs enough: the first has its halo before it.
  AttentionShape shape = masked_rectangle(4);
  shape.window = true;
  shape.masked_pairs = 1e-9;
  CHECK_THAT(attention_cost(shape, Phase::forward, test_peaks, measured_profile()).duration.si(),
             WithinRel(5e-6 + (1000 + 2 * 2000) / test_clock, 1e-6));
}

TEST_CASE("keys in front of the queries lie in every list: a causal rectangle's grow by a tile each from there") {
  // Four lists of 5, 6, 7 and 8 tiles, on as many SMs and on two: 5 then 7, 6 then 8.
  const TileCycles one{0, 1, 1};
  const TileLists causal{.lists = 4, .longest = 8, .tiles = 26, .lead = 4, .heads = 1};
  CHECK_THAT(makespan(causal, one, 4).cycles, WithinRel(8.0, 1e-6));
  CHECK_THAT(makespan(causal, one, 2).cycles, WithinRel(14.0, 1e-6));
  // Under a window that the keys in front fill, all are as long: 4 x 3 tiles.
  const TileLists window{.lists = 4, .longest = 8, .tiles = 12, .lead = 4, .heads = 1};
  CHECK_THAT(makespan(window, one, 4).cycles, WithinRel(3.0, 1e-6));
}

TEST_CASE("a streaming kernel goes at one rate as far as the cache holds and at another beyond") {
  const StreamModel model{"copy", number(2e-6), number(4e12), number(8e12), number(5e7)};
  CHECK_THAT(model.time(Bytes::from_si(4e7)).si(), WithinRel(2e-6 + 4e7 / 8e12, 1e-12));
  CHECK_THAT(model.time(Bytes::from_si(1e9)).si(), WithinRel(2e-6 + 5e7 / 8e12 + 9.5e8 / 4e12, 1e-12));
}

TEST_CASE("types that were not measured keep to the roofline") {
  AttentionShape shape{.pairs = 1e6, .query_rows = 1, .key_rows = 1, .heads = 1, .kv_heads = 1, .head_dim = 128};
  shape.element_bytes = 4;
  CHECK_THAT(attention_cost(shape, Phase::forward, test_peaks, measured_profile()).duration.si(),
             WithinRel(4 * 1e6 * 128 / 1e14, 1e-12));
}

TEST_CASE(
    "equal lists start together in the first wave and have drifted apart after many, others start together once") {
  const double drift = 5, first = drift * (1 - std::exp(-1 / drift));
  CHECK(starts_in_step(full_block(10, 4, 1), sms, 0) == 0);
  CHECK_THAT(starts_in_step(full_block(10, 4, 1), sms, drift), WithinRel(first, 1e-12));
  CHECK_THAT(starts_in_step(full_block(10, 4, 1000), sms, drift), WithinRel(drift, 1e-12));
  // Five lists load half as much as ten.
  CHECK_THAT(starts_in_step(full_block(5, 4, 1), sms, drift), WithinRel(first / 2, 1e-12));
  const TileLists causal{.lists = 4, .longest = 4, .tiles = 10, .heads = 1000};
  CHECK_THAT(starts_in_step(causal, sms, drift), WithinRel(first, 1e-12));
}
