#include <fmt/format.h>

#include <algorithm>

#include "cli/reach_output.hpp"
#include "scenarios/reach_closed_form.hpp"
#include "sim/units.hpp"

namespace orrery {
namespace {

/// Layers 1, 2, 4, 8, ... and the last: enough of a table for the eye.
std::vector<int> some_layers(int layers) {
  std::vector<int> some;
  for (int layer = 1; layer < layers; layer *= 2) some.push_back(layer);
  some.push_back(layers);
  return some;
}

std::string covers_text(const std::optional<int>& layers, int of) {
  return layers ? fmt::format("{}", *layers) : fmt::format("more than {}", of);
}

/// Rule A has a closed form that knows the answer beyond the last layer.
std::optional<Index> closed_form_cover(const ReachInput& input) {
  const auto& p = input.pattern.primitives;
  const bool two = input.pattern.causal && input.pattern.bound && p.size() == 2 && input.sequence.documents.empty() &&
                   input.sequence.query == input.sequence.tokens - 1;
  if (!two || p[0].stage != p[1].stage || p[0].kind == p[1].kind) return std::nullopt;
  for (const ReachPrimitive& one : p) {
    if (one.layers.kind != LayerRule::Kind::all || one.doubling) return std::nullopt;
    if (one.kind == ReachPrimitive::Kind::stride && one.count != 1) return std::nullopt;
  }
  const PiParameters window_and_period = bound_of(input.pattern).value_or(*input.pattern.bound);
  return rule_a_layers_to_cover(window_and_period, input.sequence.tokens);
}

std::string side_columns(const SideReach& side) {
  return fmt::format("{:>16} {:>16} {:>16}", side.max_lag, side.contiguous, side.count);
}

std::string layer_table(const ReachResult& result) {
  const ReachReport& r = result.report;
  const bool both = !result.input.pattern.causal;
  std::string text = fmt::format("{:>6} {:>16} {:>16} {:>16}", "layer", "max lag", "contiguous", "count");
  if (both) text += fmt::format(" {:>16} {:>16} {:>16}", "later: max lag", "contiguous", "count");
  if (!r.bounds.empty()) text += fmt::format(" {:>14}   {:<24} {:<24} {}", "bound", "max lag", "contiguous", "count");
  text += "\n";
  bool any_cut = false;
  for (std::size_t l = 0; l < r.lo.layers.size(); ++l) {
    const LayerReach& layer = r.lo.layers[l];
    text += fmt::format("{:>6} {}", layer.layer, side_columns(layer.earlier));
    if (both) text += " " + side_columns(layer.later);
    if (!r.bounds.empty()) {
      text += fmt::format(" {:>14}   {:<24} {:<24} {}", r.bounds[l], r.max_lag_verdict(l).text(),
                          judge(layer.earlier.contiguous, r.bounds[l]).text(),
                          judge(layer.earlier.count, r.bounds[l]).text());
    }
    if (r.cut_by_n(l)) text += " *";
    any_cut = any_cut || r.cut_by_n(l);
    text += "\n";
  }
  if (any_cut) {
    text += fmt::format(
        "* the sequence ends first: without end the largest lag of layer {} is {} (its verdict is about "
        "that); count and contiguous are those of {} tokens\n",
        r.lo.layers.back().layer, r.unbounded_max.back(), result.input.sequence.tokens);
  }
  return text;
}

std::string density_table(const ReachRun& run) {
  if (run.bands.empty()) return "";
  const std::vector<int> layers = some_layers(static_cast<int>(run.layers.size()));
  std::string text = fmt::format("Share of the lags that are reached, by layer\n{:>25}", "lags");
  for (const int layer : layers) text += fmt::format(" {:>7}", layer);
  text += "\n";
  for (std::size_t b = 0; b < run.bands.size(); ++b) {
    const Interval band = run.bands[b];
    text += fmt::format("{:>25}", band.first == band.last ? fmt::format("{}", band.first)
                                                          : fmt::format("{}-{}", band.first, band.last));
    for (const int layer : layers) {
      const Index reached = run.layers[static_cast<std::size_t>(layer - 1)].earlier.in_bands[b];
      const double share = static_cast<double>(reached) / static_cast<double>(band.last - band.first + 1);
      text += reached == 0 ? fmt::format(" {:>7}", ".") : fmt::format(" {:>5.1f} %", 100 * share);
    }
    text += "\n";
  }
  return text;
}

/// Figures of both sides together, as those of random draws are.
std::string together(const LayerReach& layer) {
  return fmt::format("{:>12} {:>12} {:>12}", std::max(layer.earlier.max_lag, layer.later.max_lag),
                     layer.earlier.contiguous + layer.later.contiguous, layer.earlier.count + layer.later.count);
}

std::string data_table(const ReachReport& r) {
  std::string text = fmt::format(
      "Data decides. lo: edges every input has; exp: mean of {} uniform random choices; up: edges some input "
      "could create\n{:>6} {:>38} {:>38} {:>38}\n{:>6}",
      expected_samples, "", "lo: max lag   contiguous        count", "exp: max lag   contiguous        count",
      "up: max lag   contiguous        count", "layer");
  text += "\n";
  for (std::size_t l = 0; l < r.exp.size(); ++l) {
    const ExpectedReach& e = r.exp[l];
    text += fmt::format("{:>6} {} {:>12.1f} {:>12.1f} {:>12.1f} {}\n", e.layer, together(r.lo.layers[l]), e.max_lag,
                        e.contiguous, e.count, together(r.up->layers[l]));
  }
  return text + fmt::format("layers to cover what some input could see: {}\n",
                            covers_text(r.up->layers_to_cover, static_cast<int>(r.exp.size())));
}

std::string cost_text(const ReachCost& cost, const ReachHardware& hardware) {
  return fmt::format(
      "keys per token {:.1f}, attention FLOPs per token and layer {:.4g}, bytes received per layer on {} GPUs: {} by "
      "the "
      "busiest, {} in all\n",
      cost.pairs_per_token, cost.flops_per_token, hardware.ranks, format(Bytes::from_si(cost.bytes_busiest_rank)),
      format(Bytes::from_si(cost.bytes_all_ranks)));
}

}  // namespace

std::string resolution_text(Index resolution) {
  return resolution == 0 ? "state" : resolution == 1 ? "1" : fmt::format("{} tokens per key", resolution);
}

std::string reach_text(const ReachResult& result) {
  const ReachInput& input = result.input;
  const ReachReport& r = result.report;
  const int layers = input.sequence.layers;
  std::string text = fmt::format("{}: {}\n", input.name, input.description);
  text += fmt::format("pattern     {}\n", input.pattern.describe());
  text += fmt::format("sequence    {} tokens, seen from token {}, {} layers\n", input.sequence.tokens,
                      input.sequence.query, layers);
  text += fmt::format("engine      {}\n", r.lo.engine);
  text += fmt::format("resolution  {}\n\n", resolution_text(r.resolution));
  text += layer_table(result) + "\n" + density_table(r.lo) + "\n";
  if (!r.exp.empty()) text += data_table(r) + "\n";
  text += fmt::format("layers to cover: {}", covers_text(r.lo.layers_to_cover, layers));
  if (const auto known = closed_form_cover(input); known && !r.lo.layers_to_cover) {
    text += fmt::format(" (rule A: {}, by its closed form)", *known);
  }
  text += "\n";
  if (r.coarse) {
    text += fmt::format("layers to cover with keys that stand for many tokens (resolution {}): {}\n",
                        resolution_text(r.resolution), covers_text(r.coarse->layers_to_cover, layers));
  }
  if (result.cost) text += cost_text(*result.cost, *input.hardware);
  if (!result.no_cost.empty()) text += fmt::format("cost        not counted: {}\n", result.no_cost);
  return text;
}

std::string comparison_text(const std::vector<ReachResult>& results) {
  std::string text = fmt::format("{:<22} {:>8} {:>6} {:>11} {:>14} {:>12} {:>12} {:>5} {:>18} {:>10} {:>10}\n",
                                 "mechanism", "tokens", "layers", "keys/token", "FLOPs/tok/layer", "B/layer/GPU",
                                 "B/layer", "GPUs", "resolution", "covers in", "at best");
  for (const ReachResult& x : results) {
    const int layers = x.input.sequence.layers;
    const ReachRun& most = x.report.up ? *x.report.up : x.report.coarse ? *x.report.coarse : x.report.lo;
    const auto known = [&](const std::string& value) { return x.cost ? value : std::string("-"); };
    const ReachCost cost = x.cost.value_or(ReachCost{});
    text += fmt::format(
        "{:<22} {:>8} {:>6} {:>11} {:>14} {:>12} {:>12} {:>5} {:>18} {:>10} {:>10}\n", x.input.name,
        x.input.sequence.tokens, layers, known(fmt::format("{:.1f}", cost.pairs_per_token)),
        known(fmt::format("{:.4g}", cost.flops_per_token)), known(format(Bytes::from_si(cost.bytes_busiest_rank))),
        known(format(Bytes::from_si(cost.bytes_all_ranks))),
        x.input.hardware ? fmt::format("{}", x.input.hardware->ranks) : "-", resolution_text(x.report.resolution),
        x.report.lo.layers_to_cover ? fmt::format("{}", *x.report.lo.layers_to_cover) : fmt::format(">{}", layers),
        most.layers_to_cover ? fmt::format("{}", *most.layers_to_cover) : fmt::format(">{}", layers));
  }
  text +=
      "covers in: layers until the query sees every token, by edges every input has. at best: with what data could "
      "add, or with keys that stand for many tokens.\n\nContiguous reach / largest lag after layer\n";
  int deepest = 1;
  for (const ReachResult& x : results) deepest = std::max(deepest, x.input.sequence.layers);
  text += fmt::format("{:<22}", "mechanism");
  for (const int layer : some_layers(deepest)) text += fmt::format(" {:>19}", layer);
  text += "\n";
  for (const ReachResult& x : results) {
    text += fmt::format("{:<22}", x.input.name);
    for (const int layer : some_layers(deepest)) {
      if (layer > x.input.sequence.layers) break;
      const SideReach& side = x.report.lo.layers[static_cast<std::size_t>(layer - 1)].earlier;
      text += fmt::format(" {:>19}", fmt::format("{} / {}", side.contiguous, side.max_lag));
    }
    text += "\n";
  }
  return text;
}

double FindResult::keys_per_token() const {
  return static_cast<double>(found.pairs) / static_cast<double>(layers) / static_cast<double>(tokens);
}

std::string cheapest_text(const FindResult& result) {
  const CheapestPair& found = result.found;
  const double share = static_cast<double>(found.pairs) / static_cast<double>(found.pairs_no_skip);
  std::string text = fmt::format(
      "cheapest pair of rule {} that lets the last of {} tokens see all of them within {} layers\n"
      "k = {}, pi = {} (covers after {} layers)\n"
      "{} query-key pairs of one head in all layers, {:.2f} keys per token and layer\n"
      "the window alone needs k = {} and {} pairs: the pair costs {:.1f} % of that\n",
      result.rule, result.tokens, result.layers, found.parameters.k, found.parameters.pi, found.layers_needed,
      found.pairs, result.keys_per_token(), found.k_no_skip, found.pairs_no_skip, 100 * share);
  if (found.flops_per_pair > 0) {
    text += fmt::format("attention FLOPs per token and layer {:.4g}\n", found.flops_per_pair * result.keys_per_token());
  }
  return text;
}

}  // namespace orrery
