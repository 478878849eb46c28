#include "cost_models/fit_kernels.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "cost_models/fit_attention.hpp"
#include "cost_models/fit_clock.hpp"
#include "cost_models/fit_links.hpp"
#include "cost_models/fit_streams.hpp"
#include "cost_models/intervals.hpp"
#include "cost_models/predicted_kernels.hpp"

namespace orrery {
namespace {

using Kind = MeasuredKernel::Kind;
using Rows = MeasuredRows;

class Fitter {
 public:
  Fitter(std::span<const MeasuredKernel> rows, const FitFacts& facts, Profile base, const MachineRows& others)
      : all_(rows), uses_(split(rows)), others_(others), facts_(facts), profile_(std::move(base)) {
    profile_.kernels.emplace();
    for (std::size_t i = 0; i < all_.size(); ++i) {
      if (uses_[i] == RowUse::fitted) (all_[i].is_guarded() ? guarded_ : fitted_).push_back(&all_[i]);
    }
  }

  KernelFit run() {
    if (of(Kind::attention).empty()) {
      throw FitError("no attention rows (a profile is of attention kernels first), give attention.csv of orrery bench");
    }
    known_facts();
    kernels().streams = fit_streams(of(Kind::stream), facts_.cache);
    hbm_energy();
    for (const Phase phase : {Phase::forward, Phase::backward})
      fit_attention(phase, fitted_, guarded_, facts_.peaks, profile_);
    fit_gemm();
    fit_clocks(fitted_, facts_.peaks, profile_);
    spread_in_time(fitted_, kernels().clock);
    kernels().links = tabulate_links(of(Kind::message));
    peaks_reached();
    refuse_far_off(all_, facts_.peaks, profile_);
    for (const auto& [machine, rows] : others_) refuse_far_off(rows, facts_.peaks, profile_);
    KernelFit result{std::move(profile_), std::move(uses_), {}};
    calibrate(result);
    return result;
  }

 private:
  MeasuredKernels& kernels() { return *profile_.kernels; }

  Rows of(Kind kind) const {
    return those(fitted_, [&](const MeasuredKernel& row) { return row.kind == kind; });
  }

  void known_facts() {
    ClockModel& clock = kernels().clock;
    clock.maximum_clock = {"clock.maximum_clock", facts_.maximum_clock_hz, "Hz", Provenance::measured, facts_.source};
    clock.power_limit = {"clock.power_limit", facts_.power_limit_w, "W", Provenance::measured, facts_.source};
    clock.idle_power = {"clock.idle_power", facts_.idle_power_w, "W", Provenance::measured,
                        "median over overhead.csv, where the GPU waits for the host"};
    clock.tensor_flops_per_cycle = {
        "clock.tensor_flops_per_cycle", tensor_flops_per_cycle(facts_.peaks, facts_.maximum_clock_hz), "1",
        Provenance::datasheet, "the power of two per SM and cycle next to peak / (SMs * maximum clock)"};
    clock.power_lag = {
        "clock.power_lag", 0.05, "s", Provenance::assumed,
        "between 40 and 80 ms: the first samples of 40 ms of a sustained run go at the clock of a burst, launches of "
        "more than 60 ms do not"};
    clock.hbm_energy = {"clock.hbm_energy", 0, "J/B", Provenance::assumed, "no copy_kernel rows with their power"};
  }

  void hbm_energy() {
    std::vector<double> joules;
    for (const MeasuredKernel* row : of(Kind::stream)) {
      if (row->kernel != "copy_kernel" || row->bytes.si() < 5e7 || row->power == Watts()) continue;
      joules.push_back((row->power.si() - facts_.idle_power_w) * row->time.si() / row->bytes.si());
    }
    if (joules.empty()) return;
    Constant& energy = kernels().clock.hbm_energy;
    energy = {"clock.hbm_energy", quantile(joules, 0.5), "J/B", Provenance::measured,
              "copies: (power - idle) * time / bytes, SMs included; " + files_of(of(Kind::stream))};
    energy.rows = static_cast<int>(joules.size());
    energy.low = quantile(joules, 0.05);
    energy.high = quantile(joules, 0.95);
  }

