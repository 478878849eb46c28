#include "cost_models/fit_kernels.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <map>
#include <set>

#include "cost_models/fit_links.hpp"
#include "cost_models/fit_streams.hpp"
#include "cost_models/intervals.hpp"
#include "cost_models/unknowns.hpp"

namespace orrery {
namespace {

using Kind = MeasuredKernel::Kind;
using Rows = MeasuredRows;

class Fitter {
 public:
  Fitter(std::span<const MeasuredKernel> rows, const FitFacts& facts, Profile base, const MachineRows& others)
      : all_(rows), uses_(split(rows)), others_(others), facts_(facts), profile_(std::move(base)) {
    profile_.kernels.emplace();
  }

  KernelFit run() {
    if (of(Kind::attention).empty()) {
      throw FitError("no attention rows (a profile is of attention kernels first), give attention.csv of orrery bench");
    }
    known_facts();
    kernels().streams = fit_streams(of(Kind::stream), facts_.cache);
    hbm_energy();
    for (const Phase phase : {Phase::forward, Phase::backward}) fit_attention(phase);
    fit_gemm();
    fit_clocks();
    spread_in_time();
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

  template <class Keep>
  Rows fitted(Keep keep) const {
    Rows rows;
    for (std::size_t i = 0; i < all_.size(); ++i) {
      if (uses_[i] == RowUse::fitted && !all_[i].is_guarded() && keep(all_[i])) rows.push_back(&all_[i]);
    }
    return rows;
  }
  /// Their kernels differ from others by one constant, which alone is fitted to them.
  Rows guarded(Phase phase, bool window) const {
    Rows rows;
    for (std::size_t i = 0; i < all_.size(); ++i) {
      const MeasuredKernel& row = all_[i];
      if (uses_[i] == RowUse::fitted && row.is_guarded() && row.phase == phase && row.attention.window == window &&
          !row.attention.masked_rectangle() && row.clock_hz > 0) {
        rows.push_back(&row);
      }
    }
    return rows;
  }
  Rows of(Kind kind) const {
    return fitted([&](const MeasuredKernel& row) { return row.kind == kind; });
  }

  void known(Constant& constant, std::string name, std::string unit, double value, Provenance provenance,
             std::string source) const {
    constant = {std::move(name), value, std::move(unit), provenance, std::move(source)};
  }

  void known_facts() {
    ClockModel& clock = kernels().clock;
    known(clock.maximum_clock, "clock.maximum_clock", "Hz", facts_.maximum_clock_hz, Provenance::measured,
          facts_.source);
    known(clock.power_limit, "clock.power_limit", "W", facts_.power_limit_w, Provenance::measured, facts_.source);
    known(clock.idle_power, "clock.idle_power", "W", facts_.idle_power_w, Provenance::measured,
          "median over overhead.csv, where the GPU waits for the host");
    known(clock.tensor_flops_per_cycle, "clock.tensor_flops_per_cycle", "1",
          tensor_flops_per_cycle(facts_.peaks, facts_.maximum_clock_hz), Provenance::datasheet,
          "the power of two per SM and cycle next to peak / (SMs * maximum clock)");
    known(clock.power_lag, "clock.power_lag", "s", 0.05, Provenance::assumed,
          "between 40 and 80 ms: the first samples of 40 ms of a sustained run go at the clock of a burst, launches of "
          "more than 60 ms do not");
    known(clock.hbm_energy, "clock.hbm_energy", "J/B", 0, Provenance::assumed, "no copy_kernel rows with their power");
  }

  // ---- energy of memory, and cycles of attention and matrix products at the clock that was measured

  void hbm_energy() {
    std::vector<double> joules;
    for (const MeasuredKernel* row : of(Kind::stream)) {
      if (row->kernel != "copy_kernel" || row->bytes.si() < 5e7 || row->power == Watts()) continue;
      joules.push_back((row->power.si() - facts_.idle_power_w) * row->time.si() / row->bytes.si());
    }
    if (joules.empty()) return;
    Constant& energy = kernels().clock.hbm_energy;
    known(energy, "clock.hbm_energy", "J/B", quantile(joules, 0.5), Provenance::measured,
          "copies: (power - idle) * time / bytes, SMs included; " + files_of(of(Kind::stream)));
    energy.rows = static_cast<int>(joules.size());
    energy.low = quantile(joules, 0.05);
    energy.high = quantile(joules, 0.95);
  }

  double at_measured_clock(const KernelLoad& load, const MeasuredKernel& row) const {
    return duration_at(row.clock_hz, load) / row.time - 1;
  }

  AttentionModel& model_of(const MeasuredKernel& row) {
    for (AttentionModel& model : kernels().attention) {
      if (model.phase == row.phase && model.head_dim == static_cast<int>(row.attention.head_dim)) return model;
    }
    throw FitError(row.place + ": no model of this head_dim");  // cannot happen: models are made from the rows
  }

  /// A mask is laid over scores, of which a tile has as many whatever head_dim is: it costs as many cycles.
  static void share_mask(const AttentionModel& from, AttentionModel& to) {
    const double beyond = to.full_tile.value - from.full_tile.value;
    const double ratio = from.full_tile.value / to.full_tile.value;
    to.masked_tile = from.masked_tile;
    for (double* cycles : {&to.masked_tile.value, &to.masked_tile.low, &to.masked_tile.high}) *cycles += beyond;
    to.masked_kernel = from.masked_kernel;
    for (double* tiles : {&to.masked_kernel.value, &to.masked_kernel.low, &to.masked_kernel.high}) {
      *tiles = 1 + (*tiles - 1) * ratio;
    }
  }

  /// What does not depend on head_dim is shared by all: launch and traffic per element. Cycles are not, but for masks.
  void fit_attention(Phase phase) {
    const auto rows_of = [&](bool rectangle, auto keep) {
      return fitted([&](const MeasuredKernel& row) {
        return row.kind == Kind::attention && row.phase == phase && row.clock_hz > 0 &&
               row.attention.masked_rectangle() == rectangle && keep(row.attention);
      });
    };
    const auto is_window = [](const AttentionShape& shape) { return shape.window; };
    const Rows rows = rows_of(false, std::not_fn(is_window));
    std::set<int> head_dims;
    for (const MeasuredKernel* row : rows) head_dims.insert(static_cast<int>(row->attention.head_dim));
    if (rows.empty()) {
      throw FitError(fmt::format("no attention rows of the {} pass with sm_clock_mhz, measure them with orrery bench",
                                 name_of(phase)));
    }
    const std::size_t first = kernels().attention.size();
    for (const int head_dim : head_dims) {
      AttentionModel& model = kernels().attention.emplace_back();
      model.phase = phase;
      model.head_dim = head_dim;
    }
    const auto models = std::span(kernels().attention).subspan(first);
    const auto cold = std::count_if(rows.begin(), rows.end(), [](const auto* row) { return row->attention.cold; });
    const bool warm_and_cold = cold > 0 && static_cast<std::size_t>(cold) < rows.size();
    const auto constants = constants_of_attention();
    // Shared: launch, cold_start, query_traffic, grouped_traffic, grouped_launch, waves_in_step, and what masks cost;
    // the last seven are of other kernels.
    const std::size_t shared_count = 6, of_masks = 2, own_count = constants.size() - 7;
    Unknowns unknowns;
    for (std::size_t c = 0; c < shared_count; ++c) {
      // Forward, no kernel runs around the tiles.
      const bool around = constants[c].unit == "B" || constants[c].name == "grouped_launch";
      const char* none = around && phase == Phase::forward ? "forward, one kernel does everything"
                         : constants[c].name == "cold_start" && !warm_and_cold
                             ? "not both of rows with cache = warm and of others"
                             : nullptr;
      if (none == nullptr) {
        unknowns.add(models.front(), constants[c], fmt::format("attention.{}", name_of(phase)));
      } else {
        known(models.front().*constants[c].member, fmt::format("attention.{}.{}", name_of(phase), constants[c].name),
              std::string(constants[c].unit), 0, Provenance::assumed, none);
      }
    }
    for (AttentionModel& model : models) {
      const std::string owner = fmt::format("attention.{}.d{}", name_of(phase), model.head_dim);
      const std::size_t own = &model == &models.front() ? own_count : own_count - of_masks;
      for (std::size_t c = shared_count; c < own; ++c) unknowns.add(model, constants[c], owner);
    }
    const auto share = [&] {
      for (AttentionModel& model : models) {
        for (std::size_t c = 0; c < shared_count; ++c) {
          model.*constants[c].member = models.front().*constants[c].member;
        }
        if (&model != &models.front()) share_mask(models.front(), model);
      }
    };
    unknowns.fit_to(rows, fmt::format("attention {}", name_of(phase)), [&](const MeasuredKernel& row) {
      share();
      return at_measured_clock(load_of(row), row);
    });
    share();
    const std::size_t of_windows = own_count + 1, window_count = 3;
    fit_windows(std::span(constants).subspan(of_windows, window_count), models, rows_of(false, is_window));
    fit_rectangle(constants[constants.size() - 2], constants.back(), models,
                  rows_of(true, [](const auto&) { return true; }));
    fit_each(constants[own_count], models, guarded(phase, false));
    fit_each(constants[of_windows + window_count], models, guarded(phase, true));
  }

  /// Of one width, or two that are alike, tiles and the start of their lists cannot be told apart, and of long ones
  /// alone the launch. What comes first in the list is then as in other kernels.
  void fit_windows(std::span<const ConstantOf<AttentionModel>> constants, std::span<AttentionModel> models,
                   const Rows& rows) {
    const bool several = std::any_of(rows.begin(), rows.end(), [&](const MeasuredKernel* row) {
      return row->attention.pairs / row->attention.query_rows !=
             rows.front()->attention.pairs / rows.front()->attention.query_rows;
    });
    constants = constants.last(several ? std::min(constants.size(), rows.size()) : 1);
    for (;; constants = constants.subspan(1)) {
      const bool last = constants.size() == 1;
      try {
        fit_shared(constants, models, rows);
        if (last || !(models.front().*constants.front().member).source.ends_with(Unknowns::at_bound)) return;
      } catch (const Undetermined&) {
        if (last) throw;
      }
      for (AttentionModel& model : models) model.*constants.front().member = Constant();
    }
  }

  /// A kernel either goes through all tiles of a masked rectangle or skips what the mask hides, whichever the rows are
  /// nearer to; one constant is of the first kind, the other of the second.
  void fit_rectangle(const ConstantOf<AttentionModel>& edge, const ConstantOf<AttentionModel>& start,
                     std::span<AttentionModel> models, const Rows& rows) {
    const auto error_with = [&](double cycles) {
      std::vector<double> errors;
      for (const MeasuredKernel* row : rows) {
        (model_of(*row).*edge.member).value = cycles;
        errors.push_back(std::abs(at_measured_clock(load_of(*row), *row)));
      }
      return quantile(errors, 0.5);
    };
    const bool skips = !rows.empty() && error_with(0) < error_with(edge.start);
    const auto& other = skips ? edge : start;
    for (AttentionModel& model : models) {
      known(model.*other.member, fmt::format("attention.{}.{}", name_of(model.phase), other.name),
            std::string(other.unit), 0, rows.empty() ? Provenance::assumed : Provenance::measured,
            rows.empty() ? fmt::format("no rows of {}", other.determined_by)
            : skips      ? "skips masked tiles; " + files_of(rows)
                         : "goes through all tiles; " + files_of(rows));
    }
    if (skips) return fit_shared(std::span(&start, 1), models, rows);
    fit_each(edge, models, rows);
  }

  /// Of all head_dims together, then of those that have rows alone.
  void fit_each(const ConstantOf<AttentionModel>& constant, std::span<AttentionModel> models, const Rows& rows) {
    fit_shared(std::span(&constant, 1), models, rows);
    for (AttentionModel& model : models) {
      Rows own;
      std::copy_if(rows.begin(), rows.end(), std::back_inserter(own),
                   [&](const auto* row) { return static_cast<int>(row->attention.head_dim) == model.head_dim; });
      if (own.size() >= 2) fit_shared(std::span(&constant, 1), std::span(&model, 1), own);
    }
  }

  /// Constants that all head_dims share, of other kernels: those that guard the end of the keys, and windows, whose
  /// edges take other times than a diagonal, and of which some skip the masked tiles only with as many queries as keys.
  void fit_shared(std::span<const ConstantOf<AttentionModel>> constants, std::span<AttentionModel> models,
                  const Rows& rows) {
    const std::string owner = fmt::format("attention.{}", name_of(models.front().phase));
    const auto share = [&] {
      for (AttentionModel& model : models) {
        for (const auto& constant : constants) model.*constant.member = models.front().*constant.member;
      }
    };
    if (rows.empty()) {
      for (const auto& constant : constants) {
        known(models.front().*constant.member, fmt::format("{}.{}", owner, constant.name), std::string(constant.unit),
              0, Provenance::assumed, fmt::format("no rows of {}", constant.determined_by));
      }
    } else {
      Unknowns unknowns;
      for (const auto& constant : constants) unknowns.add(models.front(), constant, owner);
      unknowns.fit_to(rows, fmt::format("{} of {}", owner, constants.back().determined_by),
                      [&](const MeasuredKernel& row) {
                        share();
                        return at_measured_clock(load_of(row), row);
                      });
    }
    share();
  }

  void fit_gemm() {
    const auto rows_of = [&](Constant GemmModel::*of_rows) {
      return fitted([&](const MeasuredKernel& row) {
        return row.kind == Kind::gemm && row.clock_hz > 0 &&
               GemmModel::of_rows(row.dense.row_alignment, row.dense.phase) == of_rows;
      });
    };
    if (rows_of(nullptr).empty()) return;
    GemmModel& model = kernels().gemm.emplace();
    const auto residual = [&](const MeasuredKernel& row) {
      return at_measured_clock(gemm_load(row.dense, model, kernels(), facts_.peaks), row);
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

  // ---- clock and power

  PowerModel* power_of(const MeasuredKernel& row) {
    if (row.kind == Kind::gemm) return kernels().gemm ? &kernels().gemm->power : nullptr;
    return row.kind == Kind::attention ? &model_of(row).power : nullptr;
  }
  KernelLoad load_of(const MeasuredKernel& row) {
    if (row.kind == Kind::gemm) return gemm_load(row.dense, *kernels().gemm, kernels(), facts_.peaks);
    return attention_load(row.attention, model_of(row), kernels(), facts_.peaks, profile_.tile_query.value,
                          profile_.tile_key.value);
  }
  void fit_clock(Unknowns& unknowns, const std::string& what, Kind kind, Regime regime) {
    const double limited = at_power_limit * kernels().clock.power_limit.value;
    const Rows rows = fitted([&](const MeasuredKernel& row) {
      const bool at_limit = row.power == Watts() || row.power.si() > limited;
      // A kernel that goes through masked tiles multiplies zeros, which other ones do little of.
      return row.kind == kind && row.regime == regime && row.clock_hz > 0 && (regime == Regime::burst || at_limit) &&
             !row.attention.masked_rectangle();
    });
    std::map<const MeasuredKernel*, KernelLoad> loads;
    for (const MeasuredKernel* row : rows) loads[row] = load_of(*row);
    unknowns.fit_to(rows, what, [&](const MeasuredKernel& row) {
      return run_kernel(loads.at(&row), kernels().clock, *power_of(row), regime).clock_hz / row.clock_hz - 1;
    });
  }

  /// The chip's constants and those of its kernels from attention, which products then share.
  void fit_clock(const std::string& what, std::span<const ConstantOf<ClockModel>> of_chip,
                 const ConstantOf<PowerModel>& of_kind, Regime regime) {
    Unknowns attention;
    for (const auto& constant : of_chip) attention.add(kernels().clock, constant, "clock");
    for (AttentionModel& model : kernels().attention) {
      attention.add(model.power, of_kind, fmt::format("attention.{}.d{}", name_of(model.phase), model.head_dim));
    }
    fit_clock(attention, what, Kind::attention, regime);
    if (!kernels().gemm) return;
    // From there: where a start is so far off that no limit is met, nothing shows the way.
    Constant& of_products = kernels().gemm->power.*of_kind.member;
    of_products.value = (kernels().attention.front().power.*of_kind.member).value;
    Unknowns products;
    products.add(kernels().gemm->power, of_kind, "gemm");
    fit_clock(products, what + ", products", Kind::gemm, regime);
  }

  void fit_clocks() {
    const auto of_chip = constants_of_clock();
    fit_clock("clock of bursts", std::span(of_chip).subspan(1, 1), constants_of_power()[0], Regime::burst);
    fit_clock("clock at the power limit", std::span(of_chip).subspan(4, 2), constants_of_power()[1], Regime::sustained);
  }

  /// How far samples of one row lie apart where the power limit holds.
  void spread_in_time() {
    ClockModel& clock = kernels().clock;
    const auto spread = [&](Constant& constant, const char* name, bool longer) {
      const Rows rows = fitted([&](const MeasuredKernel& row) {
        return row.kind == Kind::attention && row.regime == Regime::sustained && row.spread > 0 &&
               row.power.si() > at_power_limit * clock.power_limit.value &&
               (row.time.si() > clock.power_lag.value) == longer;
      });
      if (rows.empty()) return;
      std::vector<double> values;
      for (const MeasuredKernel* row : rows) values.push_back(row->spread);
      known(constant, std::string("clock.") + name, "1", quantile(values, 0.5), Provenance::measured,
            "median over sustained attention rows at the power limit of (p95 - p5) / 3.29 / median; " + files_of(rows));
      if (rows.size() == 1) constant.provenance = Provenance::assumed;  // how far others would be is not known
      constant.rows = static_cast<int>(rows.size());
      constant.low = quantile(values, 0.05);
      constant.high = quantile(values, 0.95);
    };
    spread(clock.wander, "wander", false);
    spread(clock.swing, "swing", true);
  }

  // ---- what stands for kernels without a model: the best rate of the fitted rows

  void best(Constant& constant, double value, const std::string& what) {
    known(constant, constant.name, constant.unit, std::min(value, 1.0), Provenance::measured,
          fmt::format("the best fitted row of {}", what));
  }

  void peaks_reached() {
    double forward = 0, backward = 0, dense = 0, memory = 0;
    for (const MeasuredKernel* row : fitted([](const MeasuredKernel&) { return true; })) {
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

  // ---- error bands

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
