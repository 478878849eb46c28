// Text to quantities and back.
#include <limits>
#include <string>
#include <type_traits>

#include "sim/units.hpp"
#include "tests/catch.hpp"

using namespace orrery;

TEST_CASE("Decimal prefixes are powers of ten and binary ones powers of two") {
  CHECK(parse_bytes("80 GB").si() == 80e9);
  CHECK(parse_bytes("80 GiB").si() == 80.0 * 1024 * 1024 * 1024);
  CHECK(parse_bytes("1 kB").si() == 1e3);
  CHECK(parse_bytes("1 KiB").si() == 1024);
  CHECK(parse_bandwidth("450 GB/s").si() == 450e9);
  CHECK(parse_bandwidth("400 Gbit/s").si() == 50e9);
  CHECK(parse_flop_rate("989.4 TFLOP/s").si() == 989.4e12);
  CHECK(parse_power("700 W").si() == 700);
  CHECK(parse_power("1.2 kW").si() == 1200);
}

TEST_CASE("Every unit of size, bandwidth, FLOP rate and power is its prefix times the unit") {
  double decimal = 1e3, binary = 1024;
  for (const std::string prefix : {"k", "M", "G", "T"}) {
    const std::string upper = prefix == "k" ? "K" : prefix;
    INFO(prefix);
    CHECK(parse_bytes("1 " + prefix + "B").si() == decimal);
    CHECK(parse_bytes("1 " + upper + "iB").si() == binary);
    CHECK(parse_bandwidth("1 " + prefix + "B/s").si() == decimal);
    CHECK(parse_bandwidth("1 " + upper + "iB/s").si() == binary);
    if (prefix != "k") CHECK(parse_bandwidth("8 " + prefix + "bit/s").si() == decimal);
    if (prefix == "G" || prefix == "T") CHECK(parse_flop_rate("1 " + prefix + "FLOP/s").si() == decimal);
    if (prefix == "k" || prefix == "M") CHECK(parse_power("1 " + prefix + "W").si() == decimal);
    decimal *= 1e3, binary *= 1024;
  }
  CHECK(parse_bytes("1 B").si() == 1);
  CHECK(parse_bandwidth("1 B/s").si() == 1);
  CHECK(parse_flop_rate("1 FLOP/s").si() == 1);
  CHECK(parse_flop_rate("1 PFLOP/s").si() == 1e15);
  CHECK(parse_flop_rate("1 EFLOP/s").si() == 1e18);
}

TEST_CASE("Every unit of time is known, with and without a blank, and surrounding blanks do not matter") {
  CHECK(parse_seconds("1 s").si() == 1);
  CHECK(parse_seconds("1.5ms").si() == 1.5e-3);
  CHECK(parse_seconds(" 2 us ").si() == 2e-6);
  CHECK(parse_seconds("3 ns").si() == 3e-9);
  CHECK(parse_seconds("4 ps").si() == 4e-12);
  CHECK(parse_seconds("2 min").si() == 120);
  CHECK(parse_seconds("1 h").si() == 3600);
  CHECK(parse_seconds("1e-6 s").si() == 1e-6);
  CHECK(parse_seconds("0 s").si() == 0);
}

TEST_CASE("A missing, unknown or ambiguous unit, a negative value and a non-number are refused with a reason") {
  CHECK_THROWS_WITH(parse_seconds("5"), ContainsSubstring("has no unit"));
  CHECK_THROWS_WITH(parse_seconds("5 GB"), ContainsSubstring("is not a unit of a time"));
  CHECK_THROWS_WITH(parse_bandwidth("400 Gb/s"), ContainsSubstring("ambiguous") && ContainsSubstring("Gbit/s"));
  CHECK_THROWS_WITH(parse_bandwidth("450 GB"), ContainsSubstring("known: B/s"));
  CHECK_THROWS_WITH(parse_flop_rate("989 TFLOPS"), ContainsSubstring("ambiguous"));
  CHECK_THROWS_WITH(parse_bytes("5 KB"), ContainsSubstring("ambiguous"));
  CHECK_THROWS_WITH(parse_bytes("-5 GB"), ContainsSubstring("negative"));
  CHECK_THROWS_AS(parse_bytes("fast"), UnitError);
  CHECK_THROWS_AS(parse_bytes(""), UnitError);
  CHECK_THROWS_AS(parse_bytes("inf GB"), UnitError);
  CHECK_THROWS_AS(parse_bytes("nan GB"), UnitError);
  CHECK_THROWS_AS(parse_bytes("1e308 TB"), UnitError);  // infinite in bytes
  CHECK_THROWS_WITH(parse_bytes("1e309 B"), ContainsSubstring("beyond 1e308"));
  CHECK_THROWS_WITH(parse_count("1e309"), ContainsSubstring("beyond 1e308"));
}