  void fit_gemm() {
    const auto rows_of = [&](Constant GemmModel::*of_rows) {
      return those(fitted_, [&](const MeasuredKernel& row) {
        return row.kind == Kind::gemm && row.clock_hz > 0 &&
               GemmModel::of_rows(row.dense.row_alignment, row.dense.phase) == of_rows;
      });
    };
    if (rows_of(nullptr).empty()) return;
    GemmModel& model = kernels().gemm.emplace();
    const auto residual = [&](const MeasuredKernel& row) {
      return error_at_measured_clock(gemm_load(row.dense, model, kernels(), facts_.peaks), row);
    };
    Unknowns unknowns;
    for (const auto& constant : constants_of_gemm()) {
      if (!constant.optional) unknowns.add(model, constant, "gemm");
    }
    unknowns.fit_to(rows_of(nullptr), "gemm", residual);
    for (const auto& constant : constants_of_gemm()) {
      const Rows rows = constant.optional ? rows_of(constant.member) : Rows();
      if (rows.empty()) continue;
      Unknowns efficiency;
      efficiency.add(model, constant, "gemm");
      efficiency.fit_to(rows, fmt::format("gemm.{}", constant.name), residual);
    }
  }

  void best(Constant& constant, double value, const std::string& what) {
    constant = {constant.name, std::min(value, 1.0), constant.unit, Provenance::measured,
                fmt::format("the best fitted row of {}", what)};
  }

  /// What stands for kernels without a model: the best rate of the fitted rows.
  void peaks_reached() {
    double forward = 0, backward = 0, dense = 0, memory = 0;
    for (const MeasuredKernel* row : fitted_) {
      const double flops = row->kind == Kind::gemm ? row->dense.flops().si() : row->work;
      const double rate = flops / row->time.si() / facts_.peaks.matrix.si();
      if (row->kind == Kind::attention) {
        double& best_rate = row->phase == Phase::forward ? forward : backward;
        best_rate = std::max(best_rate, rate);
      }
      if (row->kind == Kind::gemm) dense = std::max(dense, rate);
      if (row->kind == Kind::stream)
        memory = std::max(memory, row->bytes.si() / row->time.si() / facts_.peaks.hbm.si());
    }
    best(profile_.attention_forward_efficiency, forward, "attention forward");
    best(profile_.attention_backward_efficiency, backward, "attention backward");
    if (dense > 0) best(profile_.dense_efficiency, dense, "matrix products");
    if (memory > 0) best(profile_.hbm_efficiency, memory, "streaming kernels");
    Constant& overhead = profile_.kernel_overhead;
    const std::string name = overhead.name;
    overhead = kernels().attention.front().launch;
    overhead.name = name;
  }

  /// By group and machine.
  using Deviations = std::map<std::string, std::map<std::string, std::vector<double>>>;

  void add_deviations(std::span<const MeasuredKernel> rows, const std::vector<RowUse>& uses, const Profile& profile,
                      Deviations& deviations) const {
    for (std::size_t i = 0; i < rows.size(); ++i) {
      if (uses[i] != RowUse::calibration) continue;
      const Seconds predicted = predicted_time(rows[i], facts_.peaks, profile);
      if (!(predicted > Seconds())) continue;
      deviations[rows[i].group][machine_of(rows[i])].push_back(std::abs(rows[i].time / predicted - 1));
    }
  }

  void calibrate(KernelFit& result) const {
    std::map<std::string, ErrorBand> bands;
    for (const MeasuredKernel& row : all_) stretch(bands[row.group], row);
    Deviations deviations;
    add_deviations(all_, result.uses, result.profile, deviations);
    remember(all_, result.uses, facts_.peaks, result.profile);
    for (const auto& [machine, rows] : others_) {
      std::vector<RowUse> uses = split(rows);
      // Nothing is fitted on them.
      std::replace(uses.begin(), uses.end(), RowUse::fitted, RowUse::test);
      add_deviations(rows, uses, result.profile, deviations);
      remember(rows, uses, facts_.peaks, result.profile);
    }
    for (auto& [group, band] : bands) {
      if (deviations[group].empty()) continue;
      band.inside = pooled_half_width(deviations[group], 0.9);
      band.outside = 2 * band.inside;
      for (const auto& [machine, of_machine] : deviations[group]) band.rows += static_cast<int>(of_machine.size());
      result.profile.kernels->bands.push_back(band);
    }
    result.errors = errors_by_group(all_, result.uses, facts_.peaks, result.profile);
  }

  std::span<const MeasuredKernel> all_;
  std::vector<RowUse> uses_;
  Rows fitted_, guarded_;  // of all
  const MachineRows& others_;
  FitFacts facts_;
  Profile profile_;
};

}  // namespace

double tensor_flops_per_cycle(const GpuPeaks& peaks, double clock_hz) {
  return peaks.sms * std::exp2(std::round(std::log2(peaks.matrix.si() / (peaks.sms * clock_hz))));
}

KernelFit fit_kernels(std::span<const MeasuredKernel> rows, const FitFacts& facts, Profile base,
                      const MachineRows& other_machines) {
  return Fitter(rows, facts, std::move(base), other_machines).run();
}

}  // namespace orrery
