#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "cli/csv_cell.hpp"
#include "cli/reach_output.hpp"

namespace orrery {
namespace {

using Json = nlohmann::ordered_json;

Json optional_layers(const std::optional<int>& layers) {
  return layers ? Json(*layers) : Json();
}

Json figures(const SideReach& side) {
  return {{"max_lag", side.max_lag}, {"contiguous", side.contiguous}, {"count", side.count}};
}

Json figures(const LayerReach& layer, bool both_sides) {
  Json json = figures(layer.earlier);
  if (both_sides) json["later"] = figures(layer.later);
  return json;
}

Json density(const SideReach& side, const std::vector<Interval>& bands) {
  Json list = Json::array();
  for (std::size_t b = 0; b < bands.size(); ++b) {
    const Index lags = bands[b].last - bands[b].first + 1;
    list.push_back({{"from", bands[b].first},
                    {"to", bands[b].last},
                    {"reached", side.in_bands[b]},
                    {"fraction", static_cast<double>(side.in_bands[b]) / static_cast<double>(lags)}});
  }
  return list;
}

Json resolution_json(Index resolution) {
  return resolution == 0 ? Json("state") : Json(resolution);
}

Json layer_json(const ReachResult& result, std::size_t l) {
  const ReachReport& r = result.report;
  const LayerReach& layer = r.lo.layers[l];
  const bool both = !result.input.pattern.causal;
  Json json = {{"layer", layer.layer},
               {"max_lag", layer.earlier.max_lag},
               {"contiguous", layer.earlier.contiguous},
               {"count", layer.earlier.count}};
  const bool claimed = !r.bounds.empty();
  json["bound"] = claimed ? Json(r.bounds[l]) : Json();
  json["max_lag_verdict"] = claimed ? Json(r.max_lag_verdict(l).text()) : Json();
  json["contiguous_verdict"] = claimed ? Json(judge(layer.earlier.contiguous, r.bounds[l]).text()) : Json();
  json["count_verdict"] = claimed ? Json(judge(layer.earlier.count, r.bounds[l]).text()) : Json();
  if (!r.unbounded_max.empty()) {
    json["max_lag_without_end"] = r.unbounded_max[l];
    json["cut_by_n"] = r.cut_by_n(l);
  }
  if (both) {
    json["later"] = figures(layer.later);
    const auto verdict = [&](Index exact) { return claimed ? Json(judge(exact, r.bounds[l]).text()) : Json(); };
    json["later"]["max_lag_verdict"] = verdict(layer.later.max_lag);
    json["later"]["contiguous_verdict"] = verdict(layer.later.contiguous);
    json["later"]["count_verdict"] = verdict(layer.later.count);
  }
  if (!r.exp.empty()) {
    json["lo"] = figures(layer, both);
    // The means are of both sides together.
    json["exp"] = {{"max_lag", r.exp[l].max_lag}, {"contiguous", r.exp[l].contiguous}, {"count", r.exp[l].count}};
    json["up"] = figures(r.up->layers[l], both);
  }
  if (r.coarse) json["coarse"] = figures(r.coarse->layers[l], both);
  json["density"] = density(layer.earlier, r.lo.bands);
  if (both) json["density_later"] = density(layer.later, r.lo.bands);
  return json;
}

Json cost_json(const ReachCost& cost, const ReachHardware& hardware) {
  return {{"keys_per_token", cost.pairs_per_token},
          {"flops_per_token", cost.flops_per_token},
          {"bytes_per_layer_busiest_rank", cost.bytes_busiest_rank},
          {"bytes_per_layer_all_ranks", cost.bytes_all_ranks},
          {"ranks", hardware.ranks}};
}

Json result_json(const ReachResult& result) {
  const ReachInput& input = result.input;
  const ReachReport& r = result.report;
  Json json = {{"name", input.name},
               {"description", input.description},
               {"pattern", input.pattern.describe()},
               {"tokens", input.sequence.tokens},
               {"query", input.sequence.query},
               {"resolution", resolution_json(r.resolution)}};
  json["layers"] = Json::array();
  for (std::size_t l = 0; l < r.lo.layers.size(); ++l) json["layers"].push_back(layer_json(result, l));
  json["layers_to_cover"] = optional_layers(r.lo.layers_to_cover);
  if (r.up) json["layers_to_cover_up"] = optional_layers(r.up->layers_to_cover);
  if (r.coarse) json["layers_to_cover_coarse"] = optional_layers(r.coarse->layers_to_cover);
  if (result.cost) json["cost"] = cost_json(*result.cost, *input.hardware);
  if (!result.no_cost.empty()) json["no_cost"] = result.no_cost;
  json["engine"] = r.lo.engine;
  return json;
}

std::string printed(const Json& json) {
  return json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

std::string csv_rows(const ReachResult& result) {
  const ReachReport& r = result.report;
  std::string text;
  for (std::size_t l = 0; l < r.lo.layers.size(); ++l) {
    const LayerReach& layer = r.lo.layers[l];
    const auto claimed = [&](const std::string& value) { return r.bounds.empty() ? std::string() : value; };
    text += fmt::format("{},{},{},{},{},", csv_cell(result.input.name), layer.layer, layer.earlier.max_lag,
                        layer.earlier.contiguous, layer.earlier.count);
    text += fmt::format("{},{},{},{},", claimed(r.bounds.empty() ? "" : fmt::format("{}", r.bounds[l])),
                        r.bounds.empty() ? "" : r.max_lag_verdict(l).text(),
                        r.bounds.empty() ? "" : judge(layer.earlier.contiguous, r.bounds[l]).text(),
                        r.bounds.empty() ? "" : judge(layer.earlier.count, r.bounds[l]).text());
    text += fmt::format("{},{},{}", layer.later.max_lag, layer.later.contiguous, layer.later.count);
    text += r.exp.empty()
                ? std::string(",,")
                : fmt::format(",{},{}", r.exp[l].count, r.up->layers[l].earlier.count + r.up->layers[l].later.count);
    text += fmt::format(",{},{}\n", r.resolution == 0 ? "state" : fmt::format("{}", r.resolution), r.lo.engine);
  }
  return text;
}

constexpr const char* csv_header =
    "name,layer,max_lag,contiguous,count,bound,max_lag_verdict,contiguous_verdict,count_verdict,later_max_lag,"
    "later_contiguous,later_count,exp_count,up_count,resolution,engine\n";

}  // namespace

std::string reach_json(const ReachResult& result) {
  Json json = result_json(result);
  json["wall_s"] = result.report.wall_s;
  return printed(json);
}

std::string reach_csv(const ReachResult& result) {
  return csv_header + csv_rows(result);
}

std::string comparison_json(const std::vector<ReachResult>& results) {
  Json json;
  json["mechanisms"] = Json::array();
  double wall_s = 0;
  for (const ReachResult& result : results) {
    json["mechanisms"].push_back(result_json(result));
    wall_s += result.report.wall_s;
  }
  json["wall_s"] = wall_s;
  return printed(json);
}

std::string comparison_csv(const std::vector<ReachResult>& results) {
  std::string text = csv_header;
  text.insert(text.size() - 1,
              ",keys_per_token,flops_per_token,bytes_per_layer_busiest_rank,bytes_per_layer_all_ranks");
  for (const ReachResult& result : results) {
    const std::string rows = csv_rows(result);
    const std::string costs =
        result.cost ? fmt::format(",{},{},{},{}", result.cost->pairs_per_token, result.cost->flops_per_token,
                                  result.cost->bytes_busiest_rank, result.cost->bytes_all_ranks)
                    : std::string(",,,,");
    for (std::size_t from = 0; from < rows.size();) {
      const std::size_t end = rows.find('\n', from);
      text += rows.substr(from, end - from) + costs + "\n";
      from = end + 1;
    }
  }
  return text;
}

std::string cheapest_json(const FindResult& result) {
  const CheapestPair& found = result.found;
  Json json = {{"cover", result.tokens},
               {"layers", result.layers},
               {"rule", result.rule},
               {"k", found.parameters.k},
               {"pi", found.parameters.pi},
               {"layers_to_cover", found.layers_needed},
               {"pairs", found.pairs},
               {"pairs_window_only", found.pairs_no_skip},
               {"k_window_only", found.k_no_skip},
               {"keys_per_token", result.keys_per_token()}};
  if (found.flops_per_pair > 0) json["flops_per_token"] = found.flops_per_pair * result.keys_per_token();
  return printed(json);
}

std::string cheapest_csv(const FindResult& result) {
  const CheapestPair& found = result.found;
  return fmt::format(
      "cover,layers,rule,k,pi,layers_to_cover,pairs,pairs_window_only,k_window_only,keys_per_token\n"
      "{},{},{},{},{},{},{},{},{},{}\n",
      result.tokens, result.layers, result.rule, found.parameters.k, found.parameters.pi, found.layers_needed,
      found.pairs, found.pairs_no_skip, found.k_no_skip, result.keys_per_token());
}

}  // namespace orrery
