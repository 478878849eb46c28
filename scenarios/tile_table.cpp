#include "scenarios/tile_table.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <map>
#include <set>
#include <stdexcept>
#include <utility>

namespace orrery {
namespace {

using Pieces = std::vector<Mask::Piece>;

// About 100 MB, and ten seconds.
constexpr std::int64_t most_entries = 1 << 22;
constexpr std::int64_t most_rectangles = 1 << 27;

/// How a group is cut by documents and sinks.
struct Cuts {
  std::size_t group = 0;  // one that is cut like this
  Pieces queries, keys;
};

/// The ranges of all groups, cut at the same places, so that range i of each holds as many tokens.
std::vector<std::vector<TokenRange>> alike_ranges(const std::vector<TokenSet>& sets) {
  std::set<Index> places;
  for (const TokenSet& set : sets) {
    Index place = 0;
    for (const TokenRange& range : set.ranges()) places.insert(place += range.count);
  }
  std::vector<std::vector<TokenRange>> all;
  for (const TokenSet& set : sets) {
    std::vector<TokenRange>& ranges = all.emplace_back();
    auto place = places.begin();
    Index begin = 0;
    for (const TokenRange& range : set.ranges()) {
      for (Index done = 0; done < range.count; ++place) {
        const Index count = *place - begin;
        ranges.push_back({range.at(done), count, range.stride});
        done += count;
        begin = *place;
      }
    }
  }
  return all;
}

/// How far range i moves from one group to the next. Empty if that differs between groups, or by more than its sign
/// between ranges.
std::vector<Index> steps_of(const std::vector<std::vector<TokenRange>>& groups) {
  std::vector<Index> steps;
  const std::vector<TokenRange>& origin = groups.front();
  for (std::size_t i = 0; i < origin.size(); ++i) {
    steps.push_back(groups.size() > 1 ? groups[1][i].begin - origin[i].begin : 0);
    if (std::abs(steps[i]) != std::abs(steps[0])) return {};
    for (std::size_t g = 0; g < groups.size(); ++g) {
      if (groups[g][i].begin != origin[i].begin + static_cast<Index>(g) * steps[i]) return {};
    }
  }
  return steps;
}

/// Distances (differences or sums of two groups) at which whole ranges meet in the same way.
class Classes {
 public:
  /// The mask between the ranges at the next distance, by the lags of the pattern and by causality alone.
  void add(Index distance, const std::pair<LocalMask, LocalMask>& between) {
    // Comparing masks of many blocks would cost more than it saves: those are classes of their own.
    const auto next = static_cast<std::uint32_t>(example.size());
    const std::uint32_t c = between.first.blocks() > 64 ? next : known_.try_emplace(between, next).first->second;
    if (c == next) {
      example.push_back(distance);
      empty.push_back(between.first.empty());
    }
    class_of.push_back(c);
  }
  std::size_t size() const { return example.size(); }

  std::vector<std::uint32_t> class_of;  // by distance, from the lowest
  std::vector<Index> example;           // by class
  std::vector<bool> empty;              // by class: nothing of the pattern

 private:
  std::map<std::pair<LocalMask, LocalMask>, std::uint32_t> known_;
};

/// The tiles of a block without a mask.
TilePlaces full_tiles(Index rows, Index columns, TileShape tile) {
  const Index executed = ceil_div(rows, tile.query) * tile.query * ceil_div(columns, tile.key) * tile.key;
  return {executed, executed - rows * columns};
}

}  // namespace

TileWork measure(const LocalMask& mask, TileShape tile) {
  TileWork work{.useful = mask.pairs()};
  for (const auto& [first, past] : mask.rows()) work.query_rows += past - first;
  for (const auto& [first, past] : mask.columns()) work.key_rows += past - first;
  // Where each of these rows sees each of these keys, the kernel is given them alone, and no mask.
  const bool full = work.useful == work.query_rows * work.key_rows;
  const TilePlaces places = full ? full_tiles(work.query_rows, work.key_rows, tile) : mask.tiles(tile);
  work.executed = places.executed;
  work.beyond = places.beyond;
  return work;
}

/// Fills a table.
class TileTable::Builder {
 public:
  Builder(const Geometry& geometry, const Mask& mask, TileShape tile, TileTable& table)
      : table_(table), mask_(mask), tile_(tile), groups_(geometry.group_tokens.size()) {
    ranges_ = alike_ranges(geometry.group_tokens);
    steps_ = steps_of(ranges_);
    cut_groups();
    if (!steps_.empty()) classify();
    const auto pairs = static_cast<std::int64_t>(groups_ * groups_);
    if (steps_.empty() || class_count() > pairs) {
      use_pairs();
    } else {
      use_classes();
    }
  }

