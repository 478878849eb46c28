#include "cost_models/fit_streams.hpp"

#include <algorithm>
#include <iterator>
#include <map>

#include "cost_models/predicted_kernels.hpp"

namespace orrery {
namespace {

constexpr double scatter_of_library = 0.5;  // a library may have another kernel for another size
constexpr int fewest_sizes = 2;             // fitted sizes from which a kind has constants of its own

bool is_of_library(const std::string& kernel) {
  return kernel.find('.') != std::string::npos;
}

/// `like` lends the ratio of the two rates to a kind whose sizes do not show it.
StreamModel fit_stream(const std::string& name, const MeasuredRows& rows, Bytes cache, const StreamModel* like) {
  StreamModel model;
  model.kernel = name;
  model.cache = {"stream." + name + ".cache", cache.si(), "B", Provenance::datasheet, "L2 of the GPU's file"};
  const auto cached = std::count_if(rows.begin(), rows.end(), [&](const auto* row) { return row->bytes < cache; });
  const bool both = cached >= 2 && static_cast<std::size_t>(cached) < rows.size();
  const double ratio = like == nullptr ? 1 : like->cached_bandwidth.value / like->bandwidth.value;
  const auto constants = constants_of_stream();
  Unknowns unknowns;
  for (std::size_t c = 0; c < (both ? 3u : 2u); ++c) unknowns.add(model, constants[c], "stream." + name);
  unknowns.fit_to(
      rows, name,
      [&](const MeasuredKernel& row) {
        if (!both) model.cached_bandwidth.value = ratio * model.bandwidth.value;
        return (model.time(row.bytes) + written_first(row, model)) / row.time - 1;
      },
      is_of_library(name) ? scatter_of_library : Unknowns::contradicting_scatter);
  if (!both) {
    model.cached_bandwidth = {"stream." + name + ".cached_bandwidth", ratio * model.bandwidth.value, "B/s",
                              Provenance::assumed, "as much above `bandwidth` as in all kinds together"};
  }
  return model;
}

}  // namespace

std::vector<StreamModel> fit_streams(const MeasuredRows& rows, Bytes cache) {
  std::vector<StreamModel> models;
  if (rows.empty()) return models;
  std::map<std::string, MeasuredRows> by_family;
  for (const MeasuredKernel* row : rows) by_family[row->family].push_back(row);
  // A kernel of which nothing is known is taken to be no library's.
  MeasuredRows plain;
  std::copy_if(rows.begin(), rows.end(), std::back_inserter(plain),
               [](const auto* row) { return !is_of_library(row->kernel); });
  const StreamModel other = fit_stream("other", plain.empty() ? rows : plain, cache, nullptr);
  for (const auto& [name, of_kind] : by_family) {
    if (of_kind.size() >= fewest_sizes) models.push_back(fit_stream(name, of_kind, cache, &other));
  }
  models.push_back(other);
  return models;
}

}  // namespace orrery
