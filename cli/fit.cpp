// orrery fit: measured files to a profile, and how well it predicts the rows it was not fitted on.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cstdio>
#include <map>
#include <memory>
#include <regex>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "cli/commands.hpp"
#include "cli/output_file.hpp"
#include "cost_models/fit_kernels.hpp"
#include "cost_models/fit_overlap.hpp"
#include "cost_models/fit_published.hpp"
#include "cost_models/intervals.hpp"
#include "cost_models/lend.hpp"
#include "cost_models/unknowns.hpp"
#include "scenarios/data_files.hpp"
#include "scenarios/hardware.hpp"
#include "scenarios/measured_profile.hpp"
#include "scenarios/preset_files.hpp"
#include "scenarios/reader.hpp"
#include "validate/run_bands.hpp"

namespace orrery {
namespace {

struct FitOptions {
  std::vector<std::string> files;
  std::string output;
  std::string base = "peak";
  std::vector<std::string> other_chip;
  std::string like;
  std::vector<std::string> runs;
  std::vector<std::string> guarded;
};

/// The one value that all tables have under that header key or column; an error if they disagree or none has it.
class Agreed {
 public:
  explicit Agreed(std::string what) : what_(std::move(what)) {}
  void add(const std::string& value, const std::string& place) {
    if (value.empty()) return;
    if (!value_.empty() && value != value_) {
      throw FitError(fmt::format("{}: {} = {} (but {} in {}), fit files of one GPU and its kernels at a time", place,
                                 what_, value, value_, place_));
    }
    value_ = value;
    place_ = place;
  }
  const std::string& optional_value() const { return value_; }
  const std::string& value() const {
    if (value_.empty()) throw FitError(fmt::format("no file says its {}, give files that orrery bench wrote", what_));
    return value_;
  }

