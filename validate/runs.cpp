#include "validate/runs.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <iterator>
#include <map>
#include <memory>

#include "scenarios/data_files.hpp"
#include "scenarios/hardware.hpp"
#include "scenarios/nearest.hpp"
#include "scenarios/preset_files.hpp"
#include "sim/contains.hpp"
#include "validate/measured_rows.hpp"
#include "validate/run_bands.hpp"
#include "validate/step_runs.hpp"

namespace orrery {
namespace {

/// As asked for, or as the file says, or the one named like the GPU and whose kernels ran on it, or like the GPU alone.
std::string profile_name(const MeasuredTable& table, std::size_t row, const std::string& profile) {
  if (!profile.empty()) return profile;
  const std::string own = table.header("profile"), of_backend = profile_of_backend(table, row);
  if (!own.empty()) return own;
  return of_backend.empty() ? table.text(row, "gpu") : of_backend;
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

bool has_columns(const MeasuredTable& table, std::initializer_list<const char*> columns) {
  return std::all_of(columns.begin(), columns.end(), [&](const char* column) { return table.has(column); });
}

/// Of the header, as a fraction, behind which a remark may stand in parentheses; nothing if it has none.
std::optional<double> reading_error_of(const MeasuredTable& table) {
  const std::string text = table.header("reading_error");
  if (text.empty()) return std::nullopt;
  double value = 0;
  const auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), value);
  const std::string_view rest = std::string_view(text).substr(static_cast<std::size_t>(end - text.data()));
  if (code == std::errc() && (rest.empty() || rest.starts_with(" (")) && value >= 0 && value < 1) return value;
  throw MeasuredFileError(fmt::format("{}: reading_error = {} is no fraction from 0 to 1, write e.g. 0.002 for 0.2 %",
                                      table.file().string(), text));
}

bool is_whole_step(const MeasuredTable& table, std::size_t row) {
  return table.has("scenario") && (!table.text(row, "scenario").empty() || table.text(row, "implementation").empty());
}

/// A row of several GPUs: of a whole step, or of attention.
Prediction predict_run(const MeasuredTable& table, std::size_t row, const ProfileOfRow& profile) {
  Prediction p = is_whole_step(table, row) ? predict_step(table, row) : predict_attention_run(table, row, profile(row));
  p.many_gpus = true;
  p.row = row;
  p.place = table.place(row);
  if (!table.text(row, "time_ms").empty()) p.measured = measured_time(table, row, "time_ms", 1e-3);
  if (const auto error = reading_error_of(table)) {
    p.setting = setting_of(table, row);
    p.reading_error = *error;
  }
  return p;
}

/// What may be left out would be left out without a word where it is misspelt.
void refuse_misspelt(const MeasuredTable& table) {
  static constexpr std::string_view optional[] = {
      "layout",    "kv_heads", "mask",      "window", "period", "batch",   "dtype",          "cache",  "regime",
      "transport", "channels", "tolerance", "status", "nodes",  "network", "ulysses_degree", "backend"};
  for (const std::string& column : table.columns()) {
    for (const std::string_view name : optional) {
      const std::size_t distance = edit_distance(column, name);
      if (distance == 0 || distance > (name.size() < 8 ? 1 : 2) || table.has(name)) continue;
      throw MeasuredFileError(
          fmt::format("{}: column \"{}\" is not read (a name that is nearly one), did you mean "
                      "\"{}\"? Otherwise call it something else",
                      table.file().string(), column, name));
    }
  }
}

/// Kernels, messages, slow-downs or runs; other tables, of host costs say, predict nothing.
std::vector<Prediction> predict_rows(const MeasuredTable& table, const ProfileOfRow& profile) {
  refuse_misspelt(table);
  std::vector<MeasuredKernel> kernels;
  add_rows(table, kernels, Planned::included);
  if (kernels.empty() && table.has("compute_overlapped_us")) return predict_overlap(table, profile);
  if (kernels.empty() && table.has("nvml_sm_clock_mhz")) return predict_power(table, profile);
  std::vector<Prediction> all;
  if (!kernels.empty()) all = predict_kernels(table, kernels, profile);
  const bool runs = has_columns(table, {"time_ms", "scenario"}) ||
                    has_columns(table, {"n_gpu", "time_ms", "implementation", "seq_len"});
  for (std::size_t row = 0; runs && row < table.rows(); ++row) {
    if (!table.is_ok(row) && table.text(row, "status") != "planned") continue;
    if (table.text(row, "schedule") != "kernel") {
      all.push_back(predict_run(table, row, profile));
    } else if (!has_columns(table, {"n_q", "n_k", "head_dim"})) {
      throw table.error(row, "schedule = kernel, but the file has no columns n_q and n_k, add them");
    }
  }
  std::stable_sort(all.begin(), all.end(), [](const Prediction& a, const Prediction& b) { return a.row < b.row; });
  return all;
}

/// The cells of columns that nobody here reads.
std::vector<std::pair<std::string, std::string>> carried_along(const MeasuredTable& table, std::size_t row) {
  static constexpr std::string_view read[] = {"implementation",
                                              "backend",
                                              "gpu",
                                              "link",
                                              "n_gpu",
                                              "seq_len",
                                              "heads",
                                              "kv_heads",
                                              "head_dim",
                                              "causal",
                                              "layout",
                                              "schedule",
                                              "pass",
                                              "time_ms",
                                              "n_q",
                                              "n_k",
                                              "mask",
                                              "window",
                                              "period",
                                              "regime",
                                              "transport",
                                              "channels",
                                              "nodes",
                                              "network",
                                              "status",
                                              "tolerance",
                                              "ulysses_degree",
                                              "physical_gpus",
                                              "not_predicted",
                                              "batch",
                                              "dtype",
                                              "scenario",
                                              "time_us",
                                              "kernel",
                                              "bytes",
                                              "mechanism",
                                              "op"};
  std::vector<std::pair<std::string, std::string>> cells;
  for (const std::string& column : table.columns()) {
    const bool is_read = contains(read, column);
    if (!is_read && !table.text(row, column).empty()) cells.emplace_back(column, table.text(row, column));
  }
  return cells;
}

double tolerance_of(const MeasuredTable& table, std::size_t row) {
  const double tolerance = table.positive(row, "tolerance");
  if (tolerance < 1) return tolerance;
  throw table.error(
      row, fmt::format("tolerance = {} is {:.0f} %, write a fraction, e.g. 0.06 for 6 %", tolerance, 100 * tolerance));
}

std::vector<Prediction> predict_with(const MeasuredTable& table, const ProfileOfRow& profile) {
  std::vector<Prediction> all = predict_rows(table, profile);
  const std::string folder = table.file().parent_path().filename().string();
  for (Prediction& p : all) {
    if (!is_whole_step(table, p.row)) {
      const auto& kernels = profile(p.row).kernels;
      p.fitted = kernels && kernels->fitted_rows.contains(row_digest(table, p.row));
      p.calibrated = kernels && kernels->calibrating_rows.contains(row_digest(table, p.row));
    }
    if (!table.text(p.row, "tolerance").empty()) p.tolerance = tolerance_of(table, p.row);
    p.carried = carried_along(table, p.row);
    if (const std::string& gpu = table.text(p.row, "gpu"); !gpu.empty())
      p.of_gpu = fmt::format("all {}: {}", gpu, p.group);
    if (!folder.empty()) p.group = fmt::format("{}: {}", folder, p.group);
  }
  return all;
}

}  // namespace

