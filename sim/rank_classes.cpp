#include "sim/rank_classes.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <set>
#include <unordered_map>
#include <utility>
#include <vector>

namespace orrery {
namespace {

using Colours = std::vector<std::uint64_t>;  // by rank

/// The finalizer of splitmix64 (Steele, Lea, Flood 2014).
std::uint64_t mix(std::uint64_t x) {
  x += 0x9e3779b97f4a7c15ULL;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
  return x ^ (x >> 31);
}

std::uint64_t mix(std::uint64_t a, std::uint64_t b) {
  return mix(a ^ std::rotl(mix(b), 23));
}

/// Numbers the colours in the order of the first rank that has them.
std::vector<std::int32_t> number(const Colours& colours, std::vector<Rank>& first) {
  std::unordered_map<std::uint64_t, std::int32_t> numbers;
  std::vector<std::int32_t> classes;
  first.clear();
  for (std::size_t rank = 0; rank < colours.size(); ++rank) {
    const auto [entry, is_new] = numbers.try_emplace(colours[rank], static_cast<std::int32_t>(numbers.size()));
    if (is_new) first.push_back(static_cast<Rank>(rank));
    classes.push_back(entry->second);
  }
  return classes;
}

/// By column of the route table and source: whether a message takes it. To find a route across a large cluster is not
/// free, and of each distance most ranks have no use.
struct UsedRoutes {
  std::vector<std::vector<bool>> columns;
  std::set<std::array<std::int32_t, 5>> known;  // column, distance of the source, and the ranks of a set

  void add(const BlockStore& blocks, const RankSet& ranks, const CompiledMessage& message) {
    if (message.route < 0) return;
    if (!known.insert({message.route, message.source, ranks.first, ranks.stride, ranks.count}).second) return;
    const auto column = static_cast<std::size_t>(message.route);
    if (column >= columns.size())
      columns.resize(column + 1, std::vector<bool>(static_cast<std::size_t>(blocks.ranks())));
    for (Rank i = 0; i < ranks.count; ++i)
      columns[column][static_cast<std::size_t>(blocks.wrap(ranks[i], message.source))] = true;
  }
};

void note_routes(const BlockStore& blocks, const CompiledBlock& block, UsedRoutes& used) {
  for (const CompiledSet& set : block.sets) {
    for (std::int32_t o = set.first_op; o < set.first_op + set.op_count; ++o) {
      const CompiledOp& op = block.ops[static_cast<std::size_t>(o)];
      for (std::int32_t m = op.first_message; m < op.first_message + op.message_count; ++m) {
        used.add(blocks, set.ranks, block.messages[static_cast<std::size_t>(m)]);
      }
    }
  }
}

/// By what the ranks themselves do; false once more than `most` differ.
bool colour_by_ops(BlockStore& blocks, Colours& colours, UsedRoutes& used, std::size_t most) {
  const Program& program = blocks.program();
  std::vector<bool> seen(static_cast<std::size_t>(program.shapes()));
  std::int64_t splitting = 0, next_check = 4;
  std::vector<Rank> first;
  for (std::int64_t block = 0; block < blocks.blocks(); ++block) {
    const auto shape = static_cast<std::size_t>(program.shape(block));
    if (seen[shape]) continue;
    seen[shape] = true;
    CompiledBlock* compiled = blocks.acquire(block);
    note_routes(blocks, *compiled, used);
    if (compiled->sets.size() > 1) {
      for (std::size_t s = 0; s < compiled->sets.size(); ++s) {
        const RankSet& set = compiled->sets[s].ranks;
        for (Rank i = 0; i < set.count; ++i) {
          std::uint64_t& colour = colours[static_cast<std::size_t>(set[i])];
          colour = mix(colour, shape * 65537 + s);
        }
      }
      if (++splitting == next_check) {
        next_check *= 4;
        number(colours, first);
        if (first.size() > most) {
          blocks.release(compiled);
          return false;
        }
      }
    }
    blocks.release(compiled);
  }
  number(colours, first);
  return first.size() <= most;
}

void colour_by_routes(BlockStore& blocks, Colours& colours, const UsedRoutes& used) {
  RouteTable& routes = blocks.routes();
  for (std::size_t column = 0; column < used.columns.size(); ++column) {
    for (std::size_t rank = 0; rank < colours.size(); ++rank) {
      if (!used.columns[column][rank]) continue;
      const CachedRoute& route = routes.at(static_cast<RouteTable::Column>(column), static_cast<Rank>(rank));
      colours[rank] = mix(
          colours[rank], mix(static_cast<std::uint64_t>(route.latency), std::bit_cast<std::uint64_t>(route.bandwidth)));
    }
  }
}

}  // namespace

std::optional<Columns> rank_classes(BlockStore& blocks, const Survey& survey, const Perturbation* perturbation) {
  const auto ranks = static_cast<std::size_t>(blocks.ranks());
  const std::size_t most = ranks / 2;
  Colours colours(ranks);
  for (std::size_t rank = 0; perturbation != nullptr && rank < ranks; ++rank) {
    colours[rank] = std::bit_cast<std::uint64_t>(perturbation->factor(static_cast<Rank>(rank)));
  }
  UsedRoutes used;
  if (!colour_by_ops(blocks, colours, used, most)) return std::nullopt;
  colour_by_routes(blocks, colours, used);
  std::vector<Rank> first;
  std::vector<std::int32_t> classes = number(colours, first);
  // In the end one way would do: so many steps up lead round to the rank below. Both ways take half the rounds.
  for (std::size_t before = 0; first.size() != before && first.size() <= most;) {
    before = first.size();
    Colours refined(ranks);
    for (std::size_t rank = 0; rank < ranks; ++rank) {
      std::uint64_t colour = static_cast<std::uint64_t>(classes[rank]);
      for (const std::int32_t distance : survey.distances) {
        const auto up = (rank + static_cast<std::size_t>(distance)) % ranks;
        const auto down = (rank + ranks - static_cast<std::size_t>(distance)) % ranks;
        colour = mix(mix(colour, static_cast<std::uint64_t>(classes[up])), static_cast<std::uint64_t>(classes[down]));
      }
      refined[rank] = colour;
    }
    classes = number(refined, first);
  }
  if (first.size() > most) return std::nullopt;
  return Columns(std::move(first), std::move(classes));
}

}  // namespace orrery
