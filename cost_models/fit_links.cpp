// Tables of measured messages: one for each kind, with a knot for each size.
#include "cost_models/fit_links.hpp"

#include <algorithm>
#include <map>

namespace orrery {
namespace {

constexpr int fewest_knots = 6;  // fitted sizes from which a kind of message has a table: with fewer it would
                                 // interpolate over factors of ten

}  // namespace

std::vector<LinkTable> tabulate_links(const MeasuredRows& messages) {
  std::vector<LinkTable> tables;
  std::map<std::string, MeasuredRows> by_family;
  for (const MeasuredKernel* row : messages) by_family[row->family].push_back(row);
  for (auto& [name, rows] : by_family) {
    if (rows.size() < fewest_knots) continue;
    std::sort(rows.begin(), rows.end(), [](const auto* a, const auto* b) { return a->bytes < b->bytes; });
    LinkTable& table = tables.emplace_back();
    table.link = rows.front()->link;
    table.mechanism = rows.front()->mechanism;
    table.op = rows.front()->op;
    table.source = files_of(rows);
    for (std::size_t first = 0, last = 0; first < rows.size(); first = last) {
      // A size that several files have counts once, with the mean. Noise must not make a longer message faster.
      double sum = 0;
      for (; last < rows.size() && rows[last]->work == rows[first]->work; ++last) sum += rows[last]->time.si();
      const double least = table.seconds.empty() ? 0 : table.seconds.back();
      table.bytes.push_back(rows[first]->bytes.si());
      table.seconds.push_back(std::max(sum / static_cast<double>(last - first), least));
    }
  }
  return tables;
}

}  // namespace orrery
