#include "scenarios/reach_reader.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>
#include <stdexcept>

#include "scenarios/data_files.hpp"
#include "scenarios/model.hpp"
#include "scenarios/reach.hpp"
#include "scenarios/reader.hpp"
#include "scenarios/scenario.hpp"

namespace orrery {
namespace {

using Kind = ReachPrimitive::Kind;

int small_count(const Table& table, std::string_view key) {
  return static_cast<int>(std::min<Index>(table.count(key), 1 << 30));
}

LayerRule read_layers(const Table& table) {
  LayerRule rule;
  if (!table.has("layers")) return rule;
  if (table.is_string("layers")) {
    rule.kind = table.row("layers", named_layer_rules()).kind;
    return rule;
  }
  if (table.is_table("layers")) {
    const Table every = table.table("layers");
    rule = {LayerRule::Kind::every, {small_count(every, "every")}};
    if (rule.list.front() < 1) throw every.error_at("every", "every = 0 names no layer, write 1 or more");
    return rule;
  }
  rule.kind = LayerRule::Kind::list;
  for (const Index layer : table.counts("layers"))
    rule.list.push_back(static_cast<int>(std::min<Index>(layer, 1 << 30)));
  if (rule.list.empty()) {
    throw table.error_at(
        "layers", "layers is an empty list (the pattern would never be used), name a layer or leave the key out");
  }
  return rule;
}

// Which keys a kind of primitive has: one reader each, in a table.

void read_full(const Table&, bool, ReachPrimitive&) {}

void read_window(const Table& table, bool causal, ReachPrimitive& p) {
  p.left = table.count("left");
  if (!causal) {
    p.right = table.count("right");
  } else if (table.optional_count("right").value_or(0) != 0) {
    throw table.error_at("right",
                         "right is not 0, but attention is causal (no later tokens are seen), write right = 0 "
                         "or causal = false");
  }
}

void read_stride(const Table& table, bool, ReachPrimitive& p) {
  p.period = table.count("period");
  const bool all = table.is_string("count") && table.string("count") == "all";
  p.count = all ? 0 : table.count("count");
  if (!all && p.count == 0) throw table.error_at("count", "count = 0 skips nothing, write 1 or more, or \"all\"");
  p.doubling = table.optional_boolean("doubling").value_or(false);
}

void read_sink(const Table& table, bool, ReachPrimitive& p) {
  p.first = table.count("first");
}

void read_block(const Table& table, bool, ReachPrimitive& p) {
  p.size = table.count("size");
  p.before = table.count("before");
}

void read_select(const Table& table, bool, ReachPrimitive& p) {
  p.query_block = table.count("query_block");
  p.size = table.count("size");
  if (table.has("density")) {
    p.density = table.number("density");
  } else {
    p.pick = table.count("pick");
  }
  p.heads = small_count(table, "heads");
  p.first = table.optional_count("except_first").value_or(0);
  p.before = table.optional_count("except_before").value_or(0);
}

void read_bucket(const Table& table, bool, ReachPrimitive& p) {
  p.buckets = table.count("buckets");
  p.heads = small_count(table, "heads");
}

void read_summary(const Table& table, bool, ReachPrimitive& p) {
  p.size = table.count("size");
}

struct KindRow {
  const char* name;
  Kind kind;
  void (*read)(const Table&, bool causal, ReachPrimitive&);
};
constexpr KindRow kinds[] = {
    {"full", Kind::full, read_full},       {"window", Kind::window, read_window},
    {"stride", Kind::stride, read_stride}, {"sink", Kind::sink, read_sink},
    {"block", Kind::block, read_block},    {"select", Kind::select, read_select},
    {"bucket", Kind::bucket, read_bucket}, {"summary", Kind::summary, read_summary},
    {"state", Kind::state, read_full},
};

ReachPrimitive read_primitive(const Table& table, bool causal) {
  const KindRow& row = table.row("kind", kinds);
  ReachPrimitive p;
  p.kind = row.kind;
  row.read(table, causal, p);
  if (table.has("stage")) p.stage = small_count(table, "stage");
  p.layers = read_layers(table);
  try {
    check(p);
  } catch (const std::invalid_argument& error) {
    throw table.error_here(error.what());
  }
  return p;
}

std::optional<ReachHardware> read_hardware(const Table& table, const ReachOverrides& overrides) {
  const std::optional<std::string> named = table.optional_string("model");
  const std::optional<Index> ranks = table.optional_count("ranks");
  const double bytes = table.has("dtype") ? bytes_per_element(table.choice("dtype", {"bf16", "fp16", "fp32"})) : 2;
  const std::optional<std::string> name = overrides.model ? overrides.model : named;
  const std::optional<Index> over = overrides.ranks ? overrides.ranks : ranks;
  if (!name || !over) return std::nullopt;
  const ModelShape model = load_model(*name, overrides.model ? std::filesystem::path() : table.file());
  return ReachHardware{static_cast<int>(model.heads), static_cast<int>(model.kv_heads),
                       static_cast<int>(model.head_dim), bytes, *over};
}

void check_documents(const ReachSequence& s, const Table& table) {
  if (s.documents.empty()) return;
  const Index sum = std::accumulate(s.documents.begin(), s.documents.end(), Index{0});
  const bool positive = std::all_of(s.documents.begin(), s.documents.end(), [](Index length) { return length > 0; });
  if (sum == s.tokens && positive) return;
  throw table.error_here(fmt::format(
      "the documents have {} tokens in all (there are {}), make positive lengths add up to it", sum, s.tokens));
}

ReachInput read_reach(const Table& table, const ReachOverrides& overrides) {
  ReachInput input;
  input.description = table.string("description");
  const Table reach = table.table("reach");
  input.pattern.causal = reach.boolean("causal");
  input.pattern.ring = reach.optional_boolean("ring").value_or(false);
  for (const Table& p : reach.tables("pattern")) {
    input.pattern.primitives.push_back(read_primitive(p, input.pattern.causal));
  }
  if (reach.has("bound")) {
    const Table bound = reach.table("bound");
    input.pattern.bound = PiParameters{bound.count("k"), bound.count("pi")};
    if (input.pattern.bound->pi < 1) throw bound.error_at("pi", "pi = 0 is not positive, write 1 or more");
  }
  const int layers = small_count(reach, "layers");
  const Index tokens = reach.count("tokens");
  const std::optional<Index> query = reach.optional_count("query");
  if (reach.has("documents")) input.sequence.documents = reach.counts("documents");
  input.hardware = read_hardware(reach, overrides);
  table.finish();
  input.sequence.layers = overrides.layers.value_or(layers);
  input.sequence.tokens = overrides.tokens.value_or(tokens);
  input.sequence.query = overrides.query              ? *overrides.query
                         : query && !overrides.tokens ? *query
                                                      : default_query(input.pattern, input.sequence.tokens);
  check_documents(input.sequence, reach);
  try {
    make_problem(input.pattern, {2, 0, input.sequence.layers, {}}, ReachView::lo);
  } catch (const std::invalid_argument& error) {
    throw reach.error_here(error.what());
  }
  return input;
}

ReachInput from_scenario(const std::filesystem::path& file, const ReachOverrides& overrides) {
  const Scenario scenario = load_scenario(file);
  ReachInput input;
  input.description = scenario.description;
  input.pattern.causal = scenario.causal;
  for (const Primitive& p : scenario.primitives) input.pattern.primitives.push_back(to_reach(p));
  input.pattern.bound = bound_of(input.pattern);
  input.sequence.documents = scenario.documents;
  input.sequence.tokens = overrides.tokens.value_or(scenario.tokens);
  if (!input.sequence.documents.empty() && input.sequence.tokens != scenario.tokens) {
    throw InputError(fmt::format("{}: --n = {} does not fit the documents (they have {} tokens), leave --n out",
                                 file.string(), input.sequence.tokens, scenario.tokens));
  }
  input.sequence.layers = overrides.layers.value_or(scenario.layers);
  input.sequence.query = overrides.query.value_or(default_query(input.pattern, input.sequence.tokens));
  const ModelShape model = overrides.model ? load_model(*overrides.model) : scenario.model;
  input.hardware =
      ReachHardware{static_cast<int>(model.heads), static_cast<int>(model.kv_heads), static_cast<int>(model.head_dim),
                    bytes_per_element(scenario.dtype), overrides.ranks.value_or(scenario.ranks())};
  return input;
}

}  // namespace

ReachInput load_reach(std::string_view name, const ReachOverrides& overrides) {
  const std::filesystem::path file = resolve(name, "reach");
  const Table table = Table::parse_file(file);
  ReachInput input = table.has("reach") ? read_reach(table, overrides) : from_scenario(file, overrides);
  input.name = file.stem().string();
  return input;
}

}  // namespace orrery
