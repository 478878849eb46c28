#include "sim/units.hpp"

#include <fmt/format.h>

#include <array>
#include <charconv>
#include <cmath>
#include <limits>
#include <span>

namespace orrery {
namespace {

struct Unit {
  std::string_view name;
  double si;
};

constexpr double kibi = 1024.0;
constexpr double mebi = kibi * kibi;
constexpr double gibi = mebi * kibi;
constexpr double tebi = gibi * kibi;

constexpr std::array second_units = {Unit{"s", 1.0},    Unit{"ms", 1e-3},  Unit{"us", 1e-6}, Unit{"ns", 1e-9},
                                     Unit{"ps", 1e-12}, Unit{"min", 60.0}, Unit{"h", 3600.0}};
constexpr std::array byte_units = {Unit{"B", 1.0},    Unit{"kB", 1e3},   Unit{"MB", 1e6},
                                   Unit{"GB", 1e9},   Unit{"TB", 1e12},  Unit{"KiB", kibi},
                                   Unit{"MiB", mebi}, Unit{"GiB", gibi}, Unit{"TiB", tebi}};
constexpr std::array bandwidth_units = {
    Unit{"B/s", 1.0},    Unit{"kB/s", 1e3},         Unit{"MB/s", 1e6},         Unit{"GB/s", 1e9},
    Unit{"TB/s", 1e12},  Unit{"KiB/s", kibi},       Unit{"MiB/s", mebi},       Unit{"GiB/s", gibi},
    Unit{"TiB/s", tebi}, Unit{"Mbit/s", 1e6 / 8.0}, Unit{"Gbit/s", 1e9 / 8.0}, Unit{"Tbit/s", 1e12 / 8.0}};
constexpr std::array flop_rate_units = {Unit{"FLOP/s", 1.0}, Unit{"GFLOP/s", 1e9}, Unit{"TFLOP/s", 1e12},
                                        Unit{"PFLOP/s", 1e15}, Unit{"EFLOP/s", 1e18}};
constexpr std::array power_units = {Unit{"W", 1.0}, Unit{"kW", 1e3}, Unit{"MW", 1e6}};

/// Spellings that mean different things to different people, with what to write instead.
struct Ambiguous {
  std::string_view name, instead;
};
constexpr std::array ambiguous = {Ambiguous{"Gb/s", "\"Gbit/s\" or \"GB/s\""},
                                  Ambiguous{"Mb/s", "\"Mbit/s\" or \"MB/s\""},
                                  Ambiguous{"Tb/s", "\"Tbit/s\" or \"TB/s\""},
                                  Ambiguous{"Gbps", "\"Gbit/s\" or \"GB/s\""},
                                  Ambiguous{"GBps", "\"GB/s\""},
                                  Ambiguous{"Mbps", "\"Mbit/s\" or \"MB/s\""},
                                  Ambiguous{"TFLOPS", "\"TFLOP/s\""},
                                  Ambiguous{"GFLOPS", "\"GFLOP/s\""},
                                  Ambiguous{"TFLOPs", "\"TFLOP/s\""},
                                  Ambiguous{"KB", "\"kB\" (10^3) or \"KiB\" (2^10)"},
                                  Ambiguous{"Gb", "\"GB\" or \"GiB\""}};

std::string_view trim(std::string_view text) {
  const auto begin = text.find_first_not_of(" \t");
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(" \t") - begin + 1);
}

struct NumberAndRest {
  double number;
  std::string_view rest;
};

NumberAndRest split_number(std::string_view original, std::string_view what, std::string_view examples) {
  const std::string_view text = trim(original);
  double number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || !std::isfinite(number)) {
    const bool out_of_range = error == std::errc::result_out_of_range;
    throw UnitError(fmt::format(
        "\"{}\" is not a {} ({}); write e.g. {}", original, what,
        out_of_range ? "its number is beyond 1e308 or below 1e-308" : "it must start with a number", examples));
  }
  return NumberAndRest{number, trim(text.substr(static_cast<std::size_t>(end - text.data())))};
}

std::string join_names(std::span<const Unit> units) {
  std::string names;
  for (const Unit& unit : units) names += fmt::format("{}{}", names.empty() ? "" : ", ", unit.name);
  return names;
}

double parse(std::string_view original, std::span<const Unit> units, std::string_view what, std::string_view example) {
  const NumberAndRest parts = split_number(original, what, fmt::format("\"{}\"", example));
  if (parts.rest.empty()) {
    throw UnitError(fmt::format("\"{}\" has no unit (a {} needs one); write e.g. \"{}\"", original, what, example));
  }
  for (const Unit& unit : units) {
    if (unit.name != parts.rest) continue;
    if (parts.number < 0) throw UnitError(fmt::format("\"{}\" is negative (a {} cannot be)", original, what));
    // 3 / 1e9 is the double nearest to 3 ns; 3 * 1e-9 is not.
    const double value = unit.si < 1 ? parts.number / std::round(1 / unit.si) : parts.number * unit.si;
    if (!std::isfinite(value)) throw UnitError(fmt::format("\"{}\" is too large (beyond 1e308 in SI units)", original));
    return value;
  }
  for (const Ambiguous& spelling : ambiguous) {
    if (spelling.name == parts.rest) {
      throw UnitError(
          fmt::format("\"{}\": the unit \"{}\" is ambiguous; write {}", original, parts.rest, spelling.instead));
    }
  }
  throw UnitError(
      fmt::format("\"{}\": \"{}\" is not a unit of a {}; known: {}", original, parts.rest, what, join_names(units)));
}

