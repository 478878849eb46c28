#include "cost_models/collective_tables.hpp"

#include <algorithm>
#include <charconv>
#include <map>
#include <string>

namespace orrery {
namespace {

/// Of how many ranks `name` is if it is of `op`: "all_gather" is of two, "all_gather 4 ranks" of four.
std::optional<int> ranks_of(std::string_view name, std::string_view op) {
  if (!name.starts_with(op)) return std::nullopt;
  name.remove_prefix(op.size());
  if (name.empty()) return 2;
  int ranks = 0;
  const auto [end, error] = std::from_chars(name.data() + 1, name.data() + name.size(), ranks);
  if (error != std::errc() || std::string_view(end, name.data() + name.size()) != " ranks") return std::nullopt;
  return ranks;
}

std::map<int, const LinkTable*> tables_by_ranks(const MeasuredKernels& kernels, std::string_view link,
                                                std::string_view op) {
  std::map<int, const LinkTable*> tables;
  for (const LinkTable& table : kernels.links) {
    const std::optional<int> ranks = ranks_of(table.op, op);
    if (ranks && table.link == link && table.mechanism == "nccl") tables.emplace(*ranks, &table);
  }
  return tables;
}

}  // namespace

std::optional<LinkTable> ring_collective_over(int ranks, const MeasuredKernels& kernels, std::string_view link,
                                              std::string_view op) {
  const std::map<int, const LinkTable*> tables = tables_by_ranks(kernels, link, op);
  if (ranks < 2 || tables.empty()) return std::nullopt;
  auto upper = tables.lower_bound(ranks);
  if (upper == tables.end()) --upper;
  const LinkTable* lower = upper == tables.begin() ? nullptr : std::prev(upper)->second;
  const int from = lower == nullptr ? 0 : std::prev(upper)->first;
  LinkTable result = *upper->second;
  const double launch = result.seconds.front();
  double longest = 0;  // noise times many ranks must not make a longer message faster
  for (std::size_t i = 0; i < result.bytes.size(); ++i) {
    double& time = result.seconds[i];
    const double less = lower == nullptr ? launch : lower->time(Bytes::from_si(result.bytes[i])).si();
    const double per_rank = std::max(0.0, time - less) / (upper->first - from);
    longest = time = std::max(longest, time + per_rank * (ranks - upper->first));
  }
  return result;
}

std::optional<LinkTable> all_to_all_over(int ranks, const MeasuredKernels& kernels, std::string_view link) {
  const std::map<int, const LinkTable*> tables = tables_by_ranks(kernels, link, "all_to_all");
  const auto above = tables.upper_bound(ranks);
  if (ranks < 2 || above == tables.begin()) return std::nullopt;
  const auto& [measured, table] = *std::prev(above);
  const auto sent = [](int n) { return (n - 1.0) / n; };
  LinkTable result = *table;
  for (double& bytes : result.bytes) bytes *= sent(measured) / sent(ranks);
  return result;
}

std::optional<LinkTable> collective_named(std::string_view name, const MeasuredKernels& kernels,
                                          std::string_view link) {
  constexpr std::string_view ring_collectives[] = {"all_gather", "reduce_scatter"};
  for (const std::string_view op : ring_collectives)
    if (const auto ranks = ranks_of(name, op)) return ring_collective_over(*ranks, kernels, link, op);
  if (const auto ranks = ranks_of(name, "all_to_all")) return all_to_all_over(*ranks, kernels, link);
  return std::nullopt;
}

}  // namespace orrery
