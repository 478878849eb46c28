// orrery reach: which tokens can influence which after every layer.
#include <fmt/format.h>

#include <charconv>
#include <cstdio>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "cli/commands.hpp"
#include "cli/gnuplot.hpp"
#include "cli/reach_output.hpp"
#include "scenarios/model.hpp"
#include "scenarios/nearest.hpp"
#include "sim/units.hpp"

namespace orrery {
namespace {

/// As typed: numbers are read here, so that what is wrong with one is said in a sentence.
struct ReachOptions {
  std::string scenario, pattern, rule, k, pi, layers, n, query, ranks, model, engine, format = "text";
  std::string plot, find, cover;
  std::vector<std::string> compare;
  bool both_sides = false, ring = false;

  std::string rule_or_default() const { return rule.empty() ? "A" : rule; }
};

/// An option that would change nothing is a mistake.
void check_no_option_is_idle(const ReachOptions& o) {
  struct Row {
    const char* name;
    bool given, used;
    const char* use;
  };
  const bool pattern = !o.pattern.empty(), pi = pattern && o.pattern != "window", find = !o.find.empty();
  const Row rows[] = {
      {"k", !o.k.empty(), pattern, "--pattern"},
      {"pi", !o.pi.empty(), pi, "--pattern pi"},
      {"rule", !o.rule.empty(), pi || find, "--pattern pi and --find"},
      {"bidirectional", o.both_sides, pattern, "--pattern"},
      {"ring", o.ring, pattern, "--pattern"},
      {"cover", !o.cover.empty(), find, "--find"},
      {"n", !o.n.empty(), !find, "all but --find (which has --cover)"},
      {"query", !o.query.empty(), !find, "all but --find"},
      {"engine", !o.engine.empty(), !find, "all but --find"},
      {"ranks", !o.ranks.empty(), !find, "all but --find"},
      {"plot", !o.plot.empty(), !find, "all but --find"},
  };
  for (const Row& row : rows) {
    if (!row.given || row.used) continue;
    throw std::invalid_argument(
        fmt::format("--{} would change nothing here (it is for {}), leave it out", row.name, row.use));
  }
}

/// "4096", "-1", "128K"; anything that is no whole number of 64 bits is an error.
std::optional<Index> number(const char* name, const std::string& text) {
  if (text.empty()) return std::nullopt;
  Index value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error == std::errc() && end == text.data() + text.size()) return value;
  if (error == std::errc::result_out_of_range) {
    throw std::invalid_argument(fmt::format(
        "--{} {} is not in -2^63 to 2^63 - 1 (the whole numbers of 64 bits), use a smaller value", name, text));
  }
  try {
    return parse_count(text);
  } catch (const UnitError& problem) {
    throw std::invalid_argument(fmt::format("--{} {}: {}", name, text, problem.what()));
  }
}

Index required(const char* name, const std::string& text, const char* with) {
  if (const auto value = number(name, text)) return *value;
  throw std::invalid_argument(fmt::format("--{} is missing ({} needs it), add it", name, with));
}

std::optional<int> layer_count(const std::string& text) {
  const std::optional<Index> layers = number("layers", text);
  if (!layers) return std::nullopt;
  if (*layers < 1 || *layers > most_reach_layers) {
    throw std::invalid_argument(fmt::format("layers = {} is not in 1 to {} (attention layers), write one of these",
                                            *layers, most_reach_layers));
  }
  return static_cast<int>(*layers);
}

ReachEngine reach_engine(const std::string& name) {
  struct Row {
    const char* name;
    ReachEngine engine;
  };
  constexpr Row rows[] = {{"", ReachEngine::automatic},
                          {"auto", ReachEngine::automatic},
                          {"intervals", ReachEngine::intervals},
                          {"bitset", ReachEngine::bitset},
                          {"graph", ReachEngine::graph}};
  std::vector<std::string> names;
  for (const Row& row : rows) {
    if (name == row.name) return row.engine;
    if (*row.name != '\0') names.emplace_back(row.name);
  }
  throw std::invalid_argument(fmt::format("engine {} does not exist, {}", name, suggest(name, names)));
}

ReachOverrides overrides_of(const ReachOptions& o) {
  ReachOverrides over{layer_count(o.layers), number("n", o.n), number("query", o.query), number("ranks", o.ranks), {}};
  if (!o.model.empty()) over.model = o.model;
  return over;
}

/// --pattern pi --k 4 --pi 16 --rule A, or --pattern window --k 4.
ReachInput from_command_line(const ReachOptions& o) {
  const std::vector<std::string> known = {"pi", "window"};
  const bool window = o.pattern == "window";
  if (!window && o.pattern != "pi") {
    throw std::invalid_argument(fmt::format("pattern {} does not exist, {}; others are written as files", o.pattern,
                                            suggest(o.pattern, known)));
  }
  const PiParameters parameters{required("k", o.k, "--pattern"), window ? 1 : required("pi", o.pi, "--pattern pi")};
  ReachInput input;
  input.name = window ? "window" : "pi";
  input.pattern = pi_pattern(window ? "I" : o.rule_or_default(), parameters, !o.both_sides && !o.ring, o.ring);
  if (window) input.pattern.bound.reset();
  input.description = window
                          ? fmt::format("window of k = {}", parameters.k)
                          : fmt::format("rule {}, k = {}, pi = {}", o.rule_or_default(), parameters.k, parameters.pi);
  input.sequence.tokens = required("n", o.n, "--pattern");
  required("layers", o.layers, "--pattern");
  input.sequence.layers = *layer_count(o.layers);
  input.sequence.query = number("query", o.query).value_or(default_query(input.pattern, input.sequence.tokens));
  const ReachOverrides over = overrides_of(o);
  if (over.model && over.ranks) {
    const ModelShape model = load_model(*over.model);
    input.hardware = ReachHardware{static_cast<int>(model.heads), static_cast<int>(model.kv_heads),
                                   static_cast<int>(model.head_dim), 2, *over.ranks};
  }
  return input;
}

ReachResult computed(ReachInput input, const ReachOptions& o) {
  if (!input.hardware && !(o.model.empty() && o.ranks.empty())) {
    throw std::invalid_argument(
        "--model and --ranks need each other (FLOPs and bytes follow from both), give both or none");
  }
  ReachResult result{std::move(input), {}, {}, {}};
  result.report = report_reach(result.input.pattern, result.input.sequence, reach_engine(o.engine));
  if (result.input.hardware) {
    try {
      result.cost = reach_cost(result.input.pattern, result.input.sequence, *result.input.hardware);
    } catch (const std::invalid_argument& problem) {
      if (!(o.model.empty() && o.ranks.empty())) throw;  // it was asked for
      result.no_cost = problem.what();
    }
  }
  return result;
}

void print(const std::string& text) {
  if (std::fwrite(text.data(), 1, text.size(), stdout) != text.size()) {
    throw std::runtime_error("standard output could not be written (is the disk full?)");
  }
}

template <class... Values>
std::string formatted(const std::string& format, std::string (*text)(Values...), std::string (*json)(Values...),
                      std::string (*csv)(Values...), Values... values) {
  return (format == "json" ? json : format == "csv" ? csv : text)(values...);
}

void run_find(const ReachOptions& o) {
  if (o.find != "k,pi") {
    throw std::invalid_argument(fmt::format("--find {} cannot be searched for, write --find k,pi", o.find));
  }
  FindResult result{o.rule_or_default(), required("cover", o.cover, "--find"), 1, {}};
  required("layers", o.layers, "--find");
  result.layers = *layer_count(o.layers);
  result.found = cheapest_pair(result.rule, result.tokens, result.layers);
  if (!o.model.empty()) {
    const ModelShape model = load_model(o.model);
    result.found.flops_per_pair = 4.0 * static_cast<double>(model.head_dim * model.heads);
  }
  print(formatted<const FindResult&>(o.format, cheapest_text, cheapest_json, cheapest_csv, result));
}

void run(const ReachOptions& o) {
  const int ways = (o.scenario.empty() ? 0 : 1) + (o.pattern.empty() ? 0 : 1) + (o.compare.empty() ? 0 : 1) +
                   (o.find.empty() ? 0 : 1);
  if (ways != 1) {
    throw std::invalid_argument(fmt::format(
        "{} (there is one thing to compute at a time), give one of SCENARIO, --pattern, --compare and --find",
        ways == 0 ? "nothing to compute" : "several things to compute"));
  }
  check_no_option_is_idle(o);
  if (!o.plot.empty()) check_plot(o.plot);
  if (!o.find.empty()) return run_find(o);
  std::vector<ReachResult> results;
  if (!o.pattern.empty()) results.push_back(computed(from_command_line(o), o));
  if (!o.scenario.empty()) results.push_back(computed(load_reach(o.scenario, overrides_of(o)), o));
  for (const std::string& name : o.compare) results.push_back(computed(load_reach(name, overrides_of(o)), o));
  if (o.compare.empty()) {
    print(formatted<const ReachResult&>(o.format, reach_text, reach_json, reach_csv, results.front()));
  } else {
    print(formatted<const std::vector<ReachResult>&>(o.format, comparison_text, comparison_json, comparison_csv,
                                                     results));
  }
  if (!o.plot.empty()) plot_reach(results, o.plot);
}

}  // namespace

