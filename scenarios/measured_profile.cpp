#include "scenarios/measured_profile.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <charconv>
#include <cmath>
#include <utility>

namespace orrery {
namespace {

constexpr double most_outside = 10, most_factor = 100;  // beyond them an interval says nothing

Constant read_constant(const Table& parent, std::string_view key, std::string_view unit, std::string name) {
  const Table table = parent.table(key);
  Constant c;
  c.name = std::move(name);
  c.unit = unit;
  c.value = table.number("value");
  table.choice("unit", {std::string(unit).c_str()});
  c.provenance = provenance_named(table.choice("provenance", {"measured", "fitted", "datasheet", "assumed"}));
  c.source = table.string("source");
  if (table.has("interval")) {
    const std::vector<double> interval = table.numbers("interval");
    if (interval.size() != 2 || interval[0] > interval[1]) {
      throw table.error_at("interval", "interval is not [low, high]");
    }
    c.low = interval[0];
    c.high = interval[1];
  }
  c.rows = static_cast<int>(table.optional_count("rows").value_or(0));
  return c;
}

template <class Model, std::size_t n>
void read_constants(const Table& table, const std::string& owner, const std::array<ConstantOf<Model>, n>& list,
                    Model& model, bool may_be_unknown = false) {
  for (const ConstantOf<Model>& constant : list) {
    Constant& c = model.*constant.member;
    if (constant.optional && !table.has(constant.name)) continue;
    c = read_constant(table, constant.name, constant.unit, fmt::format("{}.{}", owner, constant.name));
    const bool unknown = c.value == 0 && (constant.optional || may_be_unknown);
    if (!(c.value >= constant.lower && c.value <= constant.upper) && !unknown) {
      throw table.error_at(
          constant.name,
          fmt::format(
              "{} = {} {} is not in {} to {} (no GPU is like that; it comes of {}: {}), correct these and fit anew",
              c.name, c.value, c.unit, constant.lower, constant.upper, constant.determined_by, c.source));
    }
  }
}

/// Published rates say nothing of power: 0, all of it.
ClockModel read_clock(const Table& table) {
  ClockModel clock;
  read_constants(table, "clock", constants_of_clock(), clock, true);
  const auto require = [&](const char* key, const Constant& c, const char* why) {
    if (c.value == 0) throw table.error_at(key, fmt::format("{} is 0 ({}), fit anew or correct it", c.name, why));
  };
  require("maximum_clock", clock.maximum_clock, "nothing would run");
  require("burst_clock", clock.burst_clock, "nothing would run");
  require("tensor_flops_per_cycle", clock.tensor_flops_per_cycle, "no product would end");
  if (clock.burst_clock.value > clock.maximum_clock.value) {
    throw table.error_at("burst_clock",
                         fmt::format("{} = {} Hz is above maximum_clock = {} Hz (no kernel runs faster), correct these",
                                     clock.burst_clock.name, clock.burst_clock.value, clock.maximum_clock.value));
  }
  if (clock.idle_power.value == 0 && clock.power_limit.value == 0) return clock;
  const char* why = "with a power model all of it is needed";
  require("idle_power", clock.idle_power, why);
  require("power_limit", clock.power_limit, why);
  require("power_exponent", clock.power_exponent, why);
  require("power_lag", clock.power_lag, why);
  if (clock.power_limit.value <= clock.idle_power.value) {
    throw table.error_at("power_limit",
                         fmt::format("{} = {} W is not above idle_power = {} W (no clock would keep it), correct these",
                                     clock.power_limit.name, clock.power_limit.value, clock.idle_power.value));
  }
  return clock;
}

AttentionModel read_attention(const Table& table, bool has_power) {
  AttentionModel model;
  model.phase = table.choice("pass", {"forward", "backward"}) == "backward" ? Phase::backward : Phase::forward;
  model.head_dim = static_cast<int>(table.count("head_dim"));
  if (model.head_dim < 1) throw table.error_at("head_dim", "head_dim = 0 (no head is empty), write what was measured");
  const std::string owner = fmt::format("attention.{}.d{}", name_of(model.phase), model.head_dim);
  read_constants(table, owner, constants_of_attention(), model);
  read_constants(table, owner, constants_of_power(), model.power, !has_power);
  return model;
}

LinkTable read_link(const Table& table) {
  LinkTable link;
  link.link = table.string("link");
  link.mechanism = table.choice("mechanism", {"copy_engine", "nccl"});
  link.op = table.string("op");
  link.bytes = table.numbers("bytes");
  for (const double us : table.numbers("time_us")) link.seconds.push_back(us * 1e-6);
  link.source = table.string("source");
  if (link.bytes.size() != link.seconds.size() || link.bytes.size() < 2) {
    throw table.error_at("time_us", fmt::format("{} times for {} sizes (each size has one), give two or more of both",
                                                link.seconds.size(), link.bytes.size()));
  }
  for (std::size_t i = 1; i < link.bytes.size(); ++i) {
    const bool at_switch = link.bytes[i] == link.bytes[i - 1] + 1;
    if (!(link.bytes[i] > link.bytes[i - 1]) || (link.seconds[i] < link.seconds[i - 1] && !at_switch)) {
      throw table.error_at(
          "bytes",
          "sizes and times must grow (a longer message is not faster, but where sizes a byte apart say "
          "that more channels carry it), sort them");
    }
  }
  return link;
}

void read_rows_of_band(const Table& table, ErrorBand& band) {
  band.least_queries = table.number("least_queries");
  band.most_queries = table.number("most_queries");
  band.least_keys = table.number("least_keys");
  band.most_keys = table.number("most_keys");
  band.causal_rectangles = table.optional_boolean("causal_rectangles").value_or(false);
  if (!(band.least_queries <= band.most_queries && band.least_keys <= band.most_keys)) {
    throw table.error_at("most_queries",
                         fmt::format("no block has {} to {} queries and {} to {} keys (the numbers that "
                                     "were measured), fit anew",
                                     band.least_queries, band.most_queries, band.least_keys, band.most_keys));
  }
}

ErrorBand read_band(const Table& table) {
  ErrorBand band;
  band.group = table.string("group");
  band.inside = table.number("inside");
  band.outside = table.number("outside");
  band.least = table.number("least");
  band.most = table.number("most");
  band.rows = static_cast<int>(table.count("rows"));
  if (table.has("source")) band.source = table.string("source");
  if (!(band.inside >= 0 && band.inside < 1)) {
    throw table.error_at("inside", fmt::format("inside = {} is no half width of a 90 % interval (a fraction of the "
                                               "prediction, from 0 to below 1), fit anew",
                                               band.inside));
  }
  if (!(band.outside >= band.inside && band.outside <= most_outside)) {
    throw table.error_at("outside", fmt::format("outside = {} is not in inside = {} to {} (it is the half width beyond "
                                                "the measured range), fit anew",
                                                band.outside, band.inside, most_outside));
  }
  if (!(band.least >= 0 && band.most >= band.least && std::isfinite(band.most))) {
    throw table.error_at("least", fmt::format("the range {} to {} is empty (of FLOPs or bytes that were measured), fit "
                                              "anew",
                                              band.least, band.most));
  }
  if (table.has("most_queries")) read_rows_of_band(table, band);
  return band;
}

RunBand read_run_band(const Table& table) {
  RunBand band;
  band.implementation = table.string("implementation");
  band.transport = table.choice("transport", {"copy_engine", "nccl"});
  if (table.has("schedules")) band.schedules = table.strings("schedules");
  if (table.has("masks")) band.masks = table.strings("masks");
  band.factor = table.number("factor");
  band.rows = static_cast<int>(table.count("rows"));
  band.most_gpus = static_cast<int>(table.count("most_gpus"));
  band.shortest_s = table.number("shortest_s");
  band.longest_s = table.number("longest_s");
  band.source = table.string("source");
  if (!(band.factor > 0 && band.factor <= most_factor)) {
    throw table.error_at("factor", fmt::format("factor = {} is not in 0 to {} (of how much wider runs are than their "
                                               "kernels' bands), fit anew",
                                               band.factor, most_factor));
  }
  if (!(band.shortest_s >= 0 && band.longest_s >= band.shortest_s && std::isfinite(band.longest_s))) {
    throw table.error_at("longest_s",
                         fmt::format("the range {} to {} s is empty (of runs that were measured), fit anew",
                                     band.shortest_s, band.longest_s));
  }
  return band;
}

std::string toml_string(std::string_view text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') out += '\\';
    out += c;
  }
  return out + "\"";
}

std::string toml_strings(const std::vector<std::string>& texts) {
  std::vector<std::string> quoted;
  for (const std::string& text : texts) quoted.push_back(toml_string(text));
  return fmt::format("[{}]", fmt::join(quoted, ", "));
}

std::string constant_line(std::string_view key, const Constant& c, bool with_unit) {
  std::string line = fmt::format("{} = {{value = {:.9}", key, c.value);
  if (with_unit) line += fmt::format(", unit = {}", toml_string(c.unit));
  if (c.rows > 0 && c.high > c.low) line += fmt::format(", interval = [{:.6}, {:.6}]", c.low, c.high);
  if (c.rows > 0) line += fmt::format(", rows = {}", c.rows);
  return line +
         fmt::format(", provenance = {}, source = {}}}\n", toml_string(name_of(c.provenance)), toml_string(c.source));
}

template <class Model, std::size_t n>
std::string constant_lines(const std::array<ConstantOf<Model>, n>& list, const Model& model) {
  std::string lines;
  for (const ConstantOf<Model>& constant : list) {
    const Constant& c = model.*constant.member;
    if (constant.optional && c.source.empty()) continue;  // unknown
    lines += constant_line(constant.name, c, true);
  }
  return lines;
}

/// The eight constants of every profile; fractions and tile sides are plain numbers, times carry their unit.
std::string plain_constants(const Profile& profile) {
  std::string lines;
  const std::pair<std::string_view, const Constant*> all[] = {
      {"attention_forward_efficiency", &profile.attention_forward_efficiency},
      {"attention_backward_efficiency", &profile.attention_backward_efficiency},
      {"dense_efficiency", &profile.dense_efficiency},
      {"hbm_efficiency", &profile.hbm_efficiency},
      {"link_efficiency", &profile.link_efficiency},
      {"kernel_overhead", &profile.kernel_overhead},
      {"tile_query", &profile.tile_query},
      {"tile_key", &profile.tile_key}};
  for (const auto& [key, constant] : all) {
    const std::string value = constant->unit == "s" ? fmt::format("\"{:.6} us\"", constant->value * 1e6)
                                                    : fmt::format("{:.6}", constant->value);
    lines += fmt::format("{} = {{value = {}, provenance = {}, source = {}}}\n", key, value,
                         toml_string(name_of(constant->provenance)), toml_string(constant->source));
  }
  return lines;
}

std::string kernel_lines(const MeasuredKernels& kernels) {
  std::string text = "\n[kernels.clock]\n" + constant_lines(constants_of_clock(), kernels.clock);
  for (const AttentionModel& model : kernels.attention) {
    text += fmt::format("\n[[kernels.attention]]\npass = {}\nhead_dim = {}\n", toml_string(name_of(model.phase)),
                        model.head_dim);
    text += constant_lines(constants_of_attention(), model) + constant_lines(constants_of_power(), model.power);
  }
  if (kernels.gemm) {
    text += "\n[kernels.gemm]\n" + constant_lines(constants_of_gemm(), *kernels.gemm) +
            constant_lines(constants_of_power(), kernels.gemm->power);
  }
  for (const StreamModel& model : kernels.streams) {
    text += fmt::format("\n[[kernels.stream]]\nkernel = {}\n", toml_string(model.kernel)) +
            constant_lines(constants_of_stream(), model);
  }
  if (kernels.nccl_beside) {
    text += "\n[kernels.nccl_beside]\n" + constant_lines(constants_of_nccl_beside(), *kernels.nccl_beside);
  }
  for (const LinkTable& link : kernels.links) {
    std::vector<std::string> bytes, times;
    for (const double b : link.bytes) bytes.push_back(fmt::format("{:.0f}", b));
    for (const double s : link.seconds) times.push_back(fmt::format("{:.6}", s * 1e6));
    text += fmt::format(
        "\n[[kernels.link]]\nlink = {}\nmechanism = {}\nop = {}\nbytes = [{}]\ntime_us = [{}]\nsource = {}\n",
        toml_string(link.link), toml_string(link.mechanism), toml_string(link.op), fmt::join(bytes, ", "),
        fmt::join(times, ", "), toml_string(link.source));
  }
  for (const ErrorBand& band : kernels.bands) {
    text += fmt::format(
        "\n[[kernels.band]]\ngroup = {}\ninside = {:.5}\noutside = {:.5}\nleast = {:.6e}\nmost = {:.6e}\nrows = {}\n",
        toml_string(band.group), band.inside, band.outside, band.least, band.most, band.rows);
    if (std::isfinite(band.most_queries)) {
      text += fmt::format("least_queries = {}\nmost_queries = {}\nleast_keys = {}\nmost_keys = {}\n",
                          band.least_queries, band.most_queries, band.least_keys, band.most_keys);
    }
    if (band.causal_rectangles) text += "causal_rectangles = true\n";
    if (!band.source.empty()) text += fmt::format("source = {}\n", toml_string(band.source));
  }
  for (const RunBand& band : kernels.runs) {
    text += fmt::format(
        "\n[[kernels.run_band]]\nimplementation = {}\ntransport = {}\nschedules = {}\nmasks = {}\nfactor = {:.4}\nrows "
        "= "
        "{}\nmost_gpus = "
        "{}\nshortest_s = "
        "{:.4g}\nlongest_s = {:.4g}\nsource = {}\n",
        toml_string(band.implementation), toml_string(band.transport), toml_strings(band.schedules),
        toml_strings(band.masks), band.factor, band.rows, band.most_gpus, band.shortest_s, band.longest_s,
        toml_string(band.source));
  }
  text +=
      "\n# Digests of the rows behind the constants and behind the bands: errors of them say "
      "nothing.\n[kernels.rows]\n";
  for (const auto& [key, digests] :
       {std::pair("fitted", &kernels.fitted_rows), std::pair("calibrating", &kernels.calibrating_rows)}) {
    text += fmt::format("{} = [", key);
    int column = 0;
    for (const std::uint32_t digest : *digests)
      text += fmt::format("{}\"{:08x}\"", column++ == 0 ? "" : column % 10 == 1 ? ",\n  " : ", ", digest);
    text += "]\n";
  }
  return text;
}

RowDigests read_digests(const Table& table, std::string_view key) {
  RowDigests digests;
  for (const std::string& text : table.strings(key)) {
    std::uint32_t digest = 0;
    const auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), digest, 16);
    if (code != std::errc() || end != text.data() + text.size()) {
      throw table.error_at(key, fmt::format("\"{}\" is no digest of a row (eight hexadecimal digits), fit anew", text));
    }
    digests.insert(digest);
  }
  return digests;
}

}  // namespace

