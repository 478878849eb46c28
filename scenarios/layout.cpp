#include "scenarios/layout.hpp"

#include <fmt/format.h>

#include <array>
#include <stdexcept>
#include <string>

namespace orrery {
namespace {

void require_divides(Index amount, std::string_view what, Index parts, std::string_view why) {
  if (parts > 0 && amount % parts == 0) return;
  throw std::invalid_argument(fmt::format("{} {} do not divide into {} equal parts ({}), use a multiple of {}", amount,
                                          what, parts, why, parts));
}

std::vector<TokenSet> place_contiguous(const LayoutRequest& r) {
  require_divides(r.tokens, "tokens", r.groups, "contiguous layout: one chunk per rank of the ring");
  const Index chunk = r.tokens / r.groups;
  std::vector<TokenSet> sets;
  for (Index g = 0; g < r.groups; ++g) sets.emplace_back(std::vector<TokenRange>{{g * chunk, chunk, 1}});
  return sets;
}

// Chunks g and 2G-1-g of 2G: under a causal mask every group gets the same number of pairs.
std::vector<TokenSet> place_zigzag(const LayoutRequest& r) {
  require_divides(r.tokens, "tokens", 2 * r.groups, "zigzag layout: two chunks per rank of the ring");
  const Index chunk = r.tokens / (2 * r.groups);
  std::vector<TokenSet> sets;
  for (Index g = 0; g < r.groups; ++g) {
    sets.emplace_back(std::vector<TokenRange>{{g * chunk, chunk, 1}, {(2 * r.groups - 1 - g) * chunk, chunk, 1}});
  }
  return sets;
}

// Token t on group t mod G (Striped Attention, arXiv 2311.09431).
std::vector<TokenSet> place_striped(const LayoutRequest& r) {
  require_divides(r.tokens, "tokens", r.groups, "striped layout: every G-th token");
  std::vector<TokenSet> sets;
  for (Index g = 0; g < r.groups; ++g) sets.emplace_back(std::vector<TokenRange>{{g, r.tokens / r.groups, r.groups}});
  return sets;
}

// Counting looks at pairs of runs; beyond this a layout would take seconds.
constexpr Index most_runs = 1024;

// Group g holds the residues [g * period / G, (g + 1) * period / G) modulo the period, so that a skip by a multiple of
// the period never leaves its group. One residue per group is the striped layout.
std::vector<TokenSet> place_residue(const LayoutRequest& r) {
  require_divides(r.period, "residues", r.groups, "residue layout: residue_period over the ranks of the ring");
  require_divides(r.tokens, "tokens", r.period, "residue layout: whole periods");
  const Index residues = r.period / r.groups;
  const Index periods = r.tokens / r.period;
  if (r.groups == 1) return place_contiguous(r);
  if (residues == 1) return place_striped(r);
  if (periods > most_runs) {
    throw std::invalid_argument(
        fmt::format("{} tokens are {} periods of {} (residue layout: a rank holds a run of each, at most {}), use a "
                    "residue_period of {} or more, or of {}",
                    r.tokens, periods, r.period, most_runs, ceil_div(r.tokens, most_runs), r.groups));
  }
  std::vector<TokenSet> sets;
  for (Index g = 0; g < r.groups; ++g) {
    std::vector<TokenRange> runs;
    for (Index m = 0; m < periods; ++m) runs.push_back({m * r.period + g * residues, residues, 1});
    sets.emplace_back(std::move(runs));
  }
  return sets;
}

constexpr std::array table = {
    Layout{"contiguous", "one chunk per rank", place_contiguous},
    Layout{"zigzag", "chunks r and 2P-1-r of 2P: balanced under a causal mask", place_zigzag},
    Layout{"striped", "token t on rank t mod P (Striped Attention, arXiv 2311.09431)", place_striped},
    Layout{"residue", "residues modulo a period stay on one rank", place_residue},
};

}  // namespace

std::span<const Layout> layouts() {
  return table;
}

}  // namespace orrery
