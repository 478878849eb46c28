#include "cost_models/fit_checks.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "cost_models/intervals.hpp"
#include "cost_models/unknowns.hpp"

namespace orrery {
namespace {

std::string path_of(const MeasuredKernel& row) {
  return row.place.substr(0, row.place.rfind(':'));
}

/// Bytes that each rank has to send or to receive, at the least: NCCL's rows count the bytes of one rank.
double bytes_over_link(const MeasuredKernel& row) {
  const double others = row.ranks - 1;
  if (row.op.starts_with("all_gather") || row.op.starts_with("reduce_scatter")) return others * row.bytes.si();
  if (row.op.starts_with("all_to_all")) return others / row.ranks * row.bytes.si();
  return row.bytes.si();  // of an all_reduce too, where the switch adds
}

/// The least time that a part of the hardware needs for a row at its nominal rate.
struct Bound {
  Seconds time;
  std::string of;               // for people
  Seconds beyond_cache = time;  // of it, what no cache can spare
};

std::optional<Bound> bound_of(const MeasuredKernel& row, const FitFacts& facts) {
  const auto tensor_cores = [&](Flops flops) -> Bound {
    const double clock_hz = row.clock_hz > 0 ? row.clock_hz : facts.maximum_clock_hz;
    const double rate = tensor_flops_per_cycle(facts.peaks, facts.maximum_clock_hz) * clock_hz;
    return {Seconds::from_si(flops.si() / rate), fmt::format("the tensor cores at {:.0f} MHz", clock_hz / 1e6)};
  };
  // What L2 holds need not pass, neither of what is read nor of what is written.
  const auto hbm = [&](double bytes) -> std::optional<Bound> {
    if (facts.cache == Bytes()) return std::nullopt;
    const double passing = std::max(0.0, bytes - 2 * facts.cache.si());
    return Bound{Seconds::from_si(bytes / facts.peaks.hbm.si()), "HBM at " + format(facts.peaks.hbm),
                 Seconds::from_si(passing / facts.peaks.hbm.si())};
  };
  switch (row.kind) {
    case MeasuredKernel::Kind::attention: {
      AttentionShape seen = row.attention;
      seen.pairs -= seen.masked_pairs + seen.pairs_beyond;
      return tensor_cores(attention_flops(seen, row.phase));
    }
    case MeasuredKernel::Kind::gemm:
      return tensor_cores(row.dense.flops());
    case MeasuredKernel::Kind::stream:
      return hbm(row.bytes.si());
    case MeasuredKernel::Kind::message:
      break;
  }
  if (row.link == "local") return hbm(2 * row.bytes.si());
  const auto link = facts.links.find(row.link);
  if (link == facts.links.end()) return std::nullopt;
  return Bound{Seconds::from_si(bytes_over_link(row) / link->second.si()),
               fmt::format("{} at {}", row.link, format(link->second))};
}

/// A message and one of its kind that it takes too long beside: `longer` more than `most` times as long.
struct Contradiction {
  const MeasuredKernel* longer;
  const MeasuredKernel* other;
};

// Of the committed files the same message takes up to 1.47 times as long in one as in another (4 KB to the host), a
// message up to 1.39 times as long as one of sqrt(2) times the bytes (where NCCL doubles its channels, which could
// halve the time), and up to 1.79 times as long as in proportion to one with fewer bytes (copies that outgrow L2).
constexpr double most_of_equals = 1.6, most_of_others = 2;

double most_times(const MeasuredKernel& row, const MeasuredKernel& other) {
  if (row.work == other.work) return most_of_equals;
  return most_of_others * std::max(1.0, row.work / other.work);
}

using Families = std::map<std::string, MeasuredRows>;

Families families_of(std::span<const MeasuredKernel> rows, bool messages_alone) {
  Families families;
  for (const MeasuredKernel& row : rows) {
    if (messages_alone && row.kind != MeasuredKernel::Kind::message) continue;
    families[row.family].push_back(&row);
  }
  return families;
}

std::vector<Contradiction> contradictions_of(const Families& families) {
  std::vector<Contradiction> all;
  for (const auto& [family, rows] : families) {
    for (const MeasuredKernel* row : rows) {
      for (const MeasuredKernel* other : rows) {
        if (row->time / other->time > most_times(*row, *other)) all.push_back({row, other});
      }
    }
  }
  return all;
}

/// Of sizes.
double distance(const MeasuredKernel& a, const MeasuredKernel& b) {
  return std::abs(std::log(a.work / b.work));
}

/// How many times as long the messages of one file take as those of as many bytes, or nearly so, in another; nothing if
/// they are not longer by one factor.
std::optional<double> common_factor(const Families& families, const std::string& file, const std::string& other_file) {
  std::vector<double> ratios;
  for (const auto& [family, rows] : families) {
    for (const MeasuredKernel* row : rows) {
      if (path_of(*row) != file) continue;
      const MeasuredKernel* nearest = nullptr;
      for (const MeasuredKernel* other : rows) {
        if (path_of(*other) != other_file) continue;
        if (nearest == nullptr || distance(*other, *row) < distance(*nearest, *row)) nearest = other;
      }
      if (nearest != nullptr) ratios.push_back(row->time / nearest->time);
    }
  }
  if (ratios.size() < 3) return std::nullopt;
  const double factor = quantile(ratios, 0.5);
  const auto alike = std::count_if(ratios.begin(), ratios.end(), [&](double ratio) {
    return std::max(ratio / factor, factor / ratio) < most_of_others;
  });
  if (factor <= most_of_equals || 2 * static_cast<std::size_t>(alike) < ratios.size()) return std::nullopt;
  return factor;
}

/// Throws if it is a whole file that contradicts another.
void refuse_files(const Families& families, const std::vector<Contradiction>& all) {
  for (const Contradiction& c : all) {
    const std::string file = path_of(*c.longer), other = path_of(*c.other);
    const std::optional<double> factor = file == other ? std::nullopt : common_factor(families, file, other);
    if (!factor) continue;
    throw FitError(fmt::format(
        "{}: its messages take about {:.{}f} times as long as the same ones of {}, are both in the units of "
        "their columns, and of one machine? Correct one of the files or leave it out",
        file, *factor, *factor < 10 ? 1 : 0, other));
  }
}

/// The row that contradicts most, and of those that it contradicts the one that is next in size.
[[noreturn]] void refuse_row(const std::vector<Contradiction>& all) {
  std::map<const MeasuredKernel*, int> counts;
  for (const Contradiction& c : all) {
    ++counts[c.longer];
    ++counts[c.other];
  }
  const MeasuredKernel* row = all.front().longer;
  for (const Contradiction& c : all) {
    for (const MeasuredKernel* of_it : {c.longer, c.other}) {
      if (counts[of_it] > counts[row]) row = of_it;
    }
  }
  const MeasuredKernel* next = nullptr;
  for (const Contradiction& c : all) {
    if (c.longer != row && c.other != row) continue;
    const MeasuredKernel* other = c.longer == row ? c.other : c.longer;
    if (next == nullptr || distance(*other, *row) < distance(*next, *row)) next = other;
  }
  throw FitError(
      fmt::format("{}: {} takes {} (but {} takes {} at {}, and the time of a kind grows with its bytes, at most in "
                  "proportion), correct the row that is wrong or leave it out",
                  row->place, row->shape, format(row->time), next->shape, format(next->time), next->place));
}

}  // namespace

void check_conditions(const MeasuredTable& table, const FitFacts& facts) {
  // Measured: 0.97 of the idle power, 1.17 of the limit (of short kernels, whose clock is not yet down), 0.59 to 1.013
  // of the maximum clock.
  constexpr double least_power = 0.8, most_power = 1.5, least_clock = 0.05, most_clock = 1.05;
  for (std::size_t i = 0; i < table.rows(); ++i) {
    if (!table.is_ok(i)) continue;
    const auto power = table.optional_number(i, "power_w"), clock = table.optional_number(i, "sm_clock_mhz");
    if (power &&
        !(*power > 0 && *power >= least_power * facts.idle_power_w && *power <= most_power * facts.power_limit_w)) {
      throw FitError(fmt::format(
          "{}: power_w = {} (but by the rows of host costs an idle GPU takes {:.4g} W, and its limit is {:.4g} "
          "W), write both in W, or nothing where it is not known",
          table.place(i), *power, facts.idle_power_w, facts.power_limit_w));
    }
    const double most_mhz = facts.maximum_clock_hz / 1e6;
    if (clock && !(*clock >= least_clock * most_mhz && *clock <= most_clock * most_mhz)) {
      throw FitError(
          fmt::format("{}: sm_clock_mhz = {} (but SMs run at most at {:.0f} MHz by the header), write it in MHz",
                      table.place(i), *clock, most_mhz));
    }
  }
}

void check_rates(std::span<const MeasuredKernel> rows, const FitFacts& facts) {
  // Measured: products at 1.005 of the peak at the mean of the clock's samples, links at up to 0.89; noise of some
  // per cent makes one row of hundreds a seventh faster. A hundredth is below the rate of a single channel of NCCL, and
  // of products whose rows are 2 bytes apart.
  constexpr double fastest = 1.25, slowest = 100, start_margin = 2;
  for (const auto& [family, of_family] : families_of(rows, false)) {
    const auto [first, last] = std::minmax_element(of_family.begin(), of_family.end(),
                                                   [](const auto* a, const auto* b) { return a->work < b->work; });
    for (const MeasuredKernel* row : of_family) {
      const std::optional<Bound> bound = bound_of(*row, facts);
      if (!bound) continue;
      const bool too_fast = fastest * row->time < bound->beyond_cache;
      const bool too_slow =
          row->work == (*last)->work && row->time > start_margin * (*first)->time + slowest * bound->time;
      if (!too_fast && !too_slow) continue;
      throw FitError(fmt::format(
          "{}: {} takes {} (but {} would need {}{}), are the numbers of this file in the units of their columns? "
          "Correct it or leave it out",
          row->place, row->shape, format(row->time), bound->of, format(too_fast ? bound->beyond_cache : bound->time),
          too_fast ? "" : fmt::format(", and {} takes {} with its start", (*first)->shape, format((*first)->time))));
    }
  }
}

void check_messages(std::span<const MeasuredKernel> rows) {
  const Families families = families_of(rows, true);
  const std::vector<Contradiction> all = contradictions_of(families);
  if (all.empty()) return;
  refuse_files(families, all);
  refuse_row(all);
}

void check_held_out(std::span<const HeldOutErrors> errors) {
  for (const HeldOutErrors& e : errors) {
    if (e.held_out == 0 || e.median <= Unknowns::contradicting_scatter) continue;
    throw FitError(
        fmt::format("{}: half of the {} rows left out are off by more than {:.0f} % from what the {} fitted ones say "
                    "({}), are all of one kernel on one GPU, in the units of their columns? Correct them, or give more "
                    "shapes of each kind",
                    e.group, e.held_out, 100 * e.median, e.fitted,
                    e.far_off.empty() ? "rows contradict each other, or are too few" : e.far_off));
  }
}

}  // namespace orrery
