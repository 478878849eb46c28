#include "scenarios/preset_files.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <optional>
#include <string>

#include "cost_models/lend.hpp"
#include "scenarios/layout.hpp"
#include "scenarios/measured_profile.hpp"
#include "scenarios/model.hpp"
#include "scenarios/reader.hpp"
#include "scenarios/schedule.hpp"
#include "sim/contains.hpp"

namespace orrery {
namespace {

enum class Unit { one, seconds };

/// key = {value = ..., provenance = "...", source = "..."}
Constant constant(const Table& parent, std::string_view key, Unit unit) {
  const Table table = parent.table(key);
  Constant c;
  c.name = key;
  c.unit = unit == Unit::seconds ? "s" : "1";
  c.value = unit == Unit::seconds ? table.seconds("value").si() : table.number("value");
  if (c.value < 0) throw table.error_at("value", fmt::format("{} = {} is negative, write 0 or more", key, c.value));
  c.provenance = provenance_named(table.choice("provenance", {"measured", "fitted", "datasheet", "assumed"}));
  c.source = table.string("source");
  return c;
}

Constant fraction(const Table& parent, std::string_view key) {
  Constant c = constant(parent, key, Unit::one);
  if (!(c.value > 0 && c.value <= 1)) {
    throw parent.table(key).error_at(
        "value", fmt::format("{} = {} is not in (0, 1] (it is a fraction of a peak), write e.g. 0.7", key, c.value));
  }
  return c;
}

Constant tile_side(const Table& parent, std::string_view key) {
  Constant c = constant(parent, key, Unit::one);
  if (!(c.value >= 1 && c.value <= 65536 && c.value == std::floor(c.value))) {
    throw parent.table(key).error_at(
        "value", fmt::format("{} = {} is not a whole number from 1 to 65536, write e.g. 128", key, c.value));
  }
  return c;
}

/// Names from a table; "any" stands for all of them.
template <class Row>
std::vector<std::string> names(const Table& table, std::string_view key, std::span<const Row> known) {
  std::vector<std::string> all = names_of(known);
  if (table.is_string(key)) {
    table.choice(key, {"any"});
    return all;
  }
  const std::vector<std::string> chosen = table.strings(key);
  for (const std::string& name : chosen) {
    if (!contains(all, name)) {
      throw table.error_at(key, fmt::format("\"{}\" is unknown, known: {}", name, fmt::join(all, ", ")));
    }
  }
  return chosen;
}

int one_of(const Table& table, std::string_view key, int a, int b) {
  const std::int64_t value = table.count(key);
  if (value != a && value != b)
    throw table.error_at(key, fmt::format("{} = {} is neither {} nor {}, write one of the two", key, value, a, b));
  return static_cast<int>(value);
}

StepKernel read_step_kernel(const Table& table) {
  StepKernel kernel;
  kernel.phase = table.choice("phase", {"forward", "backward"}) == "backward" ? Phase::backward : Phase::forward;
  const std::string when =
      table.choice("when", {"begin", "first_step", "later_steps", "middle_steps", "part_queries", "part_keys", "end"});
  kernel.when = when == "end"            ? StepKernel::When::end
                : when == "begin"        ? StepKernel::When::begin
                : when == "first_step"   ? StepKernel::When::first_step
                : when == "middle_steps" ? StepKernel::When::middle_steps
                : when == "part_queries" ? StepKernel::When::part_queries
                : when == "part_keys"    ? StepKernel::When::part_keys
                                         : StepKernel::When::later_steps;
  kernel.kernel = table.string("kernel");
  kernel.query_bytes = table.optional_number("query_bytes").value_or(0);
  kernel.key_bytes = table.optional_number("key_bytes").value_or(0);
  if (kernel.query_bytes < 0 || kernel.key_bytes < 0 || kernel.query_bytes + kernel.key_bytes == 0) {
    throw table.error_here("query_bytes and key_bytes are the bytes a kernel moves per element; one must be positive");
  }
  kernel.launches = static_cast<int>(std::max<std::int64_t>(1, table.optional_count("launches").value_or(1)));
  if (table.has("of")) kernel.of_gated_skip = table.choice("of", {"any", "gated_skip"}) == "gated_skip";
  return kernel;
}

void read_ring(const Table& table, Implementation& i) {
  i.extra_ring_hop = table.choice("hops", {"P-1", "P"}) == "P";
  i.ring_backward = table.choice("backward_starts_with", {"own_block", "last_received_block"}) == "own_block"
                        ? RingBackward::own
                        : RingBackward::last_received;
  if (i.extra_ring_hop && i.ring_backward == RingBackward::last_received) {
    throw table.error_at("hops",
                         "hops = \"P\" contradicts backward_starts_with = \"last_received_block\" (after P hops the "
                         "last block is the rank's own), write \"P-1\"");
  }
}

void read_gather(const Table& table, Implementation& i) {
  const std::string attention = table.choice("attention", {"together", "per_chunk", "per_rank"});
  i.gather_attention = attention == "per_rank" ? GatherAttention::per_rank : GatherAttention::together;
  i.gather_chunks = attention == "per_chunk";
  i.gather_gradients = table.choice("gradients", {"reduce_scatter", "ring"}) == "ring"
                           ? GatherGradients::ring
                           : GatherGradients::reduce_scatter;
  if (table.is_string("kv_heads_at_a_time")) {
    table.choice("kv_heads_at_a_time", {"all"});
  } else {
    i.gather_kv_heads = static_cast<int>(table.count("kv_heads_at_a_time", 1, model_limits::heads));
  }
  if (i.gather_gradients == GatherGradients::ring && i.gather_attention == GatherAttention::together) {
    throw table.error_at("gradients",
                         "gradients = \"ring\" needs attention = \"per_rank\" (gradients travel block by block)");
  }
}

bool runs(const Implementation& i, std::initializer_list<const char*> schedules) {
  return std::any_of(i.schedules.begin(), i.schedules.end(),
                     [&](const std::string& name) { return contains(schedules, name); });
}

/// A profile as it stands in its file, and the GPU it is of.
struct FoundProfile {
  Profile profile;
  std::string gpu;
  Table file;
};

FoundProfile read_profile(const Table& table) {
  table.choice("kind", {"profile"});
  table.string("description");
  const std::string made_for = table.string("gpu");
  Profile profile;
  profile.name = table.file().stem().string();
  profile.attention_forward_efficiency = fraction(table, "attention_forward_efficiency");
  profile.attention_backward_efficiency = fraction(table, "attention_backward_efficiency");
  profile.dense_efficiency = fraction(table, "dense_efficiency");
  profile.hbm_efficiency = fraction(table, "hbm_efficiency");
  profile.link_efficiency = fraction(table, "link_efficiency");
  profile.kernel_overhead = constant(table, "kernel_overhead", Unit::seconds);
  profile.tile_query = tile_side(table, "tile_query");
  profile.tile_key = tile_side(table, "tile_key");
  if (const auto kernels = table.optional_table("kernels")) profile.kernels = read_measured_kernels(*kernels);
  if (profile.kernels) table.string("conditions");
  if (table.has("backend")) profile.backend = table.string("backend");
  table.finish();
  return {std::move(profile), made_for, table};
}

FoundProfile read_profile(std::string_view name, const std::filesystem::path& mentioned_in) {
  return read_profile(Table::parse_file(resolve(name, "profiles", mentioned_in)));
}

/// What both have a peak for; the matrix units of a GPU are compared by it.
GpuPeaks peaks_in(const Gpu& gpu, const Gpu& other) {
  for (const char* dtype : {"bf16", "fp16", "tf32", "fp32"}) {
    if (gpu.peaks.contains(dtype) && other.peaks.contains(dtype))
      return {gpu.peak(dtype), gpu.hbm_bandwidth, static_cast<int>(gpu.sms)};
  }
  return {gpu.peaks.begin()->second, gpu.hbm_bandwidth, static_cast<int>(gpu.sms)};
}

bool fits(const FoundProfile& found, std::string_view gpu) {
  return found.gpu == "any" || found.gpu == gpu;
}

InputError of_another(const FoundProfile& found, std::string_view gpu) {
  return found.file.error_at(
      "gpu",
      fmt::format("this profile is of a {0} (the scenario's GPU is {1}), use a profile of that GPU or \"peak\", or "
                  "write like = \"{0}\" into the file of {1}",
                  found.gpu, gpu));
}

}  // namespace

void check_profile(std::string_view text, const std::filesystem::path& file) {
  read_profile(Table::parse(text, file));
}

Profile load_profile(std::string_view name, std::string_view gpu) {
  FoundProfile found = read_profile(name, {});
  if (!fits(found, gpu)) throw of_another(found, gpu);
  return std::move(found.profile);
}

void keep_links_of(const Gpu& gpu, Profile& profile) {
  if (!profile.kernels) return;
  std::erase_if(profile.kernels->links, [&](const LinkTable& table) { return !contains(gpu.links, table.link); });
}

Profile profile_for(const Gpu& gpu, std::string_view name, const std::filesystem::path& mentioned_in, bool of_any_gpu) {
  FoundProfile found = read_profile(name, mentioned_in);
  if (fits(found, gpu.name)) return std::move(found.profile);
  if (!of_any_gpu && found.gpu != gpu.like) throw of_another(found, gpu.name);
  const Gpu lender = load_gpu(found.gpu);
  Profile profile = lend(std::move(found.profile), peaks_in(lender, gpu), peaks_in(gpu, lender));
  keep_links_of(gpu, profile);
  return profile;
}

Implementation load_implementation(std::string_view name, const std::filesystem::path& mentioned_in) {
  const Table table = Table::parse_file(resolve(name, "implementations", mentioned_in));
  table.choice("kind", {"implementation"});
  Implementation i;
  i.name = table.file().stem().string();
  i.description = table.string("description");
  table.string("source");
  i.schedules = names(table, "schedules", schedules());
  i.layouts = names(table, "layouts", layouts());
  i.sparse = table.choice("patterns", {"full", "any"}) == "any";
  i.transport = table.choice("transport", {"copy_engine", "nccl"}) == "nccl" ? Transport::nccl : Transport::copy_engine;
  i.sms = constant(table, "sms", Unit::one);
  if (table.has("sms_in_use")) i.nccl_send_recv = table.choice("sms_in_use", {"all", "nccl_send_recv"}) != "all";
  i.message_startup = constant(table, "message_startup", Unit::seconds);
  i.launch = constant(table, "launch", Unit::seconds);
  i.dependency = constant(table, "dependency", Unit::seconds);
  const std::pair<const char*, Constant*> host_costs[] = {{"kernel_gap", &i.kernel_gap},
                                                          {"host_call_forward", &i.host_call_forward},
                                                          {"host_call_backward", &i.host_call_backward},
                                                          {"host_attention", &i.host_attention},
                                                          {"host_message", &i.host_message},
                                                          {"host_merge", &i.host_merge}};
  for (const auto& [key, host] : host_costs) {
    if (table.has(key)) *host = constant(table, key, Unit::seconds);
  }
  if (table.has("step_kernels")) {
    for (const Table& kernel : table.tables("step_kernels")) i.step_kernels.push_back(read_step_kernel(kernel));
  }
  const std::string order = table.choice(
      "transfers_wait_for", {"data", "previous_compute", "same_step_compute", "free_sms", "free_sms_when_ahead"});
  i.transfer_order = order == "data"                  ? TransferOrder::data
                     : order == "previous_compute"    ? TransferOrder::previous_compute
                     : order == "free_sms"            ? TransferOrder::free_sms
                     : order == "free_sms_when_ahead" ? TransferOrder::free_sms_when_ahead
                                                      : TransferOrder::same_step_compute;
  if (waits_for_sms(i.transfer_order) && runs(i, {"double_ring", "all_gather", "halo"})) {
    throw table.error_at("transfers_wait_for",
                         fmt::format("transfers_wait_for = \"{}\" is for rings alone (their hops are issued together "
                                     "with an attention kernel), name schedules among ring, ulysses and usp",
                                     order));
  }
  i.merge = table.choice("merge", {"fused", "kernel"}) == "kernel" ? Merge::kernel : Merge::fused;
  if (i.merge == Merge::kernel) {
    i.merge_bytes_per_element = constant(table, "merge_bytes_per_element", Unit::one);
    if (table.has("merge_kernel")) i.merge_kernel = table.string("merge_kernel");
  }
  i.gradient_sum = table.choice("gradient_sum", {"fused", "kernel"}) == "kernel" ? Merge::kernel : Merge::fused;
  if (table.has("gradient_sum_kernel")) {
    i.gradient_sum_kernel = table.string("gradient_sum_kernel");
    i.gradient_sum_bytes = table.number("gradient_sum_bytes_per_element");
  }
  if (table.has("gradient_sum_of_skipped_blocks"))
    i.sums_skipped_blocks = table.choice("gradient_sum_of_skipped_blocks", {"none", "zeros"}) == "zeros";
  i.kv_messages = one_of(table, "kv_messages", 1, 2);
  i.gradients_in_fp32 = table.choice("gradient_dtype", {"model", "fp32"}) == "fp32";
  if (table.has("gradient_stream")) i.gradients_apart = table.choice("gradient_stream", {"shared", "own"}) == "own";
  if (runs(i, {"ring", "usp"})) read_ring(table.table("ring"), i);
  if (runs(i, {"all_gather"})) read_gather(table.table("gather"), i);
  if (const auto halo = table.optional_table("halo")) {
    i.halo_attention = halo->choice("attention", {"together", "per_rank"}) == "together" ? GatherAttention::together
                                                                                         : GatherAttention::per_rank;
    if (halo->has("backward")) i.halo_is_kept = halo->choice("backward", {"fetches", "keeps"}) == "keeps";
    if (halo->has("rows"))
      i.halo_of_whole_windows = halo->choice("rows", {"scored", "whole_windows"}) == "whole_windows";
  }
  if (runs(i, {"ulysses", "usp"})) i.qkv_messages = one_of(table.table("head_exchange"), "qkv_messages", 1, 3);
  table.finish();
  return i;
}

}  // namespace orrery
