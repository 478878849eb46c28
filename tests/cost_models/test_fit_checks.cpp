// Rows that nobody can have measured: beyond the hardware, or in contradiction to others.
#include "cost_models/fit_checks.hpp"

#include <fmt/format.h>

#include "tests/catch.hpp"

using namespace orrery;

namespace {

/// Tensor cores of 100 * 4096 FLOPs a cycle, at most 1 GHz.
FitFacts made_facts() {
  return {.peaks = {FlopsPerSecond::from_si(100 * 4096 * 1e9), BytesPerSecond::from_si(1e12), 100},
          .cache = Bytes::from_si(1e7),
          .maximum_clock_hz = 1e9,
          .power_limit_w = 500,
          .idle_power_w = 100,
          .source = "made",
          .links = {{"wire", BytesPerSecond::from_si(1e11)}}};
}

MeasuredKernel made_row(MeasuredKernel::Kind kind, double work, double seconds) {
  MeasuredKernel k;
  k.kind = kind;
  k.family = k.shape = "made";
  k.place = "a/rows.csv:2";
  k.work = work;
  k.bytes = Bytes::from_si(work);
  k.dense.products = {{1, 1, work / 2}};
  k.link = "wire";
  k.op = "send_recv";
  k.time = Seconds::from_si(seconds);
  return k;
}

MeasuredKernel message_of(double bytes, double seconds, const std::string& file = "a/links.csv") {
  MeasuredKernel k = made_row(MeasuredKernel::Kind::message, bytes, seconds);
  k.place = fmt::format("{}:{:.0f}", file, bytes);
  return k;
}

template <class Check>
bool passes(Check check) {
  try {
    check();
    return true;
  } catch (const FitError&) {
    return false;
  }
}

bool rates_pass(const std::vector<MeasuredKernel>& rows) {
  return passes([&] { check_rates(rows, made_facts()); });
}

bool messages_pass(const std::vector<MeasuredKernel>& rows) {
  return passes([&] { check_messages(rows); });
}

}  // namespace

TEST_CASE(
    "no row is a quarter faster than the tensor cores at its clock, HBM without what the cache holds, or its link") {
  using enum MeasuredKernel::Kind;
  const double least = 10e-3 / 1.24, too_little = 10e-3 / 1.26;
  MeasuredKernel product = made_row(gemm, 4096e9, least);  // 10 ms at 1 GHz
  CHECK(rates_pass({product}));
  product.clock_hz = 0.98e9;  // it would need 10.2 ms
  CHECK_FALSE(rates_pass({product}));
  // Of as many FLOPs attention may leave out the pairs that nobody sees.
  MeasuredKernel block = made_row(attention, 4096e9, least);
  block.attention = {.pairs = 3 * 1024e9, .heads = 1, .head_dim = 1, .masked_pairs = 1024e9, .pairs_beyond = 1024e9};
  CHECK(rates_pass({block}));
  block.time = Seconds::from_si(too_little);
  CHECK_FALSE(rates_pass({block}));
  // A cache of 10 MB may spare as much of what is read and of what is written: 100 of 120 MB remain, at 1 TB/s.
  CHECK(rates_pass({made_row(stream, 1.2e8, least / 100)}));
  CHECK_FALSE(rates_pass({made_row(stream, 1.2e8, too_little / 100)}));
  MeasuredKernel copy = made_row(message, 0.6e8, least / 100);  // inside a GPU: each byte is read and written
  copy.link = "local";
  CHECK(rates_pass({copy}));
  copy.time = Seconds::from_si(too_little / 100);
  CHECK_FALSE(rates_pass({copy}));
  CHECK(rates_pass({made_row(message, 1e9, least)}));
  CHECK_FALSE(rates_pass({made_row(message, 1e9, too_little)}));
  // Of four ranks each sends three quarters of its bytes to others, or gets those of three others.
  MeasuredKernel collective = made_row(message, 1e9, 0.75 * least);
  collective.ranks = 4;
  collective.op = "all_to_all 4 ranks";
  CHECK(rates_pass({collective}));
  collective.op = "all_gather 4 ranks";
  CHECK_FALSE(rates_pass({collective}));
  collective.link = "of nobody";
  CHECK(rates_pass({collective}));
}

TEST_CASE("what the cache may hold is no reason to be slow: rows that it holds whole count with all their bytes") {
  using enum MeasuredKernel::Kind;
  // 15 MB, of which a cache of 10 MB may spare all, at 1 TB/s: 15 us.
  CHECK(rates_pass({made_row(stream, 1e5, 2e-6), made_row(stream, 15e6, 20e-6)}));
  CHECK(rates_pass({made_row(stream, 1e5, 2e-6), made_row(stream, 15e6, 5e-6)}));
  CHECK_FALSE(rates_pass({made_row(stream, 1e5, 2e-6), made_row(stream, 15e6, 101 * 15e-6)}));
}

