#include "cost_models/fit_kernels.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include "cost_models/intervals.hpp"
#include "cost_models/least_squares.hpp"

namespace orrery {
namespace {

using Kind = MeasuredKernel::Kind;
using Rows = std::vector<const MeasuredKernel*>;

constexpr int fewest_sizes = 2;         // fitted sizes from which a kind of streaming kernel has constants of its own
constexpr int fewest_knots = 6;         // fitted sizes from which a kind of message has a table: with fewer it would
                                        // interpolate over factors of ten
constexpr double contradiction = 0.25;  // robust scatter beyond which rows do not belong to one model

std::string files_of(const Rows& rows) {
  std::set<std::string> names;
  for (const MeasuredKernel* row : rows) names.insert(file_of(*row));
  return fmt::format("{}", fmt::join(names, ", "));
}

/// The constants one fit looks for: where each lives, and what it is called in messages.
class Unknowns {
 public:
  template <class Model>
  void add(Model& model, const ConstantOf<Model>& constant, const std::string& owner) {
    Constant& c = model.*constant.member;
    c.name = fmt::format("{}.{}", owner, constant.name);
    c.unit = constant.unit;
    if (c.value == 0) c.value = constant.start;
    problem_.start.push_back(c.value);
    problem_.lower.push_back(constant.lower);
    problem_.upper.push_back(constant.upper);
    places_.push_back(&c);
    determined_by_.emplace_back(constant.determined_by);
  }

  void set(const std::vector<double>& values) {
    for (std::size_t i = 0; i < places_.size(); ++i) places_[i]->value = values[i];
  }

  /// `residual(row)` is the relative error with the constants as they are set.
  template <class Residual>
  void fit_to(const Rows& rows, const std::string& what, Residual residual) {
    if (rows.size() < places_.size()) {
      throw FitError(fmt::format("{}: {} rows to fit {} constants ({}), measure {}", what, rows.size(), places_.size(),
                                 names(), fmt::join(determined_by_, ", ")));
    }
    problem_.residuals = [&](const std::vector<double>& values) {
      set(values);
      std::vector<double> residuals;
      for (const MeasuredKernel* row : rows) residuals.push_back(residual(*row));
      return residuals;
    };
    const LeastSquaresFit result = fit(problem_);
    set(result.values);
    for (const int i : result.undetermined) {
      throw FitError(fmt::format("{}: the rows do not determine {} (they leave it free), measure {}", what,
                                 places_[static_cast<std::size_t>(i)]->name,
                                 determined_by_[static_cast<std::size_t>(i)]));
    }
    if (result.scatter > contradiction) refuse(rows, what, result.scatter, residual);
    for (std::size_t i = 0; i < places_.size(); ++i) {
      places_[i]->provenance = Provenance::fitted;
      places_[i]->source = files_of(rows);
      places_[i]->low = result.low[i];
      places_[i]->high = result.high[i];
      places_[i]->rows = static_cast<int>(rows.size());
    }
  }

 private:
  std::string names() const {
    std::string list;
    for (const Constant* place : places_) list += (list.empty() ? "" : ", ") + place->name;
    return list;
  }

  template <class Residual>
  [[noreturn]] void refuse(const Rows& rows, const std::string& what, double scatter, Residual residual) const {
    const auto worst = std::max_element(rows.begin(), rows.end(), [&](const auto* a, const auto* b) {
      return std::abs(residual(*a)) < std::abs(residual(*b));
    });
    throw FitError(
        fmt::format("{}: rows contradict each other (they scatter by {:.0f} % around the best constants, "
                    "most of all {}: {}), fit files of one GPU and one build of the kernels",
                    what, 100 * scatter, (*worst)->place, (*worst)->shape));
  }

  LeastSquaresProblem problem_;
  std::vector<Constant*> places_;
  std::vector<std::string> determined_by_;
};

class Fitter {
 public:
  Fitter(std::span<const MeasuredKernel> rows, const FitFacts& facts, Profile base)
      : all_(rows), uses_(split(rows)), facts_(facts), profile_(std::move(base)) {
    profile_.kernels.emplace();
  }

