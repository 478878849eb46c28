#include "cost_models/fit_published.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include "cost_models/intervals.hpp"
#include "cost_models/least_squares.hpp"
#include "cost_models/predicted_kernels.hpp"
#include "cost_models/unknowns.hpp"

namespace orrery {
namespace {

Constant known(std::string name, std::string unit, double value, Provenance provenance, std::string source) {
  return {std::move(name), value, std::move(unit), provenance, std::move(source)};
}

ClockModel clock_of(const GpuPeaks& peaks) {
  const char* unknown = "not published: the clock is taken to be that of the datasheet's peak, whatever the load";
  ClockModel clock;
  const auto values = [&]<std::size_t n>(const std::array<ConstantOf<ClockModel>, n>& list) {
    for (const ConstantOf<ClockModel>& c : list) {
      if (c.optional) continue;
      clock.*c.member = known("clock." + std::string(c.name), std::string(c.unit), 0, Provenance::assumed, unknown);
    }
  };
  values(constants_of_clock());
  clock.tensor_flops_per_cycle.value = tensor_flops_per_cycle(peaks, usual_clock_hz);
  clock.tensor_flops_per_cycle.source = "the power of two per SM and cycle next to peak / (SMs * 1.9 GHz)";
  clock.maximum_clock.value = clock.burst_clock.value = peaks.matrix.si() / clock.tensor_flops_per_cycle.value;
  return clock;
}

class PublishedFitter {
 public:
  PublishedFitter(std::span<const MeasuredKernel> rows, const GpuPeaks& peaks, Profile base,
                  const std::optional<LentProfile>& lent)
      : rows_(rows), uses_(split(rows)), peaks_(peaks), profile_(std::move(base)), lent_(lent) {
    profile_.kernels.emplace();
    kernels().clock = clock_of(peaks);
  }

  KernelFit run() {
    fit_streams();
    borrow();
    for (const Phase phase : {Phase::forward, Phase::backward}) fit_phase(phase);
    refuse_far_off(rows_, peaks_, profile_);
    KernelFit result{std::move(profile_), uses_, {}};
    calibrate(result);
    return result;
  }

 private:
  MeasuredKernels& kernels() { return *profile_.kernels; }

  void fit_streams() {
    std::map<std::string, std::vector<const MeasuredKernel*>> kinds;
    for (std::size_t i = 0; i < rows_.size(); ++i) {
      const bool stream = rows_[i].kind == MeasuredKernel::Kind::stream;
      if (stream && uses_[i] == RowUse::fitted) kinds[rows_[i].kernel].push_back(&rows_[i]);
    }
    for (const auto& kind : kinds) {
      const std::string& name = kind.first;
      const std::vector<const MeasuredKernel*>& rows = kind.second;
      if (rows.size() < 2) continue;
      StreamModel& model = kernels().streams.emplace_back();
      model.kernel = name;
      LeastSquaresProblem problem;
      for (const auto& c : constants_of_stream()) {
        model.*c.member =
            known(fmt::format("stream.{}.{}", name, c.name), std::string(c.unit), 0, Provenance::assumed, "");
        problem.start.push_back(c.start);
        problem.lower.push_back(c.lower);
        problem.upper.push_back(c.upper);
      }
      problem.residuals = [&](const std::vector<double>& values) {
        std::vector<double> deviations;
        for (const MeasuredKernel* row : rows) {
          deviations.push_back((values[0] + row->bytes.si() / values[1]) / row->time.si() - 1);
        }
        return deviations;
      };
      const LeastSquaresFit result = fit(problem);
      take(model.launch, result, 0, rows);
      take(model.bandwidth, result, 1, rows);
      note_bounds({&model.launch, &model.bandwidth}, problem);
    }
  }