 private:
  /// Numbers how groups are cut, documents told apart.
  void cut_groups() {
    std::map<Pieces, std::size_t> known;
    std::size_t pieces = 0;
    for (std::size_t g = 0; g < groups_; ++g) {
      Cuts cuts{g, mask_.query_pieces(ranges_[g]), mask_.key_pieces(ranges_[g])};
      Pieces places = cuts.keys;
      for (Mask::Piece& piece : places) piece.tokens.begin = 0;
      const auto [entry, is_new] = known.try_emplace(std::move(places), cuts_.size());
      cut_of_.push_back(entry->second);
      if (!is_new) continue;
      pieces += cuts.keys.size();
      if (pieces > most_entries) refuse(static_cast<std::int64_t>(pieces));
      cuts_.push_back(std::move(cuts));
    }
  }

  /// Classes of differences and of sums: the rectangles between whole ranges, by the lags of the pattern and, where
  /// keys may be sinks, by causality alone.
  void classify() {
    const auto whole = [&](bool sink) {
      Pieces pieces;
      Index place = 0;
      for (std::size_t i = 0; i < steps_.size(); ++i) {
        pieces.push_back({0, place, i, sink, ranges_[0][i]});
        place += ranges_[0][i].count;
      }
      return pieces;
    };
    const Pieces queries = whole(false), keys = whole(false), sinks = whole(true);
    const auto between = [&](Index distance, bool same_direction) {
      const auto lag = [&](const Mask::Piece& q, const Mask::Piece& k) {
        return (steps_[q.range] == steps_[k.range]) == same_direction
                   ? std::optional(lag_of(q.range, k.range, distance))
                   : std::nullopt;
      };
      return std::pair(mask_.local(queries, keys, lag),
                       mask_.has_sinks() ? mask_.local(queries, sinks, lag) : LocalMask());
    };
    const auto n = static_cast<Index>(groups_);
    for (Index difference = 1 - n; difference < n; ++difference) {
      differences_.add(difference, between(difference, true));
    }
    for (Index sum = 0; sum <= 2 * (n - 1); ++sum) sums_.add(sum, between(sum, false));
  }

  /// The lag of the first tokens of range i of group q and range j of group k; `distance` is q - k if both ranges move
  /// in the same direction, otherwise q + k.
  Index lag_of(std::size_t i, std::size_t j, Index distance) const {
    return ranges_[0][i].begin - ranges_[0][j].begin + steps_[i] * distance;
  }

  std::int64_t class_count() const {
    return static_cast<std::int64_t>(differences_.size() * sums_.size() * cuts_.size() * cuts_.size());
  }

  void use_classes() {
    check_size(class_count(), differences_.size() * sums_.size());
    const std::size_t cuts = cuts_.size();
    for (const std::uint32_t c : differences_.class_of) {
      table_.by_difference_.push_back(static_cast<std::uint32_t>(c * sums_.size() * cuts * cuts));
    }
    for (const std::uint32_t c : sums_.class_of) {
      table_.by_sum_.push_back(static_cast<std::uint32_t>(c * cuts * cuts));
    }
    for (const std::size_t c : cut_of_) {
      table_.query_.push_back(static_cast<std::uint32_t>(c * cuts));
      table_.key_.push_back(static_cast<std::uint32_t>(c));
    }
    for (const Index difference : differences_.example) {
      for (const Index sum : sums_.example) {
        for (const Cuts& q : cuts_) {
          for (const Cuts& k : cuts_) add_class(difference, sum, q, k);
        }
      }
    }
    find_distances();
  }

  /// Also where no pair of groups is of these four classes; then nobody asks.
  void add_class(Index difference, Index sum, const Cuts& queries, const Cuts& keys) {
    const auto lag = [&](const Mask::Piece& q, const Mask::Piece& k) {
      const Index distance = steps_[q.range] == steps_[k.range] ? difference : sum;
      const Index within = (q.tokens.begin - ranges_[queries.group][q.range].begin) -
                           (k.tokens.begin - ranges_[keys.group][k.range].begin);
      return std::optional(lag_of(q.range, k.range, distance) + within);
    };
    table_.works_.push_back(measure(mask_.local(queries.queries, keys.keys, lag), tile_));
  }

