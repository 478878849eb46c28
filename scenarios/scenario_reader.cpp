// The tables of a scenario's file, each read and checked.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <stdexcept>
#include <utility>

#include "scenarios/cluster_reader.hpp"
#include "scenarios/pattern_reader.hpp"
#include "scenarios/preset_files.hpp"
#include "scenarios/reader.hpp"
#include "scenarios/scenario.hpp"
#include "sim/contains.hpp"

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
  s.primitives = s.pattern_of_model ? s.model.attention : read_pattern(table, s.causal, s.layers);
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

void check_implementation(const Table& table, const Scenario& s) {
  const Implementation& i = s.implementation;
  if (!contains(i.schedules, s.schedule->name)) {
    throw table.error_at(
        "implementation",
        fmt::format("{} does not run schedule {} (it runs {}), choose one of these or another implementation", i.name,
                    s.schedule->name, fmt::join(i.schedules, ", ")));
  }
  if (!contains(i.layouts, s.layout)) {
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
  s.schedule = &table.row("schedule", schedules());
  const Layout& layout = table.row("layout", layouts());
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

}  // namespace orrery