  /// Kinds of kernels that no row is of, and messages on links that the two GPUs have in common.
  void borrow() {
    if (!lent_ || !lent_->profile.kernels) return;
    const double share = peaks_.hbm.si() / lent_->peaks.hbm.si();
    for (StreamModel stream : lent_->profile.kernels->streams) {
      const StreamModel* own = kernels().stream_of(stream.kernel);
      if (own != nullptr) continue;
      stream.bandwidth.value *= share;
      for (Constant* c : {&stream.launch, &stream.bandwidth}) {
        c->rows = 0;
        c->provenance = Provenance::assumed;
        c->source = fmt::format("as {}, at the same fraction of the HBM bandwidth", lent_->profile.name);
      }
      kernels().streams.push_back(std::move(stream));
    }
    if (lent_->profile.kernels->nccl_beside) {
      NcclBeside& beside = kernels().nccl_beside.emplace(*lent_->profile.kernels->nccl_beside);
      for (const auto& constant : constants_of_nccl_beside()) {
        Constant& c = beside.*constant.member;
        c.provenance = Provenance::assumed;
        c.source = "as " + lent_->profile.name;
      }
    }
    for (LinkTable table : lent_->profile.kernels->links) {
      table.source = fmt::format("as {}: {}", lent_->profile.name, table.source);
      kernels().links.push_back(std::move(table));
    }
  }

  std::vector<const MeasuredKernel*> fitted_rows(Phase phase) const {
    std::vector<const MeasuredKernel*> rows;
    for (std::size_t i = 0; i < rows_.size(); ++i) {
      const bool attention = rows_[i].kind == MeasuredKernel::Kind::attention && rows_[i].phase == phase;
      if (attention && uses_[i] == RowUse::fitted) rows.push_back(&rows_[i]);
    }
    return rows;
  }

  /// Everything but the constants that are looked for.
  AttentionModel empty_model(Phase phase, int head_dim) const {
    AttentionModel model;
    model.phase = phase;
    model.head_dim = head_dim;
    for (const auto& c : constants_of_attention()) {
      model.*c.member = known(std::string(c.name), std::string(c.unit), 0, Provenance::assumed,
                              "forward, one kernel does everything");
    }
    model.waves_in_step.source = "not published";
    // FlashAttention-2 and 3, backward: O and dO read (4 B), the fp32 sum of dQ cleared (4), read and dQ written (6).
    // With grouped heads, dK and dV of every query head written and read, two tensors of 2 B.
    if (phase == Phase::backward) {
      model.query_traffic.value = 14;
      model.grouped_traffic.value = 8;
      for (Constant* c : {&model.query_traffic, &model.grouped_traffic}) {
        c->source = "Dao-AILab/flash-attention: the kernels around the tiles, by their tensors";
      }
    }
    for (const auto& c : constants_of_power()) {
      model.power.*c.member = known(std::string(c.name), std::string(c.unit), 0, Provenance::assumed, "not published");
    }
    return model;
  }

  double deviation(const MeasuredKernel& row, const AttentionModel& model) {
    const KernelLoad load =
        attention_load(row.attention, model, kernels(), peaks_, profile_.tile_query.value, profile_.tile_key.value);
    return run_kernel(load, kernels().clock, model.power, row.regime).duration / row.time - 1;
  }

  void fit_phase(Phase phase) {
    const auto rows = fitted_rows(phase);
    if (rows.empty()) {
      throw FitError(fmt::format("no attention rows of the {} pass, give a file that has some", name_of(phase)));
    }
    AttentionModel model = empty_model(phase, static_cast<int>(rows.front()->attention.head_dim));
    // The launch first, see refuse_bounds().
    const std::vector<Constant*> sought = {&model.launch, &model.list_start, &model.full_tile, &model.masked_tile};
    std::set<std::string> shapes;  // a shape measured again determines nothing more
    for (const MeasuredKernel* row : rows) shapes.insert(row->shape);
    if (shapes.size() < sought.size()) {
      scale_lent(phase, rows, model);
    } else {
      LeastSquaresProblem problem;
      for (const Constant* c : sought) {
        for (const auto& known : constants_of_attention()) {
          if (known.name != c->name) continue;
          problem.start.push_back(known.start);
          problem.lower.push_back(known.lower);
          problem.upper.push_back(known.upper);
        }
      }
      problem.residuals = [&](const std::vector<double>& values) {
        for (std::size_t i = 0; i < sought.size(); ++i) sought[i]->value = values[i];
        return deviations(rows, model);
      };
      const LeastSquaresFit result = fit(problem);
      for (std::size_t i = 0; i < sought.size(); ++i) take(*sought[i], result, i, rows);
      note_bounds(sought, problem);
      refuse_bounds(phase, rows, sought, problem);
    }
    for (const auto& c : constants_of_attention())
      (model.*c.member).name = fmt::format("attention.{}.{}", name_of(phase), c.name);
    kernels().attention.push_back(model);
  }