TEST_CASE("Counts are whole numbers, and K, M, G are powers of 1024") {
  CHECK(parse_count("4096") == 4096);
  CHECK(parse_count("1e6") == 1'000'000);
  CHECK(parse_count("128K") == 128 * 1024);
  CHECK(parse_count("1M") == 1 << 20);
  CHECK(parse_count("1G") == 1 << 30);
  CHECK(parse_count("0.5K") == 512);
  CHECK(parse_count("0") == 0);
  CHECK(parse_count("9007199254740991") == (std::int64_t{1} << 53) - 1);
  for (const auto* text : {"-1", "1.5", "", "many", "1T", "1 token", "9007199254740992", "nan", "inf"}) {
    CAPTURE(text);
    CHECK_THROWS_AS(parse_count(text), UnitError);
  }
}

TEST_CASE("Times are rounded once, to the nearest picosecond, and those that do not fit are refused") {
  CHECK(to_ticks(Seconds::from_si(1)) == 1'000'000'000'000);
  CHECK(to_ticks(Seconds::from_si(1.4e-12)) == 1);
  CHECK(to_ticks(Seconds::from_si(1.5e-12)) == 2);
  CHECK(to_ticks(Seconds::from_si(0)) == 0);
  CHECK(to_ticks(Seconds::from_si(9.2e6)) == 9'200'000'000'000'000'000);
  CHECK_THROWS_AS(to_ticks(Seconds::from_si(9.3e6)), std::overflow_error);
  CHECK_THROWS_AS(to_ticks(Seconds::from_si(-1)), std::overflow_error);
  CHECK_THROWS_AS(to_ticks(Seconds::from_si(std::numeric_limits<double>::quiet_NaN())), std::overflow_error);
  CHECK(to_seconds(1'500'000).si() == 1.5e-6);
}

TEST_CASE("Quantities are printed with four digits in the largest unit that leaves one before the point") {
  CHECK(format(Seconds::from_si(1.2345e-3)) == "1.234 ms");
  CHECK(format(Seconds::from_si(0)) == "0 s");
  CHECK(format(Seconds::from_si(999.96e-6)) == "1 ms");
  CHECK(format(Seconds::from_si(4e-12)) == "4 ps");
  CHECK(format(Bytes::from_si(1.27e9)) == "1.27 GB");
  CHECK(format(Bytes::from_si(0)) == "0 B");
  CHECK(format(BytesPerSecond::from_si(450e9)) == "450 GB/s");
  CHECK(format(FlopsPerSecond::from_si(989e12)) == "989 TFLOP/s");
  CHECK(format(Flops::from_si(2e21)) == "2 ZFLOP");
  CHECK(format(Watts::from_si(700)) == "700 W");
}

TEST_CASE("What is printed can be parsed again") {
  for (const double value : {1e-12, 3.5e-9, 1e-6, 0.25, 7.0, 1234.0}) {
    CHECK_THAT(parse_seconds(format(Seconds::from_si(value))).si(), WithinRel(value, 1e-3));
  }
  for (const double value : {1.0, 1e3, 2.5e6, 80e9, 1.5e12}) {
    CHECK_THAT(parse_bytes(format(Bytes::from_si(value))).si(), WithinRel(value, 1e-3));
    CHECK_THAT(parse_bandwidth(format(BytesPerSecond::from_si(value))).si(), WithinRel(value, 1e-3));
  }
}

TEST_CASE("Products and quotients carry their dimension") {
  STATIC_REQUIRE(std::is_same_v<decltype(Bytes{} / Seconds{}), BytesPerSecond>);
  STATIC_REQUIRE(std::is_same_v<decltype(Bytes{} / BytesPerSecond{}), Seconds>);
  STATIC_REQUIRE(std::is_same_v<decltype(Flops{} / Bytes{}), FlopsPerByte>);
  STATIC_REQUIRE(std::is_same_v<decltype(Bytes{} / Bytes{}), double>);
  CHECK((Bytes::from_si(90e9) / BytesPerSecond::from_si(450e9)).si() == 0.2);
}
