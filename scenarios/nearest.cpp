#include "scenarios/nearest.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <vector>

namespace orrery {
namespace {

std::string in_lower_case(std::string_view text) {
  std::string lower(text);
  for (char& c : lower) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  return lower;
}

}  // namespace

std::size_t edit_distance(std::string_view a, std::string_view b) {
  // Names are short; a longer text is not a typing error, and the table below is quadratic.
  constexpr std::size_t longest = 128;
  if (a.size() > longest || b.size() > longest) return std::max(a.size(), b.size());

  // Rows i-2, i-1 and i of the table of the restricted Damerau-Levenshtein distance.
  std::vector<std::size_t> before(b.size() + 1), previous(b.size() + 1), current(b.size() + 1);
  for (std::size_t j = 0; j <= b.size(); ++j) previous[j] = j;
  for (std::size_t i = 1; i <= a.size(); ++i) {
    current[0] = i;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t substitute = previous[j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1);
      current[j] = std::min({previous[j] + 1, current[j - 1] + 1, substitute});
      const bool swapped = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
      if (swapped) current[j] = std::min(current[j], before[j - 2] + 1);
    }
    before.swap(previous);
    previous.swap(current);
  }
  return previous[b.size()];
}

std::optional<std::string> nearest(std::string_view typed, std::span<const std::string> names) {
  const std::string lower = in_lower_case(typed);
  const std::string* best = nullptr;
  std::size_t least = 0;
  for (const std::string& name : names) {
    const std::size_t distance = edit_distance(lower, in_lower_case(name));
    if (distance > std::max(typed.size(), name.size()) / 3) continue;
    if (best != nullptr && distance >= least) continue;
    best = &name;
    least = distance;
  }
  if (best != nullptr) return *best;
  const auto longer = std::find_if(names.begin(), names.end(),
                                   [&](const std::string& name) { return in_lower_case(name).starts_with(lower); });
  if (typed.size() < 2 || longer == names.end()) return std::nullopt;
  return *longer;
}

std::string suggest(std::string_view typed, std::span<const std::string> names) {
  if (names.empty()) return "none is known";
  const std::string known = fmt::format("known: {}", fmt::join(names, ", "));
  const auto near = nearest(typed, names);
  return near ? fmt::format("did you mean \"{}\"? ({})", *near, known) : known;
}

}  // namespace orrery
