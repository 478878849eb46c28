// Strong types for physical quantities. One scale inside (SI: seconds, bytes, FLOPs, joules); text always carries a
// unit.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>
#include <string_view>

namespace orrery {

/// A value with the dimension second^S byte^B flop^F joule^J. A product or quotient whose dimension cancels is a
/// double.
template <int S, int B, int F, int J = 0>
class Quantity {
 public:
  constexpr Quantity() = default;
  static constexpr Quantity from_si(double si) { return Quantity(si); }
  constexpr double si() const { return si_; }

  constexpr Quantity operator+(Quantity other) const { return Quantity(si_ + other.si_); }
  constexpr Quantity operator-(Quantity other) const { return Quantity(si_ - other.si_); }
  constexpr Quantity operator*(double factor) const { return Quantity(si_ * factor); }
  constexpr Quantity operator/(double divisor) const { return Quantity(si_ / divisor); }
  friend constexpr Quantity operator*(double factor, Quantity q) { return q * factor; }
  constexpr Quantity& operator+=(Quantity other) { return *this = *this + other; }
  constexpr auto operator<=>(const Quantity&) const = default;

 private:
  constexpr explicit Quantity(double si) : si_(si) {}
  double si_ = 0;
};

template <int S, int B, int F, int J>
constexpr auto make_quantity(double si) {
  if constexpr (S == 0 && B == 0 && F == 0 && J == 0) {
    return si;
  } else {
    return Quantity<S, B, F, J>::from_si(si);
  }
}

template <int S1, int B1, int F1, int J1, int S2, int B2, int F2, int J2>
constexpr auto operator*(Quantity<S1, B1, F1, J1> a, Quantity<S2, B2, F2, J2> b) {
  return make_quantity<S1 + S2, B1 + B2, F1 + F2, J1 + J2>(a.si() * b.si());
}

template <int S1, int B1, int F1, int J1, int S2, int B2, int F2, int J2>
constexpr auto operator/(Quantity<S1, B1, F1, J1> a, Quantity<S2, B2, F2, J2> b) {
  return make_quantity<S1 - S2, B1 - B2, F1 - F2, J1 - J2>(a.si() / b.si());
}

using Seconds = Quantity<1, 0, 0>;
using Bytes = Quantity<0, 1, 0>;
using Flops = Quantity<0, 0, 1>;
using BytesPerSecond = Quantity<-1, 1, 0>;
using FlopsPerSecond = Quantity<-1, 0, 1>;
using FlopsPerByte = Quantity<0, -1, 1>;
using Watts = Quantity<-1, 0, 0, 1>;

/// Simulated time: a whole number of picoseconds (64 bits last 106 days). Max and plus are exact, so every order of
/// evaluation gives the same end time.
using Ticks = std::int64_t;
inline constexpr double ticks_per_second = 1e12;

/// Rounds a duration to the nearest tick, half away from zero. This is the only place where time is rounded.
/// Throws std::overflow_error if the duration is negative, not a number, or longer than 2^63 ticks.
Ticks to_ticks(Seconds duration);

constexpr Seconds to_seconds(Ticks ticks) {
  return Seconds::from_si(static_cast<double>(ticks) / ticks_per_second);
}

/// What parse_* throw: a sentence about the text alone; the reader of a file adds file, line, column and key.
struct UnitError : std::invalid_argument {
  using std::invalid_argument::invalid_argument;
};

/// Parse "<number> <unit>", e.g. "450 GB/s", "1.5 us", "989.4 TFLOP/s", "80 GiB", "700 W".
/// Decimal prefixes are powers of ten (GB = 10^9 B), binary ones powers of two (GiB = 2^30 B); bits are spelled out
/// ("400 Gbit/s"); "Gb/s" is refused because it is read both ways. Throws UnitError; a missing unit is an error.
Seconds parse_seconds(std::string_view text);
Bytes parse_bytes(std::string_view text);
BytesPerSecond parse_bandwidth(std::string_view text);
FlopsPerSecond parse_flop_rate(std::string_view text);
Watts parse_power(std::string_view text);

/// Parse a count of tokens, heads, ...: "4096", "1e6", "128K" = 128 * 2^10, "1M" = 2^20, "1G" = 2^30 (the convention of
/// context lengths). Throws UnitError if the text is not a whole non-negative number below 2^53 (so that it is exact as
/// a double).
std::int64_t parse_count(std::string_view text);

/// Three to four significant digits with a fitting prefix: "1.234 ms", "450 GB/s", "1.27 GB", "989 TFLOP/s".
std::string format(Seconds value);
std::string format(Bytes value);
std::string format(BytesPerSecond value);
std::string format(Flops value);
std::string format(FlopsPerSecond value);
std::string format(Watts value);

}  // namespace orrery
