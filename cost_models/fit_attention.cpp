#include "cost_models/fit_attention.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "cost_models/intervals.hpp"

namespace orrery {
namespace {

/// A mask is laid over scores, of which a tile has as many whatever head_dim is: it costs as many cycles.
void share_mask(const AttentionModel& from, AttentionModel& to) {
  const double beyond = to.full_tile.value - from.full_tile.value;
  const double ratio = from.full_tile.value / to.full_tile.value;
  to.masked_tile = from.masked_tile;
  for (double* cycles : {&to.masked_tile.value, &to.masked_tile.low, &to.masked_tile.high}) *cycles += beyond;
  to.masked_kernel = from.masked_kernel;
  for (double* tiles : {&to.masked_kernel.value, &to.masked_kernel.low, &to.masked_kernel.high}) {
    *tiles = 1 + (*tiles - 1) * ratio;
  }
}

class AttentionFit {
 public:
  AttentionFit(Phase phase, const MeasuredRows& fitted, const MeasuredRows& guarded, const GpuPeaks& peaks,
               Profile& profile)
      : phase_(phase),
        fitted_(fitted),
        guarded_(guarded),
        peaks_(peaks),
        profile_(profile),
        kernels_(*profile.kernels) {}

  /// What does not depend on head_dim is shared by all: launch and traffic per element. Cycles are not, but for masks.
  void fit() {
    const auto rows_of = [&](bool rectangle, auto keep) {
      return those(fitted_, [&](const MeasuredKernel& row) {
        return row.kind == MeasuredKernel::Kind::attention && row.phase == phase_ && row.clock_hz > 0 &&
               row.attention.masked_rectangle() == rectangle && keep(row.attention);
      });
    };
    const auto is_window = [](const AttentionShape& shape) { return shape.window; };
    const MeasuredRows rows = rows_of(false, std::not_fn(is_window));
    std::set<int> head_dims;
    for (const MeasuredKernel* row : rows) head_dims.insert(static_cast<int>(row->attention.head_dim));
    if (rows.empty()) {
      throw FitError(fmt::format("no attention rows of the {} pass with sm_clock_mhz, measure them with orrery bench",
                                 name_of(phase_)));
    }
    const std::size_t first = kernels_.attention.size();
    for (const int head_dim : head_dims) {
      AttentionModel& model = kernels_.attention.emplace_back();
      model.phase = phase_;
      model.head_dim = head_dim;
    }
    const auto models = std::span(kernels_.attention).subspan(first);
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
      const char* none = around && phase_ == Phase::forward ? "forward, one kernel does everything"
                         : constants[c].name == "cold_start" && !warm_and_cold
                             ? "not both of rows with cache = warm and of others"
                             : nullptr;
      if (none == nullptr) {
        unknowns.add(models.front(), constants[c], fmt::format("attention.{}", name_of(phase_)));
      } else {
        models.front().*constants[c].member = {fmt::format("attention.{}.{}", name_of(phase_), constants[c].name), 0,
                                               std::string(constants[c].unit), Provenance::assumed, none};
      }
    }
    for (AttentionModel& model : models) {
      const std::string owner = fmt::format("attention.{}.d{}", name_of(phase_), model.head_dim);
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
    unknowns.fit_to(rows, fmt::format("attention {}", name_of(phase_)), [&](const MeasuredKernel& row) {
      share();
      return error(row);
    });
    share();
    const std::size_t of_windows = own_count + 1, window_count = 3;
    fit_windows(std::span(constants).subspan(of_windows, window_count), models, rows_of(false, is_window));
    fit_rectangle(constants[constants.size() - 2], constants.back(), models,
                  rows_of(true, [](const auto&) { return true; }));
    fit_each(constants[own_count], models, guarded(false));
    fit_each(constants[of_windows + window_count], models, guarded(true));
  }

 private:
  double error(const MeasuredKernel& row) { return error_at_measured_clock(load_of(row, peaks_, profile_), row); }