TEST_CASE("the largest row of a family reaches a hundredth of what the hardware can, once it has started") {
  const double start = 20e-6;
  CHECK(rates_pass({message_of(1e3, start), message_of(1e6, 2 * start)}));         // all start
  CHECK(rates_pass({message_of(1e3, start), message_of(1e9, 0.9)}));               // 1.1 GB/s of 100
  CHECK_FALSE(rates_pass({message_of(1e3, start), message_of(1e9, 1.1)}));         // 0.9
  CHECK_FALSE(rates_pass({message_of(1, start), message_of(1e6, 1e9 / 0.5e11)}));  // 1 GB at half the rate, in kB
  CHECK_THROWS_WITH(
      check_rates(std::vector{message_of(1e3, start), message_of(1e9, 1.1)}, made_facts()),
      ContainsSubstring("a/links.csv:1000000000") && ContainsSubstring("wire at 100 GB/s would need 10 ms"));
}

TEST_CASE("as many bytes take as long, more not much less, and not much more than in proportion") {
  const auto agree = [](double ratio_of_bytes, double ratio_of_times) {
    return messages_pass(
        {message_of(1e6, 1e-3), message_of(1e6 * ratio_of_bytes, 1e-3 * ratio_of_times, "b/links.csv")});
  };
  CHECK(agree(1, 1.5));
  CHECK_FALSE(agree(1, 1.7));
  CHECK_FALSE(agree(1, 1 / 1.7));
  CHECK(agree(1.5, 1 / 1.9));  // twice as many channels
  CHECK_FALSE(agree(1.5, 1 / 2.1));
  CHECK(agree(4, 7.9));
  CHECK_FALSE(agree(4, 8.1));
}

TEST_CASE("a row that contradicts its neighbours is named, a file in another unit with how many times it is off") {
  std::vector<MeasuredKernel> rows;
  for (double bytes = 1e6; bytes < 1e8; bytes *= 2) rows.push_back(message_of(bytes, 1e-5 + bytes / 5e10));
  CHECK(messages_pass(rows));
  for (const double factor : {3.0, 1 / 3.0}) {
    std::vector<MeasuredKernel> wrong = rows;
    wrong[2].time = wrong[2].time * factor;
    CHECK_THROWS_WITH(check_messages(wrong), Catch::Matchers::StartsWith(wrong[2].place));
  }
  for (const auto& [factor, said] : {std::pair(1000.0, "about 1000 times"), std::pair(2.0, "about 2.0 times")}) {
    std::vector<MeasuredKernel> both = rows;
    for (const MeasuredKernel& right : rows)
      both.push_back(message_of(right.bytes.si(), right.time.si() * factor, "b/l.csv"));
    CHECK_THROWS_WITH(check_messages(both), ContainsSubstring("b/l.csv: its messages take " + std::string(said)) &&
                                                ContainsSubstring("of a/links.csv"));
  }
}

TEST_CASE("no GPU takes less power than at idle or half as much again as its limit, or runs beyond its maximum clock") {
  const auto is_possible = [](const std::string& power, const std::string& clock) {
    const std::string text = fmt::format("gpu,power_w,sm_clock_mhz,status\nh,{},{},ok\n", power, clock);
    try {
      check_conditions(MeasuredTable::parse(text, "rows.csv"), made_facts());
      return true;
    } catch (const FitError& error) {
      CHECK_THAT(error.what(), ContainsSubstring("rows.csv:2: "));
      return false;
    }
  };
  for (const char* power : {"", "97", "585"}) CHECK(is_possible(power, "1000"));  // as far as was measured
  for (const char* power : {"0", "0.3", "75", "800", "300000"}) CHECK_FALSE(is_possible(power, "1000"));
  for (const char* clock : {"", "590", "1013"}) CHECK(is_possible("300", clock));
  for (const char* clock : {"1", "1500", "1e9"}) CHECK_FALSE(is_possible("300", clock));
}

TEST_CASE("a kind whose held-out rows are off by more than a quarter in the median is refused") {
  HeldOutErrors errors{.group = "attention forward", .fitted = 6, .held_out = 12, .mean = 0.4, .median = 0.24};
  CHECK_NOTHROW(check_held_out(std::vector{errors}));
  errors.median = 0.26;
  CHECK_THROWS_WITH(check_held_out(std::vector{errors}), ContainsSubstring("attention forward: half of the 12 rows"));
  errors.held_out = 0;  // nothing was left out
  CHECK_NOTHROW(check_held_out(std::vector{errors}));
}
