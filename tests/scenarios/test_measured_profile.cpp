// What a profile's file may say of measured kernels.
#include "scenarios/measured_profile.hpp"

#include <fmt/format.h>

#include "tests/catch.hpp"
#include "tests/cost_models/measured_models.hpp"

using namespace orrery;

namespace {

std::string profile_text() {
  Profile p = measured_profile();
  const auto name_units = [](auto& model, const auto& list) {
    for (const auto& constant : list) (model.*constant.member).unit = constant.unit;
  };
  MeasuredKernels& k = *p.kernels;
  k.clock.burst_clock = k.clock.maximum_clock = number(1.8e9);
  k.clock.power_limit = number(700);
  name_units(k.clock, constants_of_clock());
  for (AttentionModel& model : k.attention) {
    for (const auto& constant : constants_of_attention()) {
      if ((model.*constant.member).source.empty()) model.*constant.member = number(0);
    }
    name_units(model, constants_of_attention());
    name_units(model.power, constants_of_power());
  }
  for (StreamModel& stream : k.streams) name_units(stream, constants_of_stream());
  k.bands.push_back({.group = "attention forward",
                     .inside = 0.03,
                     .outside = 0.06,
                     .least = 1e9,
                     .most = 1e13,
                     .rows = 9,
                     .least_queries = 512,
                     .most_queries = 131072,
                     .least_keys = 1024,
                     .most_keys = 65536});
  k.bands.push_back({"gemm", 0.05, 0.1, 1e9, 1e15, 9, "as another"});
  k.runs.push_back({"orrery_ring", "nccl", {"ring"}, 1.5, 9, 4, 0.001, 2, "ring.csv", {"causal zigzag", "full"}});
  return write_profile(p, "h200_sxm", "test", "test");
}

MeasuredKernels kernels_of(const std::string& text) {
  return read_measured_kernels(Table::parse(text, "p.toml").table("kernels"));
}

std::string exchanged(std::string text, const std::string& from, const std::string& to) {
  REQUIRE(text.find(from) != std::string::npos);
  return text.replace(text.find(from), from.size(), to);
}

}  // namespace

TEST_CASE("a profile that was written is read again, with the bands and whose they are") {
  const MeasuredKernels kernels = kernels_of(profile_text());
  CHECK(kernels.band_of("gemm")->inside == 0.05);
  CHECK(kernels.band_of("gemm")->source == "as another");
  CHECK(kernels.band_of("gemm")->most_keys == ErrorBand::unlimited);
  const ErrorBand& attention = *kernels.band_of("attention forward");
  CHECK(attention.least_queries == 512);
  CHECK(attention.most_queries == 131072);
  CHECK(attention.least_keys == 1024);
  CHECK(attention.most_keys == 65536);
  CHECK_FALSE(attention.causal_rectangles);
  CHECK(kernels.runs.front().masks == std::vector<std::string>{"causal zigzag", "full"});
  CHECK(kernels.clock.power_limit.value == 700);
}

TEST_CASE("a constant of 0 is refused where nothing would run or end, with its place") {
  const std::string text = profile_text();
  for (const char* key : {"maximum_clock", "burst_clock", "idle_power", "power_exponent", "power_lag",
                          "tensor_flops_per_cycle", "full_tile", "masked_tile", "tensor_power", "bandwidth"}) {
    INFO(key);
    const auto at = text.find(std::string("\n") + key + " = {value = ") + 1;
    const auto value = text.find("value = ", at) + 8;
    std::string zero = text;
    zero.replace(value, text.find(',', value) - value, "0");
    CHECK_THROWS_WITH(kernels_of(zero),
                      ContainsSubstring("p.toml:") && ContainsSubstring(key) && ContainsSubstring("fit anew"));
  }
}

TEST_CASE("a clock above the highest, a limit below what an idle GPU draws and a head_dim given twice are refused") {
  const std::string text = profile_text();
  const auto with = [&](const std::string& key, const std::string& value) {
    const auto at = text.find("\n" + key + " = {value = ") + 1;
    const auto begin = text.find("value = ", at) + 8;
    return std::string(text).replace(begin, text.find(',', begin) - begin, value);
  };
  const double maximum = 1.8e9, idle = kernels_of(text).clock.idle_power.value;
  CHECK_THROWS_WITH(kernels_of(with("burst_clock", fmt::format("{}", 1.01 * maximum))),
                    ContainsSubstring("burst_clock") && ContainsSubstring("above maximum_clock"));
  CHECK_NOTHROW(kernels_of(with("burst_clock", fmt::format("{}", maximum))));
  CHECK_THROWS_WITH(kernels_of(with("power_limit", fmt::format("{}", idle))),
                    ContainsSubstring("power_limit") && ContainsSubstring("not above idle_power"));
  const auto begin = text.find("[[kernels.attention]]"), end = text.find("[[", begin + 2);
  REQUIRE(end != std::string::npos);
  CHECK_THROWS_WITH(kernels_of(std::string(text).insert(end, text.substr(begin, end - begin))),
                    ContainsSubstring("head_dim = 128 stands there twice"));
}

TEST_CASE("bands that are no intervals are refused") {
  const std::string text = profile_text();
  CHECK_THROWS_WITH(kernels_of(exchanged(text, "inside = 0.05", "inside = 1.5")), ContainsSubstring("inside = 1.5"));
  CHECK_THROWS_WITH(kernels_of(exchanged(text, "inside = 0.05", "inside = -0.05")),
                    ContainsSubstring("inside = -0.05"));
  CHECK_THROWS_WITH(kernels_of(exchanged(text, "outside = 0.1", "outside = 0.01")),
                    ContainsSubstring("outside = 0.01"));
  CHECK_THROWS_WITH(kernels_of(exchanged(text, "factor = 1.5", "factor = 1e300")),
                    ContainsSubstring("factor = 1e+300"));
  CHECK_THROWS_WITH(kernels_of(exchanged(text, "factor = 1.5", "factor = -1")), ContainsSubstring("factor = -1"));
  CHECK_THROWS_WITH(kernels_of(exchanged(text, "most_keys = 65536", "most_keys = 1")),
                    ContainsSubstring("1024 to 1 keys"));
  CHECK_THROWS_WITH(kernels_of(exchanged(text, "longest_s = 2", "longest_s = -2")),
                    ContainsSubstring("0.001 to -2 s is empty"));
}