void add_reach(CLI::App& app) {
  auto o = std::make_shared<ReachOptions>();
  CLI::App* command = app.add_subcommand("reach", "Exact receptive fields: which tokens reach which, layer by layer");
  command->add_option("scenario", o->scenario, "A scenario or reach file, or a name of scenarios/reach, e.g. pi_A");
  command->add_option("--pattern", o->pattern, "pi or window, instead of a file");
  command->add_option("--k", o->k, "Window: earlier tokens seen");
  command->add_option("--pi", o->pi, "Period of the skips");
  command->add_option("--rule", o->rule, "Reading of the skips: I A A2 B C D E1 E2 E3 F G H (default: A)");
  command->add_flag("--bidirectional", o->both_sides, "Later tokens are seen too");
  command->add_flag("--ring", o->ring, "Positions wrap around; implies --bidirectional");
  command->add_option("--layers", o->layers, "Attention layers");
  command->add_option("--n", o->n, "Tokens, e.g. 4096 or 1M");
  command->add_option("--query", o->query, "The token to look from (default: the last; the middle if bidirectional)");
  command->add_option("--engine", o->engine, "auto, intervals, bitset or graph (default: auto)");
  command->add_option("--format", o->format, "text, json or csv")
      ->check(CLI::IsMember({"text", "json", "csv"}))
      ->capture_default_str();
  command->add_option("--plot", o->plot, "Draw lag against layer into this .svg, .png or .pdf file (with gnuplot)");
  command->add_option("--compare", o->compare, "Several files or names in one table and one figure");
  command->add_option("--find", o->find, "k,pi: the cheapest pair of --rule that covers --cover tokens in --layers");
  command->add_option("--cover", o->cover, "Tokens to cover, for --find");
  command->add_option("--model", o->model, "Model for FLOPs and bytes, e.g. llama3_8b");
  command->add_option("--ranks", o->ranks, "GPUs that share the sequence, for the bytes");
  command->callback([o] { run(*o); });
}

}  // namespace orrery