  static void note_bounds(const std::vector<Constant*>& sought, const LeastSquaresProblem& problem) {
    for (std::size_t i = 0; i < sought.size(); ++i) {
      const double value = sought[i]->value;
      if (value <= problem.lower[i] || value >= problem.upper[i]) sought[i]->source += Unknowns::at_bound;
    }
  }

  /// No launch or no start of a list is possible, and small blocks may wait for a host longer than any launch takes,
  /// which their constant then says. No other bound is a kernel's.
  static void refuse_bounds(Phase phase, const std::vector<const MeasuredKernel*>& rows,
                            const std::vector<Constant*>& sought, const LeastSquaresProblem& problem) {
    for (std::size_t i = 0; i < sought.size(); ++i) {
      const double value = sought[i]->value;
      const bool at_lower = value <= problem.lower[i], at_upper = value >= problem.upper[i];
      if (!(at_lower && problem.lower[i] > 0) && !(at_upper && i > 0)) continue;
      throw FitError(fmt::format(
          "attention {}: the rows leave {} at {:.4g} {} (no kernel is like that: their times do not grow with their "
          "tiles "
          "as those of one kernel do), give full and causal blocks of several lengths, measured the same way; {} {}",
          name_of(phase), sought[i]->name, value, sought[i]->unit, rows.size() == 1 ? "row is" : "rows begin with",
          rows.front()->place));
    }
  }

  /// Not for fits of four constants: published rates of small blocks may be those of the host that launches them, and
  /// scatter by half.
  void refuse_contradictions(const LeastSquaresFit& result, Phase phase, const std::vector<const MeasuredKernel*>& rows,
                             const AttentionModel& model) {
    if (result.scatter <= Unknowns::contradicting_scatter) return;
    const std::vector<double> all = deviations(rows, model);
    const auto worst =
        std::max_element(all.begin(), all.end(), [](double a, double b) { return std::abs(a) < std::abs(b); });
    throw FitError(
        fmt::format("attention {}: rows contradict each other (they scatter by {:.0f} % around the best "
                    "constants, most of all {}), give rows of one kernel on one GPU",
                    name_of(phase), 100 * result.scatter, rows[static_cast<std::size_t>(worst - all.begin())]->place));
  }

  std::vector<double> deviations(const std::vector<const MeasuredKernel*>& rows, const AttentionModel& model) {
    std::vector<double> all;
    for (const MeasuredKernel* row : rows) all.push_back(deviation(*row, model));
    return all;
  }

  static void take(Constant& c, const LeastSquaresFit& result, std::size_t i,
                   const std::vector<const MeasuredKernel*>& rows) {
    c.value = result.values[i];
    c.low = result.low[i];
    c.high = result.high[i];
    c.rows = static_cast<int>(rows.size());
    c.provenance = Provenance::fitted;
    c.source = file_of(*rows.front());
  }

  /// One factor over the cycles of the same kernel on another GPU.
  void scale_lent(Phase phase, const std::vector<const MeasuredKernel*>& rows, AttentionModel& model) {
    const AttentionModel* like =
        lent_ && lent_->profile.kernels ? lent_->profile.kernels->attention_of(phase, model.head_dim) : nullptr;
    if (like == nullptr) {
      throw FitError(
          fmt::format("attention {}: {} rows to fit 4 constants (each shape counts once), give more shapes, or name a "
                      "profile of the same kernel on another "
                      "GPU (--like)",
                      name_of(phase), rows.size()));
    }
    model = *like;
    const std::vector<Constant*> cycles = {&model.list_start, &model.full_tile, &model.masked_tile};
    std::vector<double> lent;
    for (const Constant* c : cycles) lent.push_back(c->value);
    const auto set = [&](double factor) {
      for (std::size_t i = 0; i < cycles.size(); ++i) cycles[i]->value = factor * lent[i];
    };
    LeastSquaresProblem problem{.residuals = {}, .start = {1}, .lower = {0.1}, .upper = {10}};
    problem.residuals = [&](const std::vector<double>& values) {
      set(values.front());
      return deviations(rows, model);
    };
    const LeastSquaresFit result = fit(problem);
    const double factor = result.values.front();
    if (factor < 1.001 * problem.lower.front() || factor > 0.999 * problem.upper.front()) {
      throw FitError(fmt::format(
          "attention {}: the rows take less than a tenth or more than ten times the cycles of {} ({} takes {}), are "
          "times in time_ms milliseconds? If they are, give four rows and more a pass",
          name_of(phase), lent_->profile.name, rows.front()->place, format(rows.front()->time)));
    }
    set(factor);
    refuse_contradictions(result, phase, rows, model);
    for (Constant* c : cycles) {
      c->low = c->high = 0;
      c->rows = 0;
      c->provenance = Provenance::fitted;
      c->source = fmt::format("{:.4} times {}, from {} of {}", factor, lent_->profile.name, rows.size(),
                              file_of(*rows.front()));
    }
    for (Constant* c :
         {&model.launch, &model.query_traffic, &model.grouped_traffic, &model.grouped_launch, &model.waves_in_step}) {
      if (c->source.empty()) continue;  // the lender does not know
      c->rows = 0;
      c->provenance = Provenance::assumed;
      c->source = "as " + lent_->profile.name;
    }
  }

