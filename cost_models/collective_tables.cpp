#include "cost_models/collective_tables.hpp"

#include <algorithm>
#include <charconv>
#include <map>
#include <string>

namespace orrery {
namespace {

/// Tables of `op` by the number of ranks: "all_gather" is of two, "all_gather 4 ranks" of four.
std::map<int, const LinkTable*> tables_by_ranks(const MeasuredKernels& kernels, std::string_view link,
                                                std::string_view op) {
  std::map<int, const LinkTable*> tables;
  for (const LinkTable& table : kernels.links) {
    if (table.link != link || table.mechanism != "nccl" || !table.op.starts_with(op)) continue;
    const std::string rest = table.op.substr(op.size());
    int ranks = 2;
    if (!rest.empty()) {
      const auto [end, error] = std::from_chars(rest.data() + 1, rest.data() + rest.size(), ranks);
      if (error != std::errc() || std::string_view(end) != " ranks") continue;
    }
    tables.emplace(ranks, &table);
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
  for (std::size_t i = 0; i < result.bytes.size(); ++i) {
    const double less = lower == nullptr ? 0 : lower->time(Bytes::from_si(result.bytes[i])).si();
    const double per_rank = std::max(0.0, result.seconds[i] - less) / (upper->first - from);
    result.seconds[i] += per_rank * (ranks - upper->first);
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

}  // namespace orrery