std::string profile_of_backend(const MeasuredTable& table, std::size_t row) {
  std::string name = table.text(row, "gpu") + "_" + table.text(row, "backend");
  const std::vector<std::string> known = known_names("profiles");
  return contains(known, name) ? name : "";
}

ProfileOfRow profiles_of(const MeasuredTable& table, const std::string& profile) {
  using Loaded = std::map<std::pair<std::string, std::string>, Profile>;  // by name and GPU
  return [&table, profile, loaded = std::make_shared<Loaded>()](std::size_t row) -> const Profile& {
    const std::string name = profile_name(table, row, profile);
    const std::string& gpu = table.text(row, "gpu");
    const auto known = loaded->find({name, gpu});
    if (known != loaded->end()) return known->second;
    try {
      load_gpu(gpu);
    } catch (const InputError&) {
      throw table.error(row, fmt::format("gpu = \"{}\" is unknown, write one of orrery list gpus", gpu));
    }
    try {
      return loaded->emplace(std::pair(name, gpu), load_profile(name, gpu)).first->second;
    } catch (const InputError& error) {
      throw table.error(
          row, fmt::format("no profile to predict with ({}), name one with --profile, e.g. peak", error.what()));
    }
  };
}

std::vector<Prediction> predict_runs(const MeasuredTable& table, const std::string& profile) {
  const ProfileOfRow profile_of_row = profiles_of(table, profile);
  std::vector<Prediction> all = predict_with(table, profile_of_row);
  if (!profile.empty() || !table.header("profile").empty()) return all;  // as was asked for
  for (Prediction& p : all) {
    const std::string& backend = table.text(p.row, "backend");
    if (!p.reason.empty() || backend.empty() || is_whole_step(table, p.row)) continue;
    const Profile& used = profile_of_row(p.row);
    if (used.backend.empty() || used.backend == backend) continue;
    p.reason =
        fmt::format("no profile is of this kernel (backend = {}, {} is of {})", backend, used.name, used.backend);
    p.predicted = Seconds();
  }
  return all;
}

std::vector<Prediction> predict_runs(const MeasuredTable& table, const Profile& profile) {
  return predict_with(table, [&](std::size_t) -> const Profile& { return profile; });
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