  KernelFit run() {
    if (of(Kind::attention).empty()) {
      throw FitError("no attention rows (a profile is of attention kernels first), give attention.csv of orrery bench");
    }
    known_facts();
    fit_streams();
    hbm_energy();
    for (const Phase phase : {Phase::forward, Phase::backward}) fit_attention(phase);
    fit_gemm();
    fit_burst_clock();
    fit_power();
    tabulate_links();
    peaks_reached();
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
      if (uses_[i] == RowUse::fitted && keep(all_[i])) rows.push_back(&all_[i]);
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
    // Tensor cores do a power of two of FLOPs a cycle; the datasheet's peak is that at a clock near the maximum.
    const double per_sm = facts_.peaks.matrix.si() / (facts_.peaks.sms * facts_.maximum_clock_hz);
    known(clock.tensor_flops_per_cycle, "clock.tensor_flops_per_cycle", "1",
          facts_.peaks.sms * std::exp2(std::round(std::log2(per_sm))), Provenance::datasheet,
          "the power of two per SM and cycle next to peak / (SMs * maximum clock)");
    known(clock.power_lag, "clock.power_lag", "s", 0.05, Provenance::assumed,
          "between 40 and 80 ms: the first samples of 40 ms of a sustained run go at the clock of a burst, launches of "
          "more than 60 ms do not");
    known(clock.hbm_energy, "clock.hbm_energy", "J/B", 0, Provenance::assumed, "no copy_kernel rows with their power");
  }

  // ---- kernels that move bytes

  /// `like` lends the ratio of the two rates to a kind whose sizes do not show it.
  StreamModel fit_stream(const std::string& name, const Rows& rows, const StreamModel* like) const {
    StreamModel model;
    model.kernel = name;
    known(model.cache, "stream." + name + ".cache", "B", facts_.cache.si(), Provenance::datasheet,
          "L2 of the GPU's file");
    const auto cached = std::count_if(rows.begin(), rows.end(), [&](const auto* r) { return r->bytes < facts_.cache; });
    const bool both = cached >= 2 && static_cast<std::size_t>(cached) < rows.size();
    const double ratio = like == nullptr ? 1 : like->cached_bandwidth.value / like->bandwidth.value;
    const auto constants = constants_of_stream();
    Unknowns unknowns;
    for (std::size_t c = 0; c < (both ? 3u : 2u); ++c) unknowns.add(model, constants[c], "stream." + name);
    unknowns.fit_to(rows, name, [&](const MeasuredKernel& row) {
      if (!both) model.cached_bandwidth.value = ratio * model.bandwidth.value;
      return model.time(row.bytes) / row.time - 1;
    });
    if (!both) {
      known(model.cached_bandwidth, "stream." + name + ".cached_bandwidth", "B/s", ratio * model.bandwidth.value,
            Provenance::assumed, "as much above `bandwidth` as in all kinds together");
    }
    return model;
  }

  /// A kind with few sizes shares the constants of all.
  void fit_streams() {
    std::map<std::string, Rows> by_family;
    for (const MeasuredKernel* row : of(Kind::stream)) by_family[row->family].push_back(row);
    if (by_family.empty()) return;
    const StreamModel other = fit_stream("other", of(Kind::stream), nullptr);
    for (const auto& [name, rows] : by_family) {
      if (rows.size() >= fewest_sizes) kernels().streams.push_back(fit_stream(name, rows, &other));
    }
    kernels().streams.push_back(other);
  }

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

  // ---- cycles of attention and matrix products, at the clock that was measured

  double at_measured_clock(const KernelLoad& load, const MeasuredKernel& row) const {
    return duration_at(row.clock_hz, load) / row.time - 1;
  }

  AttentionModel& model_of(const MeasuredKernel& row) {
    for (AttentionModel& model : kernels().attention) {
      if (model.phase == row.phase && model.head_dim == static_cast<int>(row.attention.head_dim)) return model;
    }
    throw FitError(row.place + ": no model of this head_dim");  // cannot happen: models are made from the rows
  }