  /// Of kinds that no row of this GPU was left out of: the lender's; of another GPU's, as wide as beyond the range it
  /// measured, but for links that both have. Matrix products and slow-downs are not lent.
  void lend_bands(MeasuredKernels& kernels) const {
    if (!lent_ || !lent_->profile.kernels) return;
    for (ErrorBand band : lent_->profile.kernels->bands) {
      if (kernels.band_of(band.group) != nullptr || band.group == other_chip) continue;
      if (band.group == "gemm" || band.group.starts_with("slow-down")) continue;
      const bool of_link = band.group.starts_with("copies") || band.group.starts_with("collectives");
      if (of_link && kernels.links.empty()) continue;
      const bool widened = !lent_->of_same_gpu && !of_link;
      if (widened) {
        band.inside = band.outside;
        band.outside *= 2;
      }
      band.rows = 0;
      band.source = fmt::format("{} {}", widened ? "twice that of" : "as", lent_->profile.name);
      kernels.bands.push_back(std::move(band));
    }
  }

  /// Bands from the rows left out, and what stands for shapes without a model: the best rate of a fitted row.
  void calibrate(KernelFit& result) const {
    std::map<std::string, ErrorBand> bands;
    std::map<std::string, std::vector<double>> left_out;
    double best[2] = {0, 0};
    for (std::size_t i = 0; i < rows_.size(); ++i) {
      const MeasuredKernel& row = rows_[i];
      const bool attention = row.kind == MeasuredKernel::Kind::attention;
      stretch(bands[row.group], row);
      double& rate = best[row.phase == Phase::forward ? 0 : 1];
      if (attention && uses_[i] == RowUse::fitted) rate = std::max(rate, row.work / row.time.si() / peaks_.matrix.si());
      if (uses_[i] != RowUse::calibration) continue;
      left_out[row.group].push_back(std::abs(row.time / predicted_time(row, peaks_, result.profile) - 1));
    }
    for (auto& [group, band] : bands) {
      if (left_out[group].empty()) continue;
      band.inside = conformal_half_width(left_out[group], 0.9);
      band.outside = 2 * band.inside;
      band.rows = static_cast<int>(left_out[group].size());
      result.profile.kernels->bands.push_back(band);
    }
    lend_bands(*result.profile.kernels);
    const std::pair<Constant*, double> efficiencies[] = {{&result.profile.attention_forward_efficiency, best[0]},
                                                         {&result.profile.attention_backward_efficiency, best[1]}};
    for (const auto& [constant, value] : efficiencies) {
      constant->value = std::min(1.0, value);
      constant->provenance = Provenance::measured;
      constant->source = "the best fitted row";
    }
    remember(rows_, uses_, peaks_, result.profile);
    result.errors = errors_by_group(rows_, uses_, peaks_, result.profile);
  }

  std::span<const MeasuredKernel> rows_;
  std::vector<RowUse> uses_;
  GpuPeaks peaks_;
  Profile profile_;
  const std::optional<LentProfile>& lent_;
};

}  // namespace

KernelFit fit_published(std::span<const MeasuredKernel> rows, const GpuPeaks& peaks, Profile base,
                        const std::optional<LentProfile>& lent) {
  return PublishedFitter(rows, peaks, std::move(base), lent).run();
}

}  // namespace orrery