/// `value` in the largest unit that leaves at least 1 before the point; `units` in ascending order.
std::string with_prefix(double value, std::span<const Unit> units) {
  const Unit* best = &units.front();
  for (const Unit& unit : units) {
    if (std::abs(value) >= unit.si * 0.99995) best = &unit;
  }
  return fmt::format("{:.4g} {}", value / best->si, best->name);
}

}  // namespace

Ticks to_ticks(Seconds duration) {
  const double ticks = duration.si() * ticks_per_second;
  if (!(ticks >= 0)) throw std::overflow_error(fmt::format("a duration of {} s is not a time", duration.si()));
  if (ticks >= 9223372036854775807.0) {
    throw std::overflow_error(fmt::format("a duration of {:.3g} s is beyond 2^63 ps (106 days)", duration.si()));
  }
  return std::llround(ticks);
}

Seconds parse_seconds(std::string_view text) {
  return Seconds::from_si(parse(text, second_units, "time", "1.5 us"));
}
Bytes parse_bytes(std::string_view text) {
  return Bytes::from_si(parse(text, byte_units, "size", "80 GB"));
}
BytesPerSecond parse_bandwidth(std::string_view text) {
  return BytesPerSecond::from_si(parse(text, bandwidth_units, "bandwidth", "450 GB/s"));
}
FlopsPerSecond parse_flop_rate(std::string_view text) {
  return FlopsPerSecond::from_si(parse(text, flop_rate_units, "FLOP rate", "989 TFLOP/s"));
}
Watts parse_power(std::string_view text) {
  return Watts::from_si(parse(text, power_units, "power", "700 W"));
}

std::int64_t parse_count(std::string_view original) {
  constexpr std::string_view examples = R"("4096", "128K" (128 * 2^10), "1M" (2^20) or "1e6")";
  const NumberAndRest parts = split_number(original, "count", examples);
  const auto fail = [&](std::string_view why) -> UnitError {
    return UnitError(fmt::format("\"{}\" is not a count ({}); write e.g. {}", original, why, examples));
  };
  double scale = 0;
  if (parts.rest.empty()) scale = 1;
  if (parts.rest == "K" || parts.rest == "k") scale = kibi;
  if (parts.rest == "M") scale = mebi;
  if (parts.rest == "G") scale = gibi;
  if (scale == 0) throw fail(fmt::format("\"{}\" is not one of K, M, G", parts.rest));
  const double value = parts.number * scale;
  if (value < 0) throw fail("it is negative");
  if (value != std::floor(value)) throw fail("it is not a whole number");
  if (value >= 9007199254740992.0) throw fail("it is 2^53 or more");
  return static_cast<std::int64_t>(value);
}

std::string format(Seconds value) {
  constexpr std::array units = {Unit{"ps", 1e-12}, Unit{"ns", 1e-9}, Unit{"us", 1e-6}, Unit{"ms", 1e-3},
                                Unit{"s", 1.0}};
  return value.si() == 0 ? "0 s" : with_prefix(value.si(), units);
}
std::string format(Bytes value) {
  constexpr std::array units = {Unit{"B", 1},    Unit{"kB", 1e3},  Unit{"MB", 1e6},
                                Unit{"GB", 1e9}, Unit{"TB", 1e12}, Unit{"PB", 1e15}};
  return with_prefix(value.si(), units);
}
std::string format(BytesPerSecond value) {
  constexpr std::array units = {Unit{"B/s", 1}, Unit{"kB/s", 1e3}, Unit{"MB/s", 1e6}, Unit{"GB/s", 1e9},
                                Unit{"TB/s", 1e12}};
  return with_prefix(value.si(), units);
}
std::string format(Flops value) {
  constexpr std::array units = {Unit{"FLOP", 1},     Unit{"kFLOP", 1e3},  Unit{"MFLOP", 1e6},  Unit{"GFLOP", 1e9},
                                Unit{"TFLOP", 1e12}, Unit{"PFLOP", 1e15}, Unit{"EFLOP", 1e18}, Unit{"ZFLOP", 1e21}};
  return with_prefix(value.si(), units);
}
std::string format(FlopsPerSecond value) {
  return with_prefix(value.si(), flop_rate_units);
}
std::string format(Watts value) {
  return with_prefix(value.si(), power_units);
}

}  // namespace orrery