Provenance provenance_named(std::string_view name) {
  for (const Provenance p : {Provenance::measured, Provenance::fitted, Provenance::datasheet}) {
    if (name_of(p) == name) return p;
  }
  return Provenance::assumed;
}

MeasuredKernels read_measured_kernels(const Table& table) {
  MeasuredKernels kernels;
  kernels.clock = read_clock(table.table("clock"));
  const bool has_power = kernels.clock.power_limit.value > 0;
  for (const Table& attention : table.tables("attention")) {
    AttentionModel model = read_attention(attention, has_power);
    for (const AttentionModel& other : kernels.attention) {
      if (other.phase != model.phase || other.head_dim != model.head_dim) continue;
      throw attention.error_at("head_dim", fmt::format("head_dim = {} stands there twice for the {} pass (which of the "
                                                       "two holds?), leave one out",
                                                       model.head_dim, name_of(model.phase)));
    }
    kernels.attention.push_back(std::move(model));
  }
  if (const auto gemm = table.optional_table("gemm")) {
    read_constants(*gemm, "gemm", constants_of_gemm(), kernels.gemm.emplace());
    read_constants(*gemm, "gemm", constants_of_power(), kernels.gemm->power, !has_power);
  }
  if (table.has("stream")) {
    for (const Table& stream : table.tables("stream")) {
      StreamModel& model = kernels.streams.emplace_back();
      model.kernel = stream.string("kernel");
      read_constants(stream, "stream." + model.kernel, constants_of_stream(), model);
    }
  }
  if (const auto beside = table.optional_table("nccl_beside")) {
    read_constants(*beside, "nccl_beside", constants_of_nccl_beside(), kernels.nccl_beside.emplace());
  }
  if (table.has("link")) {
    for (const Table& link : table.tables("link")) kernels.links.push_back(read_link(link));
  }
  if (table.has("band")) {
    for (const Table& band : table.tables("band")) kernels.bands.push_back(read_band(band));
  }
  if (const auto rows = table.optional_table("rows")) {
    kernels.fitted_rows = read_digests(*rows, "fitted");
    kernels.calibrating_rows = read_digests(*rows, "calibrating");
  }
  if (table.has("run_band")) {
    for (const Table& band : table.tables("run_band")) kernels.runs.push_back(read_run_band(band));
  }
  return kernels;
}

std::string write_profile(const Profile& profile, std::string_view gpu, std::string_view description,
                          std::string_view conditions) {
  std::string text =
      fmt::format("kind = \"profile\"\ndescription = {}\ngpu = {}\n", toml_string(description), toml_string(gpu));
  if (!profile.backend.empty()) text += fmt::format("backend = {}\n", toml_string(profile.backend));
  if (profile.kernels) text += fmt::format("conditions = {}\n", toml_string(conditions));
  text += "\n" + plain_constants(profile);
  if (profile.kernels) text += kernel_lines(*profile.kernels);
  return text;
}

}  // namespace orrery