  /// What does not depend on head_dim is shared by all: launch and traffic per element. Cycles are not.
  void fit_attention(Phase phase) {
    const auto rows_of = [&](bool window, bool halo) {
      return fitted([&](const MeasuredKernel& row) {
        return row.kind == Kind::attention && row.phase == phase && row.clock_hz > 0 &&
               row.attention.window == window && row.attention.halo() == halo;
      });
    };
    const Rows rows = rows_of(false, false);
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
    const auto constants = constants_of_attention();
    // Shared: launch, query_traffic, grouped_traffic, grouped_launch; the last two are of windows.
    const std::size_t shared_count = 4, own_count = constants.size() - 2;
    Unknowns unknowns;
    for (std::size_t c = 0; c < shared_count; ++c) {
      // Forward, no kernel runs around the tiles.
      const bool moves = phase == Phase::backward || c == 0;
      if (moves) {
        unknowns.add(models.front(), constants[c], fmt::format("attention.{}", name_of(phase)));
      } else {
        known(models.front().*constants[c].member, fmt::format("attention.{}.{}", name_of(phase), constants[c].name),
              std::string(constants[c].unit), 0, Provenance::assumed, "forward, one kernel does everything");
      }
    }
    for (AttentionModel& model : models) {
      const std::string owner = fmt::format("attention.{}.d{}", name_of(phase), model.head_dim);
      for (std::size_t c = shared_count; c < own_count; ++c) unknowns.add(model, constants[c], owner);
    }
    const auto share = [&] {
      for (AttentionModel& model : models) {
        for (std::size_t c = 0; c < shared_count; ++c) {
          model.*constants[c].member = models.front().*constants[c].member;
        }
      }
    };
    unknowns.fit_to(rows, fmt::format("attention {}", name_of(phase)), [&](const MeasuredKernel& row) {
      share();
      return at_measured_clock(load_of(row), row);
    });
    share();
    fit_windows(constants[own_count], models, rows_of(true, false));
    fit_windows(constants[own_count + 1], models, rows_of(true, true));
  }

  /// A constant that all head_dims share. Windows are other kernels: their edges take other times than a diagonal, and
  /// some skip the masked tiles only if there are as many queries as keys.
  void fit_windows(const ConstantOf<AttentionModel>& constant, std::span<AttentionModel> models, const Rows& rows) {
    Constant& first = models.front().*constant.member;
    const std::string owner = fmt::format("attention.{}", name_of(models.front().phase));
    if (rows.empty()) {
      known(first, fmt::format("{}.{}", owner, constant.name), std::string(constant.unit), 0, Provenance::assumed,
            fmt::format("no rows of {}", constant.determined_by));
    } else {
      Unknowns unknowns;
      unknowns.add(models.front(), constant, owner);
      unknowns.fit_to(rows, fmt::format("{} of {}", owner, constant.determined_by), [&](const MeasuredKernel& row) {
        for (AttentionModel& model : models) model.*constant.member = first;
        return at_measured_clock(load_of(row), row);
      });
    }
    for (AttentionModel& model : models) model.*constant.member = first;
  }

