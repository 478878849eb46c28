// Measured runs of attention on several GPUs as scenarios.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "scenarios/data_files.hpp"
#include "scenarios/preset_files.hpp"
#include "scenarios/schedule.hpp"
#include "scenarios/step_interval.hpp"
#include "scenarios/step_power.hpp"
#include "sim/contains.hpp"
#include "sim/topologies.hpp"
#include "validate/measured_rows.hpp"

namespace orrery {
namespace {

// As in scenarios.
constexpr Index most_tokens = Index{1} << 31, most_heads = 1 << 20;
constexpr Rank most_gpus = 65536;

/// How a library was told to communicate, by which its presets are told apart.
std::vector<std::string> variants_of(const std::string& library) {
  std::vector<std::string> variants;
  for (const std::string& preset : known_names("implementations")) {
    if (preset.starts_with(library + "_")) variants.push_back(preset.substr(library.size() + 1));
  }
  return variants;
}

/// A row may name a library and, apart from that, how it was told to communicate; presets are named for both. Empty if
/// there is none.
std::string known_preset(const MeasuredTable& table, std::size_t row) {
  const std::string& name = table.text(row, "implementation");
  const std::vector<std::string> names = known_names("implementations");
  for (const char* column : {"transport", "schedule"}) {
    const std::string longer = name + "_" + table.text(row, column);
    if (contains(names, longer)) return longer;
  }
  return contains(names, name) ? name : "";
}

std::string preset_of(const MeasuredTable& table, std::size_t row) {
  if (const std::string known = known_preset(table, row); !known.empty()) return known;
  const std::string& name = table.text(row, "implementation");
  if (const auto variants = variants_of(name); !name.empty() && !variants.empty()) {
    throw table.error(row,
                      fmt::format("neither transport nor schedule = \"{}\" says which of {}'s presets it is, write "
                                  "one of {} into one of these columns",
                                  table.text(row, "schedule"), name, fmt::join(variants, ", ")));
  }
  throw table.error(row, fmt::format("implementation = \"{}\" is no preset, see orrery list implementations", name));
}

/// The mask, and pi-Attention's skip beside a window if the row has a period.
std::vector<Primitive> pattern_of(const MeasuredTable& table, std::size_t row, const std::string& mask, Index tokens) {
  std::vector<Primitive> pattern(1);
  if (mask == "window") {
    pattern[0] = {.kind = Primitive::Kind::window, .left = table.whole_number(row, "window", most_tokens) - 1};
  }
  if (table.text(row, "period").empty()) return pattern;
  if (mask != "window") {
    throw table.error(row, fmt::format("period = {}, but mask = {} (a gated skip goes with a window), write the window "
                                       "or leave period empty",
                                       table.text(row, "period"), mask));
  }
  const Index period = table.whole_number(row, "period", most_tokens);
  if (period >= tokens) {
    throw table.error(row, fmt::format("period = {} reaches before the first of seq_len = {} tokens (no query has a "
                                       "value so far back), write less or leave it empty",
                                       period, tokens));
  }
  pattern.push_back({.kind = Primitive::Kind::gated_skip, .period = period});
  return pattern;
}

const ScheduleKind* schedule_named(const std::string& name) {
  const auto kinds = schedules();
  const auto found = std::find_if(kinds.begin(), kinds.end(), [&](const ScheduleKind& k) { return k.name == name; });
  return found == kinds.end() ? nullptr : &*found;
}

/// As named; empty: the preset's first. A library may have a word of its own, which is then part of the preset's name.
const ScheduleKind* schedule_of(const MeasuredTable& table, std::size_t row, const Implementation& implementation) {
  const std::string& name = table.text(row, "schedule");
  if (const ScheduleKind* named = schedule_named(name)) {
    if (contains(implementation.schedules, name)) return named;
    throw table.error(
        row, fmt::format("schedule = \"{}\", which {} does not run, write one of {} or another implementation", name,
                         implementation.name, fmt::join(implementation.schedules, ", ")));
  }
  if (!name.empty() && !implementation.name.ends_with("_" + name)) {
    throw table.error(row, fmt::format("schedule = \"{}\" is unknown to {}, write one of {}", name, implementation.name,
                                       fmt::join(implementation.schedules, ", ")));
  }
  return schedule_named(implementation.schedules.front());
}

std::string layout_of_row(const MeasuredTable& table, std::size_t row, const Implementation& implementation) {
  const std::string& name = table.text(row, "layout");
  if (name.empty()) return implementation.layouts.front();
  if (contains(implementation.layouts, name)) return name;
  throw table.error(row, fmt::format("layout = \"{}\", which {} does not use, write one of {}", name,
                                     implementation.name, fmt::join(implementation.layouts, ", ")));
}

void check_transport(const MeasuredTable& table, std::size_t row, const Implementation& implementation) {
  const std::string& transport = table.text(row, "transport");
  if (transport.empty() || transport == name_of(implementation.transport)) return;
  throw table.error(row, fmt::format("transport = \"{}\" is not that of {}, write {} or leave it empty", transport,
                                     implementation.name, name_of(implementation.transport)));
}

void check_pass(const MeasuredTable& table, std::size_t row) {
  const std::string& pass = table.text(row, "pass");
  if (pass == "forward" || pass == "backward" || pass == "forward_backward") return;
  throw table.error(
      row, fmt::format("pass = \"{}\" is neither forward, backward nor forward_backward, write one of these", pass));
}

LinkType link_of(const MeasuredTable& table, std::size_t row, const char* column, const std::string& name) {
  if (name.empty())
    throw table.error(row, fmt::format("{} is empty (messages cross it), write one of orrery list links", column));
  try {
    return load_link(name);
  } catch (const InputError&) {
    throw table.error(row, fmt::format("{} = \"{}\" is unknown, write one of orrery list links", column, name));
  }
}

/// 1 if the cell is empty.
int divisor_of_ranks(const MeasuredTable& table, std::size_t row, const char* column, int ranks) {
  if (table.text(row, column).empty()) return 1;
  const auto value = static_cast<int>(table.whole_number(row, column, most_gpus));
  if (ranks % value == 0) return value;
  throw table.error(row, fmt::format("{} = {} does not divide n_gpu = {}, write a divisor", column, value, ranks));
}

/// GPUs of one node on a switch, or of several such nodes on a network of full bisection.
void connect(const MeasuredTable& table, std::size_t row, int ranks, Scenario& s) {
  const auto used = [&](const char* column, Rank domain) {
    std::string name = table.text(row, column);
    if (name.empty() && ranks == 1 && !s.gpu.links.empty()) name = s.gpu.links.front();  // nothing is sent
    s.links.push_back({column, link_of(table, row, column, name), domain});
    const LinkType& type = s.links.back().type;
    return LinkSpec{type.bandwidth * s.profile.link_efficiency.value, type.latency};
  };
  const GpuResources gpu{static_cast<double>(s.gpu.sms), s.gpu.hbm_bandwidth};
  const int nodes = divisor_of_ranks(table, row, "nodes", ranks);
  const std::string& network = table.text(row, "network");
  if (nodes == 1 && !network.empty()) {
    throw table.error(row,
                      fmt::format("network = {}, but all GPUs are in one node (nothing crosses it), write nodes or "
                                  "leave it empty",
                                  network));
  }
  const LinkSpec link = used("link", ranks / nodes);
  if (nodes == 1) {
    s.topology = "nvswitch";
    s.cluster = nvswitch(gpu, NvSwitch{ranks, link});
    return;
  }
  s.topology = "fat_tree";
  s.node_size = ranks / nodes;
  s.cluster = fat_tree(gpu, {.nodes = nodes,
                             .node = NvSwitch{s.node_size, link},
                             .network = used("network", 1),
                             .nodes_per_pod = nodes,
                             .oversubscription = 1,
                             .uplink_latency = Seconds()});
}

PoweredResult simulated(Scenario& s, bool backward, Prediction* with_interval = nullptr) {
  s.backward = backward;
  AttentionProgram program = build_program(s);
  PoweredResult run = simulate_step(program, s);
  if (with_interval == nullptr) return run;
  Prediction& p = *with_interval;
  p.propagated = propagated_half_width(s, program, run.result).value_or(0);
  if (const auto interval = step_interval(s, program, run.result)) {
    p.band = interval->half_width;
    p.extrapolated = interval->extrapolated;
  }
  return run;
}

void simulate_run(Scenario s, const std::string& pass, Prediction& p) {
  p.implementation = s.implementation.name;
  p.transport = name_of(s.implementation.transport);
  p.schedule = s.schedule->name;
  p.mask = mask_and_layout(s);
  p.gpus = s.ranks();
  const Ticks whole = simulated(s, pass != "forward", &p).result.end;
  p.predicted = to_seconds(whole);
  if (pass == "backward") p.predicted = to_seconds(whole - simulated(s, false).result.end);
}

/// What can be wrong with a row whatever keeps it from being predicted. Of masks that no pattern is, and of a library
/// without presets, nothing is known.
void check_unpredicted(const MeasuredTable& table, std::size_t row) {
  check_numbers(table, row);
  check_pass(table, row);
  regime_of(table, row);
  batch_of(table, row);
  table.optional_boolean(row, "causal");
  for (const char* column : {"link", "network"}) {
    const std::string& name = table.text(row, column);
    if (!name.empty() && name != "local") link_of(table, row, column, name);  // local: ranks share a GPU
  }
  const std::string known = known_preset(table, row), library = table.text(row, "implementation");
  const std::vector<std::string> variants = variants_of(library);
  if (known.empty() && variants.empty()) return;
  const Implementation implementation = load_implementation(known.empty() ? library + "_" + variants.front() : known);
  if (!known.empty()) check_transport(table, row, implementation);
  schedule_of(table, row, implementation);
  layout_of_row(table, row, implementation);
}

}  // namespace

std::string cannot_simulate(const MeasuredTable& table, std::size_t row) {
  if (const std::string& reason = table.text(row, "not_predicted"); !reason.empty()) return reason;
  if (table.optional_number(row, "physical_gpus").value_or(1e9) < table.number(row, "n_gpu")) {
    return "its ranks share one GPU";
  }
  const std::string& channels = table.text(row, "channels");
  if (channels.empty() || channels == "auto") return "";
  table.whole_number(row, "channels", most_heads);
  return "its channels were limited by hand";
}

Scenario scenario_of(const MeasuredTable& table, std::size_t row, Profile profile) {
  Scenario s;
  const auto count = [&](const char* column, Index most) { return table.whole_number(row, column, most); };
  s.file = table.file();
  s.name = table.place(row);
  s.model.layers = 1;
  s.model.heads = count("heads", most_heads);
  s.model.kv_heads = count("kv_heads", most_heads);
  s.model.head_dim = count("head_dim", most_heads);
  s.model.hidden = s.model.heads * s.model.head_dim;
  if (s.model.heads % s.model.kv_heads != 0) {
    throw table.error(row, fmt::format("{} query heads do not share {} key heads evenly, write a divisor as kv_heads",
                                       s.model.heads, s.model.kv_heads));
  }
  s.tokens = count("seq_len", most_tokens);
  s.dtype = "bf16";
  s.layers = 1;
  const std::string mask = mask_of(table, row);
  s.causal = mask != "full";
  s.primitives = pattern_of(table, row, mask, s.tokens);
  s.batch = batch_of(table, row);
  s.regime = regime_of(table, row);
  s.implementation = load_implementation(preset_of(table, row));
  check_transport(table, row, s.implementation);
  s.schedule = schedule_of(table, row, s.implementation);
  s.layout = layout_of_row(table, row, s.implementation);
  const auto ranks = static_cast<int>(count("n_gpu", most_gpus));
  s.degrees.context = ranks;
  s.members = s.schedule->head_exchange == ScheduleKind::HeadExchange::all_ranks
                  ? ranks
                  : divisor_of_ranks(table, row, "ulysses_degree", ranks);
  if (s.members > 1 && s.schedule->head_exchange == ScheduleKind::HeadExchange::none) {
    throw table.error(row, fmt::format("ulysses_degree = {}, but schedule {} exchanges no heads, write usp or leave it "
                                       "empty",
                                       s.members, s.schedule->name));
  }
  s.groups = ranks / s.members;
  s.gpu = load_gpu(table.text(row, "gpu"));
  s.profile = std::move(profile);
  connect(table, row, ranks, s);
  return s;
}

namespace {

/// Also of a row that is not predicted, whose mask may be one that nobody knows.
bool is_causal(const MeasuredTable& table, std::size_t row) {
  if (!table.text(row, "causal").empty()) return table.boolean(row, "causal");
  return !table.text(row, "window").empty() || (!table.text(row, "mask").empty() && table.text(row, "mask") != "full");
}

}  // namespace

Prediction predict_attention_run(const MeasuredTable& table, std::size_t row, const Profile& profile) {
  Prediction p;
  const std::string& pass = table.text(row, "pass");
  const std::string& transport = table.text(row, "transport");
  p.group = fmt::format("{}{}", table.text(row, "implementation"), transport.empty() ? "" : " " + transport);
  const std::string &window = table.text(row, "window"), &period = table.text(row, "period");
  const auto word = [](const std::string& text) { return text.empty() ? "" : text + " "; };
  p.name =
      fmt::format("{} {} {}{} GPUs, {} tokens, {}:{} heads of {}, {}{}{}{}", table.text(row, "implementation"),
                  table.text(row, "schedule"), word(transport), table.text(row, "n_gpu"), table.text(row, "seq_len"),
                  table.text(row, "heads"), table.text(row, "kv_heads"), table.text(row, "head_dim"),
                  is_causal(table, row) ? word(table.text(row, "layout")) + "causal " : "full ",
                  window.empty() ? "" : fmt::format("window {} ", window),
                  period.empty() ? "" : fmt::format("period {} ", period), pass);
  p.reason = cannot_simulate(table, row);
  if (!p.reason.empty()) {
    check_unpredicted(table, row);
    return p;
  }
  check_numbers(table, row);
  check_pass(table, row);
  try {
    simulate_run(scenario_of(table, row, profile), pass, p);
  } catch (const MeasuredFileError&) {
    throw;
  } catch (const std::exception& error) {
    throw table.error(row, error.what());
  }
  return p;
}

}  // namespace orrery