 private:
  std::string what_, value_, place_;
};

struct Inputs {
  std::vector<MeasuredKernel> rows;
  std::optional<NcclBeside> nccl_beside;
  RowDigests rows_of_nccl_beside;
  FitFacts facts;
  std::string gpu;
  std::string backend;
  std::string conditions;
  std::string files;
};

/// The number of a header that reads as `form` says, whose only group it is.
double number_in(const std::string& text, const std::string& what, const char* form, const char* example) {
  std::smatch match;
  if (std::regex_search(text, match, std::regex(form)))
    if (const double value = std::stod(match.str(1)); value > 0) return value;
  throw FitError(fmt::format("header {} = {} does not say it as orrery bench does, write e.g. {} = {}", what, text,
                             what, example));
}

double clock_mhz(const std::string& clocks) {
  return number_in(clocks, "clocks", "(?:^|[ ,])SM at most ([0-9]{1,6}(?:\\.[0-9]*)?) MHz(?:,|$)",
                   "SM at most 1980 MHz");
}

double watts(const std::string& limit) {
  return number_in(limit, "power_limit_w", "^([0-9]{1,6}(?:\\.[0-9]*)?)$", "700");
}

/// Whose attention kernels these are.
void add_backends(const MeasuredTable& table, Agreed& backend) {
  if (!table.has("n_q")) return;
  for (std::size_t i = 0; i < table.rows(); ++i) {
    if (table.text(i, "schedule") == "kernel") backend.add(table.text(i, "backend"), table.place(i));
  }
}

/// Throws FitError for a time of both passes: their shares are not known. Rows that say why they are not to be
/// predicted are not fitted on either, and a row that is there twice is one measurement.
void add_single_passes(const MeasuredTable& table, std::vector<MeasuredKernel>& rows) {
  const std::size_t before = rows.size();
  RowDigests seen;
  for (const MeasuredKernel& row : rows) seen.insert(row.digest);
  add_rows(table, rows);
  rows.erase(std::remove_if(rows.begin() + static_cast<std::ptrdiff_t>(before), rows.end(),
                            [&](const MeasuredKernel& row) {
                              return !table.text(row.row, "not_predicted").empty() || !seen.insert(row.digest).second;
                            }),
             rows.end());
  for (std::size_t i = before; i < rows.size(); ++i) {
    if (!rows[i].both_passes) continue;
    throw FitError(
        fmt::format("{}: pass = forward_backward is the time of two kernels (nothing can be fitted on their "
                    "sum), give the time of each",
                    rows[i].place));
  }
}

/// Throws FitError for rows of another GPU than the one that is fitted.
void require_gpu(const MeasuredTable& table, const std::string& gpu) {
  for (std::size_t i = 0; i < table.rows(); ++i) {
    const std::string& own = table.text(i, "gpu");
    if (own.empty() || own == gpu) continue;
    throw FitError(fmt::format("{}: gpu = {} (but {} is fitted), give files of that GPU", table.place(i), own, gpu));
  }
}

/// The rows of --other-chip by machine. Throws FitError for a machine that is fitted on.
MachineRows read_other_machines(const std::vector<std::string>& files, const std::string& gpu,
                                std::span<const MeasuredKernel> fitted) {
  RowDigests known;
  for (const MeasuredKernel& row : fitted) known.insert(row.digest);
  MachineRows machines;
  for (const std::string& file : files) {
    const MeasuredTable table = MeasuredTable::read(file);
    require_gpu(table, gpu);
    std::vector<MeasuredKernel> rows;
    add_single_passes(table, rows);
    // One or two short kernels take as long on another chip, to the last digit.
    const auto same =
        std::count_if(rows.begin(), rows.end(), [&](const auto& row) { return known.contains(row.digest); });
    if (2 * static_cast<std::size_t>(same) > rows.size()) {
      throw FitError(
          fmt::format("{}: its rows are among those to fit (a chip says nothing of how others differ from "
                      "it), give files of other chips",
                      file));
    }
    for (const MeasuredKernel& row : rows) machines[machine_of(row)].push_back(row);
  }
  return machines;
}

std::vector<MeasuredTable> read_runs(const std::vector<std::string>& files, const std::string& gpu) {
  std::vector<MeasuredTable> tables;
  for (const std::string& file : files) {
    const MeasuredTable& table = tables.emplace_back(MeasuredTable::read(file));
    require_gpu(table, gpu);
    if (table.has("compute_overlapped_us") || (table.has("n_gpu") && table.has("seq_len"))) continue;
    throw FitError(
        fmt::format("{}: no runs of several GPUs (--runs is for these and for overlap.csv), leave it out", file));
  }
  return tables;
}

/// Kernels, messages, host costs, transfers beside kernels, power, rings and their steps. A fit does not use all, but
/// whoever names a folder names them.
bool is_measured(const MeasuredTable& table) {
  std::vector<MeasuredKernel> rows;
  add_rows(table, rows);
  return !rows.empty() || table.rows() == 0 ||
         std::any_of(table.columns().begin(), table.columns().end(), [](const std::string& column) {
           return column == "cost" || column == "transfer_overlapped_us" || column == "nvml_sm_clock_mhz" ||
                  column == "tokens_per_gpu";
         });
}

/// Rows of full blocks whose keys end inside a tile, and no others.
void add_guarded(const std::string& file, const std::string& gpu, std::vector<MeasuredKernel>& rows) {
  const MeasuredTable table = MeasuredTable::read(file);
  require_gpu(table, gpu);
  std::vector<MeasuredKernel> all;
  add_single_passes(table, all);
  std::erase_if(all, [](const MeasuredKernel& row) { return !row.is_guarded(); });
  if (all.empty()) {
    throw FitError(fmt::format("{}: no full block has keys that end inside a tile of 128, give --guarded one", file));
  }
  rows.insert(rows.end(), all.begin(), all.end());
}

/// Throws FitError for messages that are too fast for their link, or long and too slow: each kind is a table of its
/// own, so that no other row would contradict a file whose times are in another unit.
void require_rates_of_links(std::span<const MeasuredKernel> rows) {
  // Of a message a rank of two may send half; a hundredth is below the rate of a single channel of NCCL.
  constexpr double most = 3, least = 1e-2, long_message = 64e6;
  const std::vector<std::string> known = known_names("hardware");
  std::map<std::string, BytesPerSecond> links;
  for (const MeasuredKernel& row : rows) {
    if (row.kind != MeasuredKernel::Kind::message || !std::binary_search(known.begin(), known.end(), row.link))
      continue;
    const auto [link, is_new] = links.try_emplace(row.link);
    if (is_new) link->second = load_link(row.link).bandwidth;
    const BytesPerSecond rate = row.bytes / row.time;
    const double part = rate / link->second;
    if (part <= most && (part >= least || row.bytes.si() < long_message)) continue;
    throw FitError(
        fmt::format("{}: {} of {} go at {} (but {} carries {}), is their time in the unit of its column? "
                    "Correct the file or leave it out",
                    row.place, format(row.bytes), row.op, format(rate), row.link, format(link->second)));
  }
}

Inputs read_inputs(const std::vector<std::string>& files) {
  Inputs inputs;
  Agreed gpu("gpu"), clocks("clocks"), limit("power_limit_w"), driver("driver"), cudnn("cudnn"), backend("backend");
  std::vector<double> idle;
  std::set<std::string> names, dates;
  std::vector<MeasuredTable> tables;
  for (const std::string& file : files) {
    const MeasuredTable& table = tables.emplace_back(MeasuredTable::read(file));
    add_single_passes(table, inputs.rows);
    names.insert(std::filesystem::path(file).filename().string());
    if (!is_measured(table)) {
      throw MeasuredFileError(
          fmt::format("{}:1: the columns are those of no file of orrery bench ({}), is one missing?", file,
                      fmt::join(table.columns(), ", ")));
    }
    if (table.rows() == 0) {
      throw MeasuredFileError(fmt::format("{}: no row below the column names, give the whole file", file));
    }
    for (std::size_t i = 0; i < table.rows(); ++i) {
      if (table.is_ok(i)) check_numbers(table, i);
      gpu.add(table.text(i, "gpu"), table.place(i));
      if (table.has("cost") && table.is_ok(i)) {
        if (const auto watts = table.optional_number(i, "power_w")) idle.push_back(*watts);
      }
    }
    add_backends(table, backend);
    clocks.add(table.header("clocks"), file);
    limit.add(table.header("power_limit_w"), file);
    driver.add(table.header("driver"), file);
    cudnn.add(table.header("cudnn"), file);
    if (!table.header("date").empty()) dates.insert(table.header("date").substr(0, 10));
  }
  require_rates_of_links(inputs.rows);
  if (idle.empty()) throw FitError("no power at idle (it is read from rows of host costs), give overhead.csv too");
  inputs.nccl_beside = fit_nccl_beside(tables, inputs.rows_of_nccl_beside);
  inputs.gpu = gpu.value();
  inputs.backend = backend.optional_value();
  inputs.facts.maximum_clock_hz = clock_mhz(clocks.value()) * 1e6;
  inputs.facts.power_limit_w = watts(limit.value());
  inputs.facts.idle_power_w = quantile(idle, 0.5);
  inputs.files = fmt::format("{}", fmt::join(names, ", "));
  inputs.facts.source = "headers of the measured files";
  inputs.conditions = fmt::format("{}; driver {}, cuDNN {}, clocks {}, {}", inputs.gpu, driver.value(), cudnn.value(),
                                  clocks.value(), fmt::join(dates, ", "));
  return inputs;
}

/// Payload at the end of the table of peer copies over the nominal bandwidth of that link.
void fit_link_efficiency(Profile& profile, const std::string& files) {
  const LinkTable* copies = nullptr;
  for (const LinkTable& table : profile.kernels->links) {
    const bool joins_gpus = table.link != "local" && table.link != "host";
    if (joins_gpus && table.mechanism == "copy_engine" && (copies == nullptr || table.op == "peer_copy both")) {
      copies = &table;
    }
  }
  if (copies == nullptr) return;
  Constant& efficiency = profile.link_efficiency;
  efficiency.value = std::min(1.0, copies->last_rate() / load_link(copies->link).bandwidth);
  efficiency.provenance = Provenance::measured;
  efficiency.source = fmt::format("{} by {}, longest messages; {}", copies->op, copies->mechanism, files);
}

void print(const KernelFit& fit, const std::string& output) {
  fmt::print("{:24} {:>6} {:>8} {:>8} {:>8} {:>8} {:>8} {:>9}\n", "held-out errors", "fitted", "held out", "mean",
             "median", "p90", "max", "covered");
  for (const HeldOutErrors& e : fit.errors) {
    if (e.held_out == 0) {
      fmt::print("{:24} {:6} {:8}\n", e.group, e.fitted, e.held_out);
      continue;
    }
    fmt::print("{:24} {:6} {:8} {:7.2f}% {:7.2f}% {:7.2f}% {:7.2f}% {:>9}\n", e.group, e.fitted, e.held_out,
               100 * e.mean, 100 * e.median, 100 * e.p90, 100 * e.max,
               e.coverage ? fmt::format("{:.0f}%", 100 * *e.coverage) : "");
  }
  fmt::print("\nfitted on every third shape in order of work; covered: rows of the last third within the 90 % band\n");
  for (const AttentionModel& model : fit.profile.kernels->attention) {
    for (const ConstantOf<AttentionModel>& constant : constants_of_attention()) {
      const Constant& c = model.*constant.member;
      if (!c.source.ends_with(Unknowns::at_bound)) continue;
      fmt::print("at its bound: {} of attention {}, head_dim {}, {:.6g} {} (the rows would have it beyond)\n",
                 constant.name, name_of(model.phase), model.head_dim, c.value, c.unit);
    }
  }
  fmt::print("wrote {}\n", output);
}

/// Files of orrery bench say at which clock and power limit they were measured; published tables do not.
bool published(const std::vector<std::string>& files) {
  return std::all_of(files.begin(), files.end(),
                     [](const std::string& file) { return MeasuredTable::read(file).header("clocks").empty(); });
}

GpuPeaks peaks_of(const Gpu& gpu) {
  return {gpu.peak("bf16"), gpu.hbm_bandwidth, static_cast<int>(gpu.sms)};
}

/// A profile, whatever GPU it is of; `otherwise` if it is of any.
std::string gpu_of_profile(const std::string& name, const std::string& otherwise) {
  const std::string gpu = Table::parse_file(resolve(name, "profiles", {})).string("gpu");
  return gpu == "any" ? otherwise : gpu;
}

LentProfile lent_profile(const std::string& name, const Gpu& to) {
  const std::string gpu = gpu_of_profile(name, to.name);
  LentProfile lent{load_profile(name, gpu), peaks_of(load_gpu(gpu))};
  if (lent.profile.kernels) {
    std::erase_if(lent.profile.kernels->links, [&](const LinkTable& table) {
      return std::find(to.links.begin(), to.links.end(), table.link) == to.links.end();
    });
  }
  return lent;
}

/// What no row says of kernels that the other GPU has too.
void lend_unmeasured(const std::string& like, const Gpu& gpu, MeasuredKernels& kernels) {
  const LentProfile from = lent_profile(like, gpu);
  const Profile lent = lend(from.profile, from.peaks, peaks_of(gpu));
  if (!kernels.gemm || !lent.kernels || !lent.kernels->gemm) return;
  for (const ConstantOf<GemmModel>& constant : constants_of_gemm()) {
    Constant& own = *kernels.gemm.*constant.member;
    if (own.source.empty()) own = *lent.kernels->gemm.*constant.member;
  }
}

void run_published(const FitOptions& options) {
  OutputFile out(options.output);
  std::vector<MeasuredKernel> rows;
  Agreed gpu("gpu"), backend("backend");
  std::set<std::string> sources;
  for (const std::string& file : options.files) {
    const MeasuredTable table = MeasuredTable::read(file);
    add_single_passes(table, rows);
    for (std::size_t i = 0; i < table.rows(); ++i) gpu.add(table.text(i, "gpu"), table.place(i));
    add_backends(table, backend);
    std::string source = table.header("url").empty() ? table.header("gpu") : table.header("url");
    for (const char* key : {"grade", "how"}) {
      if (!table.header(key).empty()) source += fmt::format("; {}: {}", key, table.header(key));
    }
    // A file without a header is at least named.
    sources.insert(source.empty() ? std::filesystem::path(file).filename().string() : source);
  }
  Profile base = load_profile(options.base, gpu_of_profile(options.base, gpu.value()));
  base.kernels.reset();
  base.backend = backend.optional_value();
  for (Constant* side : {&base.tile_query, &base.tile_key}) {
    *side = {side->name, 128, side->unit, Provenance::assumed, "the tiles that cycles are counted in"};
  }
  std::optional<LentProfile> lent;
  const Gpu chip = load_gpu(gpu.value());
  if (!options.like.empty()) lent = lent_profile(options.like, chip);
  const KernelFit fit = fit_published(rows, peaks_of(chip), std::move(base), lent);
  const std::string like = options.like.empty() ? "" : " --like " + options.like;
  out.stream() << write_profile(fit.profile, gpu.value(),
                                fmt::format("{} from published rates: orrery fit {}{} --base {} -o {}", gpu.value(),
                                            fmt::join(options.files, " "), like, options.base, options.output),
                                fmt::format("{}", fmt::join(sources, "; ")));
  out.keep();
  print(fit, options.output);
}

void run(const FitOptions& options) {
  if (published(options.files)) return run_published(options);
  OutputFile out(options.output);  // opened before the work is begun
  const Inputs inputs = read_inputs(options.files);
  const Gpu gpu = load_gpu(inputs.gpu);
  FitFacts facts = inputs.facts;
  facts.peaks = {gpu.peak("bf16"), gpu.hbm_bandwidth, static_cast<int>(gpu.sms)};
  facts.cache = gpu.l2_cache.value_or(Bytes());
  Profile base = load_profile(options.base, inputs.gpu);
  base.kernels.reset();
  base.backend = inputs.backend;
  for (Constant* side : {&base.tile_query, &base.tile_key}) {
    side->value = 128;
    side->source = "the tiles that the cycles of [kernels.attention] are counted in";
  }
  const MachineRows other_machines = read_other_machines(options.other_chip, inputs.gpu, inputs.rows);
  const std::vector<MeasuredTable> runs = read_runs(options.runs, inputs.gpu);
  std::vector<MeasuredKernel> kernel_rows = inputs.rows;
  for (const std::string& file : options.guarded) add_guarded(file, inputs.gpu, kernel_rows);
  KernelFit fit = fit_kernels(kernel_rows, facts, std::move(base), other_machines);
  fit.profile.kernels->nccl_beside = inputs.nccl_beside;
  fit.profile.kernels->fitted_rows.insert(inputs.rows_of_nccl_beside.begin(), inputs.rows_of_nccl_beside.end());
  fit_link_efficiency(fit.profile, inputs.files);
  if (!options.other_chip.empty()) {
    std::vector<std::vector<MeasuredKernel>> chips = {inputs.rows};
    for (const auto& [machine, rows] : other_machines) chips.push_back(rows);
    fit.profile.kernels->bands.push_back(band_of_other_chip(other_machines, facts.peaks, fit.profile));
    fit.profile.kernels->clock.chip_spread =
        spread_of_chips(chips, facts.peaks, fit.profile, fit.profile.kernels->fitted_rows);
  }
  if (!options.like.empty()) lend_unmeasured(options.like, gpu, *fit.profile.kernels);
  calibrate_runs(runs, fit.profile);
  const std::string text =
      write_profile(fit.profile, inputs.gpu, fmt::format("{}, fitted by orrery fit to {}.", inputs.gpu, inputs.files),
                    inputs.conditions);
  out.stream() << text;
  out.keep();
  print(fit, options.output);
}

}  // namespace

void add_fit(CLI::App& app) {
  auto options = std::make_shared<FitOptions>();
  CLI::App* command =
      app.add_subcommand("fit", "Fit the constants of a profile to measured files, and predict the rows left out");
  command->add_option("files", options->files, "CSV files of orrery bench, e.g. validate/measured/h200_sxm/*.csv")
      ->required();
  command->add_option("-o,--output", options->output, "Profile to write, e.g. scenarios/profiles/h200_sxm.toml")
      ->required();
  command->add_option(
      "--other-chip", options->other_chip,
      "Files of other GPUs of the same type, a folder for each: how far chips differ, and how wide the bands have "
      "to be for a chip that was not fitted on");
  command->add_option(
      "--like", options->like,
      "The profile of another GPU that lends what published rates, or the rows of products, do not say");
  command->add_option("--runs", options->runs,
                      "Files of runs of several GPUs (ring.csv, overlap.csv, ...): every other shape of them says how "
                      "wide the intervals of runs are; no constant is fitted to them");
  command->add_option("--guarded", options->guarded,
                      "Files of which only full blocks whose keys end inside a tile are used: what their kernel, which "
                      "guards the end, takes longer");
  command->add_option("--base", options->base, "Profile whose constants stay where no row says better")
      ->capture_default_str();
  command->callback([options] { run(*options); });
}

}  // namespace orrery