  void use_pairs() {
    check_size(static_cast<std::int64_t>(groups_ * groups_), 0);
    table_.by_difference_.assign(2 * groups_ - 1, 0);
    table_.by_sum_.assign(2 * groups_ - 1, 0);
    const auto lag = [](const Mask::Piece& q, const Mask::Piece& k) {
      return std::optional(q.tokens.begin - k.tokens.begin);
    };
    std::vector<Pieces> keys;
    for (std::size_t g = 0; g < groups_; ++g) {
      table_.query_.push_back(static_cast<std::uint32_t>(g * groups_));
      table_.key_.push_back(static_cast<std::uint32_t>(g));
      keys.push_back(mask_.key_pieces(ranges_[g]));
    }
    for (std::size_t q = 0; q < groups_; ++q) {
      const Pieces queries = mask_.query_pieces(ranges_[q]);
      for (std::size_t k = 0; k < groups_; ++k) {
        table_.works_.push_back(measure(mask_.local(queries, keys[k], lag), tile_));
      }
    }
    find_distances();
  }

  void find_distances() {
    const auto n = static_cast<int>(groups_);
    const bool uncut = cuts_.size() == 1 && cuts_[0].keys.size() == ranges_[0].size() && !mask_.has_sinks();
    const std::vector<int> widest = uncut && !differences_.class_of.empty() ? widest_of_sums() : std::vector<int>();
    for (int distance = 1; distance < n; ++distance) {
      const bool works = widest.empty()
                             ? works_somewhere(distance)
                             : works_by_difference(distance) || works_by_difference(distance - n) ||
                                   distance <= widest[distance % 2] || n - distance <= widest[(n - distance) % 2];
      if (works) table_.distances_.push_back(distance);
    }
  }

  bool works_somewhere(int distance) const {
    const auto n = static_cast<int>(groups_);
    for (int i = 0; i < n; ++i) {
      const int k = i, q = (k + distance) % n;  // from the first group on, which often has sinks
      if (table_.at(q, k).useful > 0) return true;
    }
    return false;
  }

  bool works_by_difference(int difference) const {
    return !differences_
                .empty[differences_.class_of[static_cast<std::size_t>(difference + static_cast<int>(groups_) - 1)]];
  }

  /// Groups q and k with a sum at which ranges meet have a difference of the sum's parity and at most
  /// min(sum, 2 (n - 1) - sum): the widest by parity, -1 if there is none.
  std::vector<int> widest_of_sums() const {
    std::vector<int> widest = {-1, -1};
    const auto last = static_cast<int>(sums_.class_of.size()) - 1;
    for (int sum = 0; sum <= last; ++sum) {
      if (sums_.empty[sums_.class_of[static_cast<std::size_t>(sum)]]) continue;
      int& of_parity = widest[static_cast<std::size_t>(sum % 2)];
      of_parity = std::max(of_parity, std::min(sum, last - sum));
    }
    return widest;
  }

  /// `kinds`: how often each pair of cuts is counted; 0: once for each pair of groups.
  void check_size(std::int64_t entries, std::size_t kinds) const {
    std::map<std::size_t, std::int64_t> pieces;  // by document
    if (kinds > 0) {
      for (const Cuts& cuts : cuts_) {
        for (const Mask::Piece& piece : cuts.keys) ++pieces[piece.document];
      }
    } else {
      for (const std::size_t c : cut_of_) {
        for (const Mask::Piece& piece : cuts_[c].keys) ++pieces[piece.document];
      }
    }
    std::int64_t rectangles = 0;
    for (const auto& [document, count] : pieces) {
      rectangles += count * count * static_cast<std::int64_t>(std::max<std::size_t>(kinds, 1));
    }
    if (entries > most_entries || rectangles > most_rectangles) refuse(std::max(entries, rectangles));
  }

  [[noreturn]] void refuse(std::int64_t counts) const {
    throw std::invalid_argument(fmt::format(
        "{} groups of ranks meet in {} ways that all differ (where documents and periods cut the tokens of each rank "
        "elsewhere), use fewer ranks or documents, or lengths and periods that are multiples of a rank's tokens",
        groups_, counts));
  }

  TileTable& table_;
  const Mask& mask_;
  TileShape tile_;
  std::size_t groups_;
  std::vector<std::vector<TokenRange>> ranges_;  // by group
  std::vector<Index> steps_;
  std::vector<Cuts> cuts_;
  std::vector<std::size_t> cut_of_;  // by group
  Classes differences_, sums_;
};

TileTable::TileTable(const Geometry& geometry, const Mask& mask, TileShape tile) {
  Builder(geometry, mask, tile, *this);
}

TileWork TileTable::of(int query_group) const {
  TileWork sum;
  for (std::size_t k = 0; k < key_.size(); ++k) sum += at(query_group, static_cast<int>(k));
  return sum;
}

}  // namespace orrery
