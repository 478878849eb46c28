#include "validate/orderings.hpp"

#include <fmt/format.h>

#include <map>

namespace orrery {
namespace {

std::string described(const Prediction& p) {
  return fmt::format("{} (measured {}, predicted {})", p.name, format(p.measured), format(p.predicted));
}

void compare(const Prediction& a, const Prediction& b, OrderingSummary& summary) {
  const Prediction& fast = a.measured < b.measured ? a : b;
  const Prediction& slow = a.measured < b.measured ? b : a;
  if (slow.measured / fast.measured - 1 <= fast.reading_error + slow.reading_error) return;
  ++summary.pairs;
  if (fast.predicted < slow.predicted) {
    ++summary.right;
  } else {
    summary.wrong.push_back(described(fast) + " before " + described(slow));
  }
}

}  // namespace

OrderingSummary orderings(const std::vector<Prediction>& predictions) {
  std::map<std::string, std::vector<const Prediction*>> settings;
  for (const Prediction& p : predictions) {
    if (!p.setting.empty() && p.reason.empty()) settings[p.setting].push_back(&p);
  }
  OrderingSummary summary;
  for (const auto& [setting, rows] : settings) {
    for (std::size_t i = 0; i < rows.size(); ++i) {
      for (std::size_t j = i + 1; j < rows.size(); ++j) compare(*rows[i], *rows[j], summary);
    }
  }
  return summary;
}

}  // namespace orrery
