// orrery fit: measured files to a profile, and how well it predicts the rows it was not fitted on.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <cstdio>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "cli/commands.hpp"
#include "cli/fit_inputs.hpp"
#include "cli/output_file.hpp"
#include "cost_models/fit_checks.hpp"
#include "cost_models/fit_kernels.hpp"
#include "cost_models/fit_published.hpp"
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
  efficiency.value = copies->last_rate() / load_link(copies->link).bandwidth;
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
  for (const HeldOutErrors& e : fit.errors) {
    if (!e.far_off.empty()) fmt::print("furthest off of {}: {}\n", e.group, e.far_off);
  }
  std::set<std::string> named;  // the models of all head_dims share some
  for (const Constant* c : fit.profile.constants()) {
    if (!c->source.ends_with(Unknowns::at_bound) || !named.insert(c->name).second) continue;
    fmt::print("at its bound: {} = {:.6g}{} (the rows would have it beyond)\n", c->name, c->value,
               c->unit == "1" ? "" : " " + c->unit);
  }
  fmt::print("wrote {}\n", output);
}

/// A profile, whatever GPU it is of; `otherwise` if it is of any.
std::string gpu_of_profile(const std::string& name, const std::string& otherwise) {
  const std::string gpu = Table::parse_file(resolve(name, "profiles", {})).string("gpu");
  return gpu == "any" ? otherwise : gpu;
}

LentProfile lent_profile(const std::string& name, const Gpu& to) {
  const std::string gpu = gpu_of_profile(name, to.name);
  LentProfile lent{load_profile(name, gpu), peaks_of(load_gpu(gpu)), gpu == to.name};
  keep_links_of(to, lent.profile);
  return lent;
}

/// What no row says of kernels that the other GPU has too.
void lend_unmeasured(const std::string& like, const Gpu& gpu, MeasuredKernels& kernels) {
  const LentProfile from = lent_profile(like, gpu);
  const Profile lent = lend(from.profile, from.peaks, peaks_of(gpu));
  if (!lent.kernels) return;
  // The cycles of another head_dim. What it draws goes with the clock of its neighbours here.
  for (AttentionModel model : lent.kernels->attention) {
    AttentionModel between;
    const AttentionModel* own = kernels.attention_at(model.phase, model.head_dim, between);
    if (own == nullptr || (own != &between && own->head_dim == model.head_dim)) continue;
    for (const ConstantOf<PowerModel>& constant : constants_of_power()) {
      (model.power.*constant.member).value = (own->power.*constant.member).value;
      (model.power.*constant.member).source = "as the nearest head_dims of this GPU";
    }
    kernels.attention.push_back(model);
  }
  if (!kernels.gemm || !lent.kernels->gemm) return;
  for (const ConstantOf<GemmModel>& constant : constants_of_gemm()) {
    Constant& own = *kernels.gemm.*constant.member;
    if (own.source.empty()) own = *lent.kernels->gemm.*constant.member;
  }
}

/// Nothing that held-out rows refute, or that no scenario could name: it is read as such first.
void write(const KernelFit& fit, const std::string& text, OutputFile& out, const std::string& output) {
  check_held_out(fit.errors);
  try {
    check_profile(text, output);
  } catch (const InputError& error) {
    std::string furthest;
    for (const HeldOutErrors& e : fit.errors) {
      if (!e.far_off.empty()) furthest += fmt::format("; furthest off of {}: {}", e.group, e.far_off);
    }
    throw FitError(
        fmt::format("nothing is written, a profile of these files would be refused: {}{}", error.what(), furthest));
  }
  out.stream() << text;
  out.keep();
}

void run_published(const FitOptions& options) {
  const std::pair<const char*, const std::vector<std::string>*> of_bench[] = {
      {"--runs", &options.runs}, {"--other-chip", &options.other_chip}, {"--guarded", &options.guarded}};
  for (const auto& [name, files] : of_bench) {
    if (files->empty()) continue;
    throw FitError(fmt::format("{} needs files of orrery bench to fit ({} names no clocks in its header), leave it out",
                               name, options.files.front()));
  }
  OutputFile out(options.output);
  const PublishedInputs inputs = read_published_inputs(options.files);
  Profile base = load_profile(options.base, gpu_of_profile(options.base, inputs.gpu));
  base.kernels.reset();
  base.backend = inputs.backend;
  for (Constant* side : {&base.tile_query, &base.tile_key}) {
    *side = {side->name, 128, side->unit, Provenance::assumed, "the tiles that cycles are counted in"};
  }
  std::optional<LentProfile> lent;
  const Gpu chip = load_gpu(inputs.gpu);
  if (!options.like.empty()) lent = lent_profile(options.like, chip);
  const KernelFit fit = fit_published(inputs.rows, peaks_of(chip), std::move(base), lent);
  const std::string like = options.like.empty() ? "" : " --like " + options.like;
  write(fit,
        write_profile(fit.profile, inputs.gpu,
                      fmt::format("{} from published rates: orrery fit {}{} --base {} -o {}", inputs.gpu,
                                  fmt::join(options.files, " "), like, options.base, options.output),
                      inputs.sources),
        out, options.output);
  print(fit, options.output);
}

void run(const FitOptions& options) {
  if (are_published(options.files)) return run_published(options);
  OutputFile out(options.output);  // opened before the work is begun
  const BenchInputs inputs = read_bench_inputs(options.files);
  const Gpu gpu = load_gpu(inputs.gpu);
  const FitFacts& facts = inputs.facts;
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
  write(fit,
        write_profile(fit.profile, inputs.gpu, fmt::format("{}, fitted by orrery fit to {}.", inputs.gpu, inputs.files),
                      inputs.conditions),
        out, options.output);
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