  MeasuredRows guarded(bool window) const {
    return those(guarded_, [&](const MeasuredKernel& row) {
      return row.phase == phase_ && row.attention.window == window && !row.attention.masked_rectangle() &&
             row.clock_hz > 0;
    });
  }

  /// Of one width, or two that are alike, tiles and the start of their lists cannot be told apart, and of long ones
  /// alone the launch. What comes first in the list is then as in other kernels.
  void fit_windows(std::span<const ConstantOf<AttentionModel>> constants, std::span<AttentionModel> models,
                   const MeasuredRows& rows) {
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
                     std::span<AttentionModel> models, const MeasuredRows& rows) {
    const auto error_with = [&](double cycles) {
      std::vector<double> errors;
      for (const MeasuredKernel* row : rows) {
        (model_of(*row, kernels_).*edge.member).value = cycles;
        errors.push_back(std::abs(error(*row)));
      }
      return quantile(errors, 0.5);
    };
    const bool skips = !rows.empty() && error_with(0) < error_with(edge.start);
    const auto& other = skips ? edge : start;
    for (AttentionModel& model : models) {
      model.*other.member = {fmt::format("attention.{}.{}", name_of(model.phase), other.name), 0,
                             std::string(other.unit), rows.empty() ? Provenance::assumed : Provenance::measured,
                             rows.empty() ? fmt::format("no rows of {}", other.determined_by)
                             : skips      ? "skips masked tiles; " + files_of(rows)
                                          : "goes through all tiles; " + files_of(rows)};
    }
    if (skips) return fit_shared(std::span(&start, 1), models, rows);
    fit_each(edge, models, rows);
  }

  /// Of all head_dims together, then of those that have rows alone.
  void fit_each(const ConstantOf<AttentionModel>& constant, std::span<AttentionModel> models,
                const MeasuredRows& rows) {
    fit_shared(std::span(&constant, 1), models, rows);
    for (AttentionModel& model : models) {
      const MeasuredRows own = those(
          rows, [&](const MeasuredKernel& row) { return static_cast<int>(row.attention.head_dim) == model.head_dim; });
      if (own.size() >= 2) fit_shared(std::span(&constant, 1), std::span(&model, 1), own);
    }
  }

  /// Constants that all head_dims share, of other kernels: those that guard the end of the keys, and windows, whose
  /// edges take other times than a diagonal, and of which some skip the masked tiles only with as many queries as keys.
  void fit_shared(std::span<const ConstantOf<AttentionModel>> constants, std::span<AttentionModel> models,
                  const MeasuredRows& rows) {
    const std::string owner = fmt::format("attention.{}", name_of(models.front().phase));
    const auto share = [&] {
      for (AttentionModel& model : models) {
        for (const auto& constant : constants) model.*constant.member = models.front().*constant.member;
      }
    };
    if (rows.empty()) {
      for (const auto& constant : constants) {
        models.front().*constant.member = {fmt::format("{}.{}", owner, constant.name), 0, std::string(constant.unit),
                                           Provenance::assumed, fmt::format("no rows of {}", constant.determined_by)};
      }
    } else {
      Unknowns unknowns;
      for (const auto& constant : constants) unknowns.add(models.front(), constant, owner);
      unknowns.fit_to(rows, fmt::format("{} of {}", owner, constants.back().determined_by),
                      [&](const MeasuredKernel& row) {
                        share();
                        return error(row);
                      });
    }
    share();
  }

  Phase phase_;
  const MeasuredRows& fitted_;
  const MeasuredRows& guarded_;
  const GpuPeaks& peaks_;
  Profile& profile_;
  MeasuredKernels& kernels_;
};

}  // namespace

void fit_attention(Phase phase, const MeasuredRows& fitted, const MeasuredRows& guarded, const GpuPeaks& peaks,
                   Profile& profile) {
  AttentionFit(phase, fitted, guarded, peaks, profile).fit();
}

}  // namespace orrery
