#include "scenarios/scenario.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <stdexcept>
#include <utility>

#include "scenarios/cluster_reader.hpp"
#include "scenarios/link_timings.hpp"
#include "scenarios/preset_files.hpp"
#include "scenarios/reader.hpp"

namespace orrery {
namespace {

constexpr Index most_tokens = Index{1} << 31;  // pair counts stay below 2^63

void read_workload(const Table& table, Scenario& s) {
  s.model = table.load("model", "models", load_model);
  s.tokens = table.count("tokens", 1, most_tokens);
  s.batch = table.count("batch", 1, 1 << 20);
  s.dtype = table.choice("dtype", {"bf16", "fp16", "fp32"});
  const std::string pass = table.choice("pass", {"forward", "training_step", "decode"});
  s.backward = pass == "training_step";
  s.decode = pass == "decode";
  if (table.has("regime") && table.choice("regime", {"sustained", "burst"}) == "burst") s.regime = Regime::burst;
  const std::string scope = table.choice("scope", {"attention", "layers", "step"});
  s.whole_layers = scope == "layers";
  s.whole_step = scope == "step";
  if (s.decode && !s.whole_step)
    throw table.error_at("pass", "decode is simulated as a whole step only (scope is less), write scope = \"step\"");
  if (table.has("matrix_dtype")) {
    s.fp8_matrices = table.choice("matrix_dtype", {"fp8", s.dtype.c_str()}) == "fp8";
    if (s.fp8_matrices && (!s.whole_step || s.dtype == "fp32")) {
      throw table.error_at(
          "matrix_dtype",
          "matrices in fp8 are those of a whole step beside 16-bit attention (this is something else), "
          "write scope = \"step\" and dtype = \"bf16\"");
    }
  }
  s.layers = static_cast<int>(s.model.layers);
  if (table.has("layers")) s.layers = static_cast<int>(table.count("layers", 1, s.model.layers));
}

std::vector<int> read_layers(const Table& table, int layers) {
  std::vector<int> chosen;
  if (!table.has("layers")) return chosen;
  if (table.is_table("layers")) {
    const Table every = table.table("layers");
    const auto step = static_cast<int>(every.count("every", 1, layers));
    for (int layer = step; layer <= layers; layer += step) chosen.push_back(layer);
    return chosen;
  }
  for (const Index layer : table.counts("layers")) {
    if (layer < 1 || layer > layers) {
      throw table.error_at("layers", fmt::format("layer {} does not exist (the model has layers 1 to {}), write one of "
                                                 "them",
                                                 layer, layers));
    }
    chosen.push_back(static_cast<int>(layer));
  }
  if (chosen.empty())
    throw table.error_at(
        "layers", "layers is an empty list (the pattern would never be used), name a layer or leave the key out");
  return chosen;
}

/// A lag or count that may be negative in the file, so that the message can say what is wrong with that.
Index signed_count(const Table& table, std::string_view key) {
  if (table.is_string(key)) return table.count(key);
  const double value = table.number(key);
  constexpr double most = 9007199254740992.0;  // 2^53, from where on doubles skip whole numbers
  if (std::abs(value) >= most) {
    throw table.error_at(key, fmt::format("{} = {} is out of range (2^53 or more), write less", key, value));
  }
  if (value != std::floor(value)) {
    throw table.error_at(key, fmt::format("{} = {} is not a whole number (it counts tokens), round it", key, value));
  }
  return static_cast<Index>(value);
}

Primitive read_primitive(const Table& table, bool causal, int layers) {
  Primitive p;
  const std::string kind = table.choice("kind", {"full", "window", "stride", "sink", "gated_skip"});
  std::string number = "kind";
  if (kind == "window") {
    p.kind = Primitive::Kind::window;
    p.left = signed_count(table, number = "left");
    if (!causal) {
      p.right = signed_count(table, "right");
    } else if (table.has("right") && signed_count(table, "right") != 0) {
      throw table.error_at(
          "right",
          "right is not 0, but attention is causal (no later tokens are seen), write right = 0 or causal = false");
    }
    if (p.left >= 0) number = "right";
  } else if (kind == "stride") {
    p.kind = Primitive::Kind::stride;
    p.period = signed_count(table, number = "period");
    const bool all = table.is_string("count") && table.string("count") == "all";
    p.count = all ? 0 : signed_count(table, "count");
    if (!all && p.count == 0) throw table.error_at("count", "count = 0 skips nothing, write 1 or more, or \"all\"");
    if (p.period >= 1) number = "count";
  } else if (kind == "sink") {
    p.kind = Primitive::Kind::sink;
    p.first = signed_count(table, number = "first");
    if (p.first == 0) throw table.error_at("first", "first = 0 adds no key, write 1 or more, or leave the sink out");
  } else if (kind == "gated_skip") {
    p.kind = Primitive::Kind::gated_skip;
    p.period = signed_count(table, number = "period");
    if (!causal)
      throw table.error_at(
          "kind", "a gated skip adds the value of an earlier token, but attention is not causal, write causal = true");
  }
  p.layers = read_layers(table, layers);
  try {
    check(p, layers);
  } catch (const std::invalid_argument& error) {
    throw table.error_at(p.layers.empty() ? number : "layers", error.what());
  }
  return p;
}

void read_attention(const Table& table, Scenario& s) {
  s.causal = table.boolean("causal");
  if (table.has("documents")) {
    s.documents = table.counts("documents");
    Index left = s.tokens;
    for (const Index length : s.documents) {
      if (length < 1 || length > left) {
        throw table.error_at("documents",
                             fmt::format("a document has {} tokens (of workload.tokens = {} the ones before "
                                         "leave {}), make positive lengths add up to it",
                                         length, s.tokens, left));
      }
      left -= length;
    }
    if (left > 0) {
      throw table.error_at("documents", fmt::format("the documents have {} tokens in all (workload.tokens = {}), make "
                                                    "positive lengths add up to it",
                                                    s.tokens - left, s.tokens));
    }
  }
  s.pattern_of_model = s.causal && !table.has("pattern") && !s.model.attention.empty();
  if (s.pattern_of_model) {
    s.primitives = s.model.attention;
  } else {
    for (const Table& primitive : table.tables("pattern"))
      s.primitives.push_back(read_primitive(primitive, s.causal, s.layers));
  }
  try {
    const Pattern pattern = s.pattern();
    const TokenSet all({{0, s.tokens, 1}});
    for (int c = 0; c < pattern.classes(); ++c) {
      if (pattern.mask(c, s.tokens, s.causal, s.documents).pairs(all, all) > 0) continue;
      throw std::invalid_argument(
          fmt::format("{} holds no pair of tokens (a period is not shorter than the sequence or its documents, a "
                      "stride leaves out the token itself, and a gated skip reads no key), add a window, e.g. left = "
                      "0, or use a shorter period",
                      pattern.describe(c)));
    }
  } catch (const std::invalid_argument& error) {
    throw table.error_at(s.pattern_of_model ? "causal" : "pattern", error.what());
  }
}

template <class Row>
const Row& chosen_row(const Table& table, std::string_view key, std::span<const Row> rows) {
  std::vector<std::string> names;
  for (const Row& row : rows) names.emplace_back(row.name);
  const std::string name = table.choice(key, names);
  return rows[static_cast<std::size_t>(std::find(names.begin(), names.end(), name) - names.begin())];
}

void check_implementation(const Table& table, const Scenario& s) {
  const Implementation& i = s.implementation;
  const auto knows = [](const std::vector<std::string>& names, std::string_view name) {
    return std::find(names.begin(), names.end(), name) != names.end();
  };
  if (!knows(i.schedules, s.schedule->name)) {
    throw table.error_at(
        "implementation",
        fmt::format("{} does not run schedule {} (it runs {}), choose one of these or another implementation", i.name,
                    s.schedule->name, fmt::join(i.schedules, ", ")));
  }
  if (!knows(i.layouts, s.layout)) {
    throw table.error_at(
        "implementation",
        fmt::format("{} does not use layout {} (it uses {}), choose one of these or another implementation", i.name,
                    s.layout, fmt::join(i.layouts, ", ")));
  }
  if (!s.full_pattern() && !i.sparse) {
    throw table.error_at(
        "implementation",
        fmt::format("{} runs full attention only (the pattern is sparse), choose another implementation", i.name));
  }
}

int degree(const Table& table, std::string_view key, Rank ranks) {
  const Index value = table.count(key, 1, ranks);
  if (ranks % value != 0) {
    throw table.error_at(key, fmt::format("{} = {} does not divide ranks = {}, use a divisor", key, value, ranks));
  }
  return static_cast<int>(value);
}

int optional_count(const Table& table, std::string_view key, Index most) {
  return table.has(key) ? static_cast<int>(table.count(key, 1, most)) : 1;
}

/// Of a whole step: what of the ranks is left for the sequence.
Rank read_degrees(const Table& table, Rank ranks, Scenario& s) {
  Degrees& d = s.degrees;
  d.data = optional_count(table, "data_parallel", ranks);
  d.tensor = optional_count(table, "tensor_parallel", ranks);
  d.pipeline = optional_count(table, "pipeline_parallel", ranks);
  d.virtual_stages = optional_count(table, "virtual_stages", s.layers);
  s.microbatches = optional_count(table, "microbatches", 1 << 20);
  const std::int64_t product = std::int64_t{1} * d.data * d.tensor * d.pipeline;
  if (ranks % product != 0) {
    throw table.error_at("ranks", fmt::format("data_parallel x tensor_parallel x pipeline_parallel = {} does not "
                                              "divide ranks = {} (the quotient shares a sequence), change one of them",
                                              product, ranks));
  }
  if (s.model.heads % d.tensor != 0 || (s.model.kv_heads % d.tensor != 0 && d.tensor % s.model.kv_heads != 0)) {
    throw table.error_at("tensor_parallel", fmt::format("{} ranks cannot share {} heads and {} KV heads evenly, use a "
                                                        "divisor of {}",
                                                        d.tensor, s.model.heads, s.model.kv_heads, s.model.heads));
  }
  if (s.layers % (d.pipeline * d.virtual_stages) != 0) {
    throw table.error_at("pipeline_parallel",
                         fmt::format("{} layers cannot be dealt out to {} stages of {} chunks (each gets as many), use "
                                     "a divisor of {}",
                                     s.layers, d.pipeline, d.virtual_stages, s.layers));
  }
  if (d.virtual_stages > 1 && (d.pipeline == 1 || s.microbatches % d.pipeline != 0)) {
    throw table.error_at("virtual_stages", fmt::format("{} microbatches are not a multiple of {} pipeline stages above "
                                                       "1 (interleaved stages take turns), change one of them",
                                                       s.microbatches, d.pipeline));
  }
  if (s.batch % (static_cast<Index>(d.data) * s.microbatches) != 0) {
    throw table.error_at("microbatches",
                         fmt::format("{} sequences cannot be dealt out to {} data-parallel replicas of {} microbatches "
                                     "(each gets as many), change one of them",
                                     s.batch, d.data, s.microbatches));
  }
  if (table.has("sequence_parallel")) d.sequence_parallel = table.boolean("sequence_parallel");
  if (s.backward) {
    d.zero = static_cast<int>(table.count("zero", 0, 3));
    std::vector<std::string> names(recompute_names().begin(), recompute_names().end());
    const std::string name = table.choice("recompute", names);
    s.recompute = static_cast<Recompute>(std::find(names.begin(), names.end(), name) - names.begin());
    if (table.has("fused_loss")) s.fused_loss = table.boolean("fused_loss");
    if (table.has("blockwise_ffn")) s.blockwise_ffn = table.boolean("blockwise_ffn");
    if (table.has("memory_accounts"))
      s.six_block_accounts = table.choice("memory_accounts", {"buffers", "six_blocks"}) == "six_blocks";
  }
  return ranks / static_cast<Rank>(product);
}

void read_parallelism(const Table& table, Scenario& s) {
  auto ranks = static_cast<Rank>(table.count("ranks", 1, 65536));
  if (s.whole_step) ranks = read_degrees(table, ranks, s);
  s.degrees.context = ranks;
  s.schedule = &chosen_row(table, "schedule", schedules());
  const Layout& layout = chosen_row(table, "layout", layouts());
  s.layout = layout.name;
  if (s.layout == "residue") s.residue_period = table.count("residue_period", 1, most_tokens);
  s.implementation = table.load("implementation", "implementations", load_implementation);
  check_implementation(table, s);
  using HeadExchange = ScheduleKind::HeadExchange;
  if (s.schedule->head_exchange == HeadExchange::all_ranks) s.members = ranks;
  if (s.schedule->head_exchange == HeadExchange::stated) s.members = degree(table, "ulysses_degree", ranks);
  s.groups = ranks / s.members;
  if (s.schedule->needs_inner_ring) s.inner_ring = degree(table, "inner_ring", s.groups);
  try {
    geometry_of(s);
  } catch (const std::invalid_argument& error) {
    throw table.error_at("ranks", error.what());
  }
  const int kv_share = std::max(1, static_cast<int>(s.model.kv_heads) / (s.members * s.degrees.tensor));
  if (s.implementation.gather_kv_heads > 0 && kv_share % s.implementation.gather_kv_heads != 0) {
    throw table.error_at(
        "implementation",
        fmt::format("{} gathers {} KV heads at a time (which does not divide the {} KV heads of a rank), choose "
                    "another implementation, or copy its file and set kv_heads_at_a_time to a divisor "
                    "or \"all\"",
                    s.implementation.name, s.implementation.gather_kv_heads, kv_share));
  }
}

void read_cluster_table(const Table& table, Scenario& s) {
  s.gpu = table.load("gpu", "hardware", load_gpu);
  if (!s.gpu.peaks.contains(s.dtype)) {
    throw table.error_at("gpu",
                         fmt::format("{} has no {} peak in its file, use another dtype or GPU", s.gpu.name, s.dtype));
  }
  if (s.fp8_matrices && !s.gpu.peaks.contains("fp8"))
    throw table.error_at(
        "gpu", fmt::format("{} has no fp8 peak in its file, use another GPU or leave matrix_dtype out", s.gpu.name));
  const auto load_profile_of_gpu = [&](const std::string& name, const std::filesystem::path& mentioned_in) {
    return profile_for(s.gpu, name, mentioned_in);
  };
  s.profile = table.load("profile", "profiles", load_profile_of_gpu, s.gpu.name);
  ClusterDescription description = read_cluster(table, s.ranks(), s.gpu, s.profile.link_efficiency.value);
  s.topology = std::move(description.topology);
  s.links = std::move(description.links);
  s.cluster = std::move(description.cluster);
  s.node_size = description.node_size;
  if (s.gpu.sms > 0 && s.implementation.sms.value >= static_cast<double>(s.gpu.sms)) {
    throw table.error_at("gpu",
                         fmt::format("{} transfers hold {} SMs, but a {} has {}; nothing would be left to compute",
                                     s.implementation.name, s.implementation.sms.value, s.gpu.name, s.gpu.sms));
  }
}

}  // namespace

bool Scenario::full_pattern() const {
  return std::all_of(primitives.begin(), primitives.end(),
                     [](const Primitive& p) { return p.kind == Primitive::Kind::full; });
}

Index Scenario::longest_document() const {
  return documents.empty() ? tokens : *std::max_element(documents.begin(), documents.end());
}

std::vector<bool> Scenario::gates() const {
  const Pattern all = pattern();
  std::vector<bool> gates;
  for (int c = 0; c < all.classes(); ++c) gates.push_back(all.is_gated(c, longest_document()));
  return gates;
}

bool Scenario::has_gates() const {
  const std::vector<bool> all = gates();
  return std::find(all.begin(), all.end(), true) != all.end();
}

GpuPeaks peaks_of(const Scenario& s) {
  return {s.gpu.peak(s.dtype), s.gpu.hbm_bandwidth, static_cast<int>(s.gpu.sms)};
}

double bytes_per_element(std::string_view dtype) {
  return dtype == "fp32" ? 4.0 : 2.0;
}

Scenario load_scenario(const std::filesystem::path& file) {
  return read_scenario(Table::parse_file(file));
}

Scenario read_scenario(const Table& table) {
  Scenario s;
  s.file = table.file();
  s.name = s.file.stem().string();
  s.description = table.string("description");
  read_workload(table.table("workload"), s);
  read_attention(table.table("attention"), s);
  read_parallelism(table.table("parallelism"), s);
  read_cluster_table(table.table("cluster"), s);
  if (const auto faults = table.optional_table("faults"))
    s.fault_plan = read_fault_plan(*faults, s.cluster, s.profile.link_efficiency.value);
  if (const auto variation = table.optional_table("variation")) s.variation = read_variation(*variation, s.ranks());
  table.finish();
  return s;
}

const Layout& layout_of(const Scenario& s) {
  return *std::find_if(layouts().begin(), layouts().end(), [&](const Layout& l) { return l.name == s.layout; });
}

/// A tensor rank has its share of the heads; a replica its share of the batch, one microbatch at a time.
Geometry geometry_of(const Scenario& s) {
  const int tensor = s.degrees.tensor;
  return make_geometry(layout_of(s), s.tokens, s.residue_period, s.groups, s.members,
                       static_cast<int>(s.model.heads) / tensor,
                       std::max(1, static_cast<int>(s.model.kv_heads) / tensor), static_cast<int>(s.model.head_dim),
                       s.batch / (s.degrees.data * s.microbatches));
}

AttentionProgram build_program(const Scenario& s) {
  return AttentionProgram(attention_input(s));
}

AttentionProgramInput attention_input(const Scenario& s) {
  AttentionProgramInput input;
  input.geometry = geometry_of(s);
  input.implementation = s.implementation;
  input.profile = s.profile;
  input.peaks = peaks_of(s);
  input.clock_cap = s.regime;
  const auto scored = [](const Primitive& p) { return p.kind != Primitive::Kind::gated_skip; };
  const auto first_scored = std::find_if(s.primitives.begin(), s.primitives.end(), scored);
  input.plain_window = std::count_if(s.primitives.begin(), s.primitives.end(), scored) == 1 &&
                       first_scored->kind == Primitive::Kind::window;
  input.links = link_timings(s);
  input.element_bytes = bytes_per_element(s.dtype);
  if (s.whole_layers) {
    const ModelShape& m = s.model;
    const double rows = static_cast<double>(s.tokens) / s.ranks() * static_cast<double>(s.batch);
    const auto hidden = static_cast<double>(m.hidden), ffn = static_cast<double>(m.ffn_hidden);
    const auto queries = static_cast<double>(m.heads * m.head_dim), keys = static_cast<double>(m.kv_heads * m.head_dim);
    input.dense = {.products = {{rows, queries + 2 * keys, hidden},
                                {rows, hidden, queries},
                                {rows, (m.gated_ffn ? 2 : 1) * ffn, hidden},
                                {rows, hidden, ffn}},
                   .element_bytes = input.element_bytes,
                   .result_bytes = input.element_bytes,
                   .row_alignment = row_alignment({hidden, ffn, queries, keys}, input.element_bytes)};
  }
  const Pattern pattern = s.pattern();
  set_masks(input, pattern, s.tokens, s.causal, s.documents);
  input.gates = s.gates();
  for (int layer = 0; layer < s.layers; ++layer) input.class_of_layer.push_back(pattern.class_of_layer(layer));
  input.schedule = s.schedule;
  input.inner_ring = s.inner_ring;
  // A gather goes over nodes first if the ranks fill them evenly.
  const bool fills_nodes = s.node_size > 1 && s.members == 1 && s.groups % s.node_size == 0 && s.groups > s.node_size;
  if (fills_nodes && !s.schedule->needs_inner_ring) input.inner_ring = s.node_size;
  input.backward = s.backward;
  return input;
}

}  // namespace orrery
