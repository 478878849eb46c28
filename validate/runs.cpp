#include "validate/runs.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <functional>
#include <map>

#include "cost_models/fit_kernels.hpp"
#include "cost_models/intervals.hpp"
#include "scenarios/data_files.hpp"
#include "scenarios/layout.hpp"
#include "scenarios/preset_files.hpp"
#include "scenarios/schedule.hpp"
#include "scenarios/step_interval.hpp"
#include "scenarios/step_power.hpp"
#include "sim/topologies.hpp"
#include "validate/run_bands.hpp"
#include "validate/step_runs.hpp"

namespace orrery {
namespace {

bool known(std::string_view folder, const std::string& name) {
  const std::vector<std::string> names = known_names(folder);
  return std::find(names.begin(), names.end(), name) != names.end();
}

/// As asked for, or as the file says, or the one named like the GPU.
std::string profile_name(const MeasuredTable& table, std::size_t row, const std::string& profile) {
  if (!profile.empty()) return profile;
  const std::string own = table.header("profile");
  return own.empty() ? table.text(row, "gpu") : own;
}

/// A row may name a library and, apart from that, how it was told to communicate; presets are named for both.
std::string preset_of(const MeasuredTable& table, std::size_t row) {
  const std::string& name = table.text(row, "implementation");
  for (const char* column : {"transport", "schedule"}) {
    const std::string longer = name + "_" + table.text(row, column);
    if (known("implementations", longer)) return longer;
  }
  if (!known("implementations", name)) {
    throw table.error(row, fmt::format("implementation = \"{}\" is no preset, see orrery list implementations", name));
  }
  return name;
}

Primitive window_of(const MeasuredTable& table, std::size_t row) {
  Primitive window;
  window.kind = Primitive::Kind::window;
  window.left = static_cast<Index>(table.number(row, "window")) - 1;
  return window;
}

const ScheduleKind* schedule_named(const std::string& name) {
  const auto kinds = schedules();
  const auto found = std::find_if(kinds.begin(), kinds.end(), [&](const ScheduleKind& k) { return k.name == name; });
  return found == kinds.end() ? nullptr : &*found;
}

Index whole_number(const MeasuredTable& table, std::size_t row, const char* column) {
  const double value = table.number(row, column);
  if (!(value >= 1 && value <= 1e12) || value != std::floor(value)) {
    throw table.error(row, fmt::format("{} = {} is not a whole number from 1 to 10^12", column, value));
  }
  return static_cast<Index>(value);
}

/// As named; empty: the preset's first. A library may have a word of its own, which is then part of the preset's name.
const ScheduleKind* schedule_of(const MeasuredTable& table, std::size_t row, const Implementation& implementation) {
  const std::string& name = table.text(row, "schedule");
  if (const ScheduleKind* named = schedule_named(name)) return named;
  if (!name.empty() && !implementation.name.ends_with("_" + name)) {
    throw table.error(row, fmt::format("schedule = \"{}\" is unknown to {}, write one of {}", name, implementation.name,
                                       fmt::join(implementation.schedules, ", ")));
  }
  return schedule_named(implementation.schedules.front());
}

std::string layout_of_row(const MeasuredTable& table, std::size_t row, const Implementation& implementation) {
  const std::string& name = table.text(row, "layout");
  if (name.empty()) return implementation.layouts.front();
  const auto& all = layouts();
  if (std::none_of(all.begin(), all.end(), [&](const Layout& layout) { return layout.name == name; })) {
    throw table.error(
        row, fmt::format("layout = \"{}\" is unknown, write one of {}", name, fmt::join(implementation.layouts, ", ")));
  }
  return name;
}

/// GPUs of one node on a switch, or of several such nodes on a network of full bisection.
void connect(const MeasuredTable& table, std::size_t row, int ranks, Scenario& s) {
  const auto used = [&](const char* column) {
    s.links.push_back({column, load_link(table.text(row, column))});
    const LinkType& type = s.links.back().type;
    return LinkSpec{type.bandwidth * s.profile.link_efficiency.value, type.latency};
  };
  const GpuResources gpu{static_cast<double>(s.gpu.sms), s.gpu.hbm_bandwidth};
  const LinkSpec link = used("link");
  const auto nodes = static_cast<int>(table.optional_number(row, "nodes").value_or(1));
  if (nodes == 1) {
    s.topology = "nvswitch";
    s.cluster = nvswitch(gpu, NvSwitch{ranks, link});
    return;
  }
  s.topology = "fat_tree";
  s.node_size = ranks / nodes;
  s.cluster = fat_tree(gpu, {.nodes = nodes,
                             .node = NvSwitch{s.node_size, link},
                             .network = used("network"),
                             .nodes_per_pod = nodes,
                             .oversubscription = 1,
                             .uplink_latency = Seconds()});
}

/// Why this row cannot be simulated; empty if it can.
std::string cannot_simulate(const MeasuredTable& table, std::size_t row) {
  if (const std::string& reason = table.text(row, "not_predicted"); !reason.empty()) return reason;
  if (table.optional_number(row, "physical_gpus").value_or(1e9) < table.number(row, "n_gpu")) {
    return "its ranks share one GPU";
  }
  const std::string& channels = table.text(row, "channels");
  if (!channels.empty() && channels != "auto") return "its channels were limited by hand";
  return "";
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

/// What two rows share that differ in the method alone.
std::string setting_of(const MeasuredTable& table, std::size_t row) {
  if (table.has("setting")) return table.file().string() + " " + table.text(row, "setting");
  std::string setting = table.file().string();
  for (const char* column : {"gpu", "link", "n_gpu", "nodes", "network", "seq_len", "heads", "kv_heads", "head_dim",
                             "causal", "mask", "window", "varlen", "pass", "regime"}) {
    setting += " " + table.text(row, column);
  }
  return setting;
}

Prediction predict_run(const MeasuredTable& table, std::size_t row, const Profile& profile) {
  Prediction p;
  const std::string& pass = table.text(row, "pass");
  const std::string& transport = table.text(row, "transport");
  p.group = fmt::format("{}{}", table.text(row, "implementation"), transport.empty() ? "" : " " + transport);
  p.name = fmt::format("{} {} {} {} GPUs, {} tokens, {}:{} heads, {}{}", table.text(row, "implementation"),
                       table.text(row, "schedule"), transport, table.text(row, "n_gpu"), table.text(row, "seq_len"),
                       table.text(row, "heads"), table.text(row, "kv_heads"),
                       table.text(row, "causal") == "true" ? table.text(row, "layout") + " causal " : "full ", pass);
  p.reason = cannot_simulate(table, row);
  if (!p.reason.empty()) return p;
  if (pass != "forward" && pass != "backward" && pass != "forward_backward") {
    throw table.error(row, fmt::format("pass = \"{}\" is neither forward, backward nor forward_backward", pass));
  }
  Scenario s = scenario_of(table, row, profile);
  p.implementation = s.implementation.name;
  p.transport = name_of(s.implementation.transport);
  p.gpus = s.ranks();
  const Ticks whole = simulated(s, pass != "forward", &p).result.end;
  p.predicted = to_seconds(whole);
  if (pass == "backward") p.predicted = to_seconds(whole - simulated(s, false).result.end);
  return p;
}

void mark_fitted(const std::vector<MeasuredKernel>& rows, const Profile& profile, std::vector<Prediction>& all) {
  if (!profile.kernels) return;
  const std::vector<RowUse> uses = split(rows);
  const auto constants = profile.constants();
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const std::string file = file_of(rows[i]);
    const auto from_here = [&](const Constant* c) {
      return c->provenance == Provenance::fitted && c->source.find(file) != std::string::npos;
    };
    const bool source = std::any_of(constants.begin(), constants.end(), from_here) ||
                        std::any_of(profile.kernels->links.begin(), profile.kernels->links.end(),
                                    [&](const LinkTable& t) { return t.source.find(file) != std::string::npos; });
    all[i].fitted = source && uses[i] == RowUse::fitted;
  }
}

std::vector<Prediction> predict_kernels(const MeasuredTable& table, const std::vector<MeasuredKernel>& rows,
                                        const Profile& profile) {
  std::vector<Prediction> all;
  const Gpu gpu = load_gpu(table.text(0, "gpu"));
  std::map<std::string, std::string> left_out;  // by place
  for (std::size_t i = 0; i < table.rows(); ++i) {
    if (!table.text(i, "not_predicted").empty()) left_out[table.place(i)] = table.text(i, "not_predicted");
  }
  const GpuPeaks peaks{gpu.peak("bf16"), gpu.hbm_bandwidth, static_cast<int>(gpu.sms)};
  for (const MeasuredKernel& row : rows) {
    Prediction p;
    p.group = row.group;
    p.name = row.shape + (row.regime == Regime::burst ? ", burst" : "");
    p.place = row.place;
    p.measured = row.time;
    const auto reason = left_out.find(row.place);
    if (reason != left_out.end()) {
      p.reason = reason->second;
      all.push_back(std::move(p));
      continue;
    }
    p.predicted = predicted_time(row, peaks, profile);
    if (!(p.predicted > Seconds())) p.reason = "the profile has no model of it";
    const ErrorBand* band = profile.kernels ? profile.kernels->band_of(row.group) : nullptr;
    if (band != nullptr) {
      p.extrapolated = row.work < band->least || row.work > band->most;
      p.band = p.extrapolated ? band->outside : band->inside;
    }
    all.push_back(std::move(p));
  }
  mark_fitted(rows, profile, all);
  return all;
}

/// Kernels, messages, slow-downs or runs; other tables, of host costs say, predict nothing.
bool holds_runs(const MeasuredTable& table) {
  std::vector<MeasuredKernel> kernels;
  add_rows(table, kernels);
  const auto all_of = [&](std::initializer_list<const char*> columns) {
    return std::all_of(columns.begin(), columns.end(), [&](const char* column) { return table.has(column); });
  };
  return !kernels.empty() || table.has("compute_overlapped_us") || table.has("nvml_sm_clock_mhz") ||
         all_of({"time_ms", "scenario"}) || all_of({"n_gpu", "time_ms", "implementation", "seq_len"});
}

}  // namespace

Profile profile_of(const MeasuredTable& table, const std::string& profile) {
  return load_profile(profile_name(table, 0, profile), table.text(0, "gpu"));
}

Scenario scenario_of(const MeasuredTable& table, std::size_t row, Profile profile) {
  Scenario s;
  const auto count = [&](const char* column) { return whole_number(table, row, column); };
  s.file = table.file();
  s.name = table.place(row);
  s.model.layers = 1;
  s.model.heads = count("heads");
  s.model.kv_heads = count("kv_heads");
  s.model.head_dim = count("head_dim");
  s.model.hidden = s.model.heads * s.model.head_dim;
  if (s.model.heads % s.model.kv_heads != 0) {
    throw table.error(row,
                      fmt::format("{} query heads do not share {} key heads evenly", s.model.heads, s.model.kv_heads));
  }
  s.tokens = count("seq_len");
  s.dtype = "bf16";
  s.layers = 1;
  s.causal = table.boolean(row, "causal");
  s.primitives = {table.optional_number(row, "window") ? window_of(table, row) : Primitive{}};
  if (table.text(row, "regime") == "burst") s.regime = Regime::burst;
  s.implementation = load_implementation(preset_of(table, row));
  s.schedule = schedule_of(table, row, s.implementation);
  s.layout = layout_of_row(table, row, s.implementation);
  const auto ranks = static_cast<int>(count("n_gpu"));
  s.degrees.context = ranks;
  s.members = s.schedule->head_exchange == ScheduleKind::HeadExchange::all_ranks
                  ? ranks
                  : static_cast<int>(table.optional_number(row, "ulysses_degree").value_or(1));
  s.groups = ranks / s.members;
  s.gpu = load_gpu(table.text(row, "gpu"));
  s.profile = std::move(profile);
  connect(table, row, ranks, s);
  return s;
}

namespace {

using ProfileOfRow = std::function<const Profile&(std::size_t row)>;

std::vector<Prediction> predict_all(const MeasuredTable& table, const ProfileOfRow& profile) {
  std::vector<MeasuredKernel> kernels;
  add_rows(table, kernels);
  if (!kernels.empty()) return predict_kernels(table, kernels, profile(0));
  if (table.has("compute_overlapped_us")) return predict_overlap(table, profile(0));
  if (table.has("nvml_sm_clock_mhz")) return predict_power(table, profile(0));
  std::vector<Prediction> all;
  const bool steps = table.has("scenario");
  for (std::size_t row = 0; row < table.rows(); ++row) {
    const std::string& status = table.text(row, "status");
    if (!status.empty() && status != "ok" && status != "planned") continue;
    Prediction p = steps ? predict_step(table, row) : predict_run(table, row, profile(row));
    p.many_gpus = true;
    p.row = row;
    p.place = table.place(row);
    const std::optional<double> time_ms = table.optional_number(row, "time_ms");
    if (time_ms && !(*time_ms > 0)) throw table.error(row, fmt::format("time_ms = {} is not positive", *time_ms));
    p.measured = Seconds::from_si(time_ms.value_or(0) * 1e-3);
    p.tolerance = table.optional_number(row, "tolerance");
    if (const std::string error = table.header("reading_error"); !error.empty()) {
      p.setting = setting_of(table, row);
      p.reading_error = std::strtod(error.c_str(), nullptr);
    }
    all.push_back(std::move(p));
  }
  return all;
}

std::vector<Prediction> predict_with(const MeasuredTable& table, const ProfileOfRow& profile) {
  if (!holds_runs(table)) return {};
  std::vector<Prediction> all = predict_all(table, profile);
  if (!all.empty() && !table.has("scenario") && calibrated_on(profile(0), table)) {
    const std::vector<bool> calibrates = calibrating_rows(table);
    for (Prediction& p : all) p.calibrated = calibrates[p.row];
  }
  const std::string folder = table.file().parent_path().filename().string();
  if (folder.empty()) return all;
  for (Prediction& p : all) p.group = fmt::format("{}: {}", folder, p.group);
  return all;
}

}  // namespace

std::vector<Prediction> predict_runs(const MeasuredTable& table, const std::string& profile) {
  std::map<std::string, Profile> loaded;
  return predict_with(table, [&](std::size_t row) -> const Profile& {
    const std::string name = profile_name(table, row, profile);
    auto found = loaded.find(name);
    if (found == loaded.end()) found = loaded.emplace(name, load_profile(name, table.text(row, "gpu"))).first;
    return found->second;
  });
}

std::vector<Prediction> predict_runs(const MeasuredTable& table, const Profile& profile) {
  return predict_with(table, [&](std::size_t) -> const Profile& { return profile; });
}

constexpr const char* all_runs = "all runs of several GPUs";

std::vector<ErrorSummary> summarize(const std::vector<Prediction>& predictions) {
  std::vector<ErrorSummary> groups;
  std::map<std::string, std::vector<const Prediction*>> rows;
  for (const Prediction& p : predictions) {
    if (p.fitted || !p.reason.empty() || !p.is_measured()) continue;
    if (!rows.contains(p.group)) groups.push_back({.group = p.group});
    rows[p.group].push_back(&p);
    if (p.many_gpus) rows[all_runs].push_back(&p);
    rows["all"].push_back(&p);
  }
  if (!rows[all_runs].empty() && rows[all_runs].size() < rows["all"].size()) groups.push_back({.group = all_runs});
  groups.push_back({.group = "all"});
  for (const Prediction& p : predictions) {
    for (ErrorSummary& group : groups) {
      const bool member = group.group == p.group || group.group == "all" || (p.many_gpus && group.group == all_runs);
      if (!p.reason.empty() && member) ++group.not_predicted;
    }
  }
  for (ErrorSummary& group : groups) {
    const auto& of_group = rows[group.group];
    if (of_group.empty()) continue;
    std::vector<double> errors;
    int covered = 0, tested = 0;
    for (const Prediction* p : of_group) {
      errors.push_back(std::abs(p->deviation()));
      group.mean_abs_rel += errors.back();
      if (p->calibrated) continue;
      ++tested;
      covered += p->within_band() ? 1 : 0;
    }
    group.rows = static_cast<int>(errors.size());
    group.mean_abs_rel /= group.rows;
    group.median_abs_rel = quantile(errors, 0.5);
    group.p90_abs_rel = quantile(errors, 0.9);
    group.max_abs_rel = quantile(errors, 1);
    group.interval_coverage = tested > 0 ? static_cast<double>(covered) / tested : 0;
  }
  return groups;
}

std::vector<std::filesystem::path> committed_files(std::string_view folder) {
  const std::filesystem::path root = data_directory().parent_path() / "validate" / folder;
  if (!std::filesystem::is_directory(root)) {
    throw InputError(
        fmt::format("{}: no such folder (the program is not in its source tree), name files to validate "
                    "against",
                    root.string()));
  }
  std::vector<std::filesystem::path> files;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(root)) {
    if (entry.path().extension() == ".csv") files.push_back(entry.path());
  }
  std::sort(files.begin(), files.end());
  return files;
}

}  // namespace orrery