  void fit_gemm() {
    const Rows rows = fitted([](const MeasuredKernel& row) { return row.kind == Kind::gemm && row.clock_hz > 0; });
    if (rows.empty()) return;
    GemmModel& model = kernels().gemm.emplace();
    Unknowns unknowns;
    for (const auto& constant : constants_of_gemm()) unknowns.add(model, constant, "gemm");
    unknowns.fit_to(rows, "gemm", [&](const MeasuredKernel& row) {
      return at_measured_clock(gemm_load(row.dense, model, kernels(), facts_.peaks), row);
    });
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
  template <class Visit>
  void for_each_power(Visit visit) {
    for (AttentionModel& model : kernels().attention) {
      visit(model.power, fmt::format("attention.{}.d{}", name_of(model.phase), model.head_dim));
    }
    if (kernels().gemm) visit(kernels().gemm->power, std::string("gemm"));
  }

  Rows clocked(Regime regime) {
    return fitted([&](const MeasuredKernel& row) {
      return (row.kind == Kind::attention || row.kind == Kind::gemm) && row.regime == regime && row.clock_hz > 0;
    });
  }

  void fit_clock(Unknowns& unknowns, const std::string& what, Regime regime) {
    const Rows rows = clocked(regime);
    std::map<const MeasuredKernel*, KernelLoad> loads;
    for (const MeasuredKernel* row : rows) loads[row] = load_of(*row);
    unknowns.fit_to(rows, what, [&](const MeasuredKernel& row) {
      return run_kernel(loads.at(&row), kernels().clock, *power_of(row), regime).clock_hz / row.clock_hz - 1;
    });
  }

  void fit_burst_clock() {
    Unknowns unknowns;
    unknowns.add(kernels().clock, constants_of_clock()[1], "clock");
    for_each_power(
        [&](PowerModel& power, const std::string& owner) { unknowns.add(power, constants_of_power()[0], owner); });
    fit_clock(unknowns, "clock of bursts", Regime::burst);
  }

  void fit_power() {
    Unknowns unknowns;
    unknowns.add(kernels().clock, constants_of_clock()[4], "clock");
    for_each_power(
        [&](PowerModel& power, const std::string& owner) { unknowns.add(power, constants_of_power()[1], owner); });
    fit_clock(unknowns, "clock at the power limit", Regime::sustained);
  }

  // ---- links

  void tabulate_links() {
    std::map<std::string, Rows> by_family;
    for (const MeasuredKernel* row : of(Kind::message)) by_family[row->family].push_back(row);
    for (auto& [name, rows] : by_family) {
      if (rows.size() < fewest_knots) continue;
      std::sort(rows.begin(), rows.end(), [](const auto* a, const auto* b) { return a->bytes < b->bytes; });
      LinkTable& table = kernels().links.emplace_back();
      table.link = rows.front()->link;
      table.mechanism = rows.front()->mechanism;
      table.op = rows.front()->op;
      table.source = files_of(rows);
      for (std::size_t first = 0, last = 0; first < rows.size(); first = last) {
        // A size that several files have counts once, with the mean. Noise must not make a longer message faster.
        double sum = 0;
        for (; last < rows.size() && rows[last]->bytes == rows[first]->bytes; ++last) sum += rows[last]->time.si();
        const double least = table.seconds.empty() ? 0 : table.seconds.back();
        table.bytes.push_back(rows[first]->bytes.si());
        table.seconds.push_back(std::max(sum / static_cast<double>(last - first), least));
      }
    }
  }

  // ---- what stands for kernels without a model: the best rate of the fitted rows

  void best(Constant& constant, double value, const std::string& what) {
    known(constant, constant.name, constant.unit, std::min(value, 1.0), Provenance::measured,
          fmt::format("the best fitted row of {}", what));
  }

  void peaks_reached() {
    double forward = 0, backward = 0, dense = 0, memory = 0;
    for (const MeasuredKernel* row : fitted([](const MeasuredKernel&) { return true; })) {
      const double flops = row->kind == Kind::gemm ? row->dense.flops.si() : row->work;
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

  void calibrate(KernelFit& result) const {
    std::vector<double> sizes;
    std::map<std::string, ErrorBand> bands;
    std::map<std::string, std::vector<double>> deviations;
    for (std::size_t i = 0; i < all_.size(); ++i) {
      const MeasuredKernel& row = all_[i];
      ErrorBand& band = bands[row.group];
      if (band.group.empty()) band = {.group = row.group, .least = row.work, .most = row.work};
      band.least = std::min(band.least, row.work);
      band.most = std::max(band.most, row.work);
      if (result.uses[i] != RowUse::calibration) continue;
      const Seconds predicted = predicted_time(row, facts_.peaks, result.profile);
      if (predicted > Seconds()) deviations[row.group].push_back(std::abs(row.time / predicted - 1));
    }
    for (auto& [group, band] : bands) {
      if (deviations[group].empty()) continue;
      band.inside = conformal_half_width(deviations[group], 0.9);
      band.outside = 2 * band.inside;
      band.rows = static_cast<int>(deviations[group].size());
      result.profile.kernels->bands.push_back(band);
    }
    result.errors = errors_by_group(all_, result.uses, facts_.peaks, result.profile);
  }

  std::span<const MeasuredKernel> all_;
  std::vector<RowUse> uses_;
  FitFacts facts_;
  Profile profile_;
};

}  // namespace

std::vector<RowUse> split(std::span<const MeasuredKernel> rows) {
  std::map<std::string, std::map<std::pair<double, std::string>, RowUse>> families;
  for (const MeasuredKernel& row : rows) families[row.family][{row.work, row.shape}] = RowUse::fitted;
  for (auto& [name, shapes] : families) {
    int i = 0;
    for (auto& [shape, use] : shapes) use = static_cast<RowUse>(i++ % 3);
  }
  std::vector<RowUse> uses;
  for (const MeasuredKernel& row : rows) {
    const RowUse use = families[row.family][{row.work, row.shape}];
    uses.push_back(row.attention.halo() ? RowUse::fitted : use);
  }
  return uses;
}

ErrorBand band_of_other_chip(std::span<const MeasuredKernel> rows, const GpuPeaks& peaks, const Profile& profile) {
  ErrorBand band{.group = other_chip};
  std::vector<double> deviations;
  for (const MeasuredKernel& row : rows) {
    if (row.kind != Kind::attention) continue;
    band.least = deviations.empty() ? row.work : std::min(band.least, row.work);
    band.most = std::max(band.most, row.work);
    deviations.push_back(std::abs(row.time / predicted_time(row, peaks, profile) - 1));
  }
  if (deviations.empty()) throw FitError("no attention rows of another chip, give its attention.csv");
  band.inside = conformal_half_width(deviations, 0.9);
  band.outside = 2 * band.inside;
  band.rows = static_cast<int>(deviations.size());
  return band;
}

std::vector<HeldOutErrors> errors_by_group(std::span<const MeasuredKernel> rows, std::span<const RowUse> uses,
                                           const GpuPeaks& peaks, const Profile& profile) {
  std::vector<HeldOutErrors> groups;
  std::map<std::string, std::vector<double>> errors;
  std::map<std::string, std::pair<int, int>> covered;  // of how many
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const MeasuredKernel& row = rows[i];
    auto group = std::find_if(groups.begin(), groups.end(), [&](const auto& g) { return g.group == row.group; });
    if (group == groups.end()) group = groups.insert(groups.end(), HeldOutErrors{.group = row.group});
    if (uses[i] == RowUse::fitted) {
      ++group->fitted;
      continue;
    }
    const Seconds predicted = predicted_time(row, peaks, profile);
    if (!(predicted > Seconds())) continue;
    ++group->held_out;
    errors[row.group].push_back(std::abs(predicted / row.time - 1));
    const ErrorBand* band = profile.kernels ? profile.kernels->band_of(row.group) : nullptr;
    if (uses[i] != RowUse::test || band == nullptr) continue;
    ++covered[row.group].second;
    if (std::abs(row.time / predicted - 1) <= band->inside) ++covered[row.group].first;
  }
  for (HeldOutErrors& group : groups) {
    const std::vector<double>& e = errors[group.group];
    if (e.empty()) continue;
    for (const double error : e) group.mean += error / static_cast<double>(e.size());
    group.median = quantile(e, 0.5);
    group.p90 = quantile(e, 0.9);
    group.max = quantile(e, 1);
    const auto [in, of_all] = covered[group.group];
    group.coverage = of_all > 0 ? static_cast<double>(in) / of_all : 0;
  }
  return groups;
}

KernelFit fit_kernels(std::span<const MeasuredKernel> rows, const FitFacts& facts, Profile base) {
  return Fitter(rows, facts, std::move(base)).run();
}

}  // namespace orrery
