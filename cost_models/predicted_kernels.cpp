#include "cost_models/predicted_kernels.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "cost_models/collective_tables.hpp"
#include "cost_models/nccl_channels.hpp"

namespace orrery {
namespace {

/// One pass of a row of both.
MeasuredKernel pass_of(MeasuredKernel row, Phase phase) {
  row.both_passes = false;
  row.phase = phase;
  row.group = fmt::format("attention {}", name_of(phase));
  row.work = attention_flops(row.attention, phase).si();
  return row;
}

/// A causal mask over keys gathered before the queries.
bool is_causal_rectangle(const AttentionShape& shape) {
  return shape.masked_rectangle() && !shape.window;
}

/// A mask over more queries than keys, whose first ones see none: nobody measured that.
bool has_blind_queries(const AttentionShape& shape) {
  return shape.masked_pairs > 0 && shape.query_rows > shape.key_rows;
}

}  // namespace

/// The bench flushes L2 by writing, which a stream that begins then has to write back first. In a step it would be what
/// the kernel before it left, whose own time is as much shorter.
Seconds written_first(const MeasuredKernel& row, const StreamModel& model) {
  // Of L2: rows of 1 to 5 GB take as long as so many bytes more, 0.9 of it in copies, 0.3 in additions and SwiGLU
  // (h200_sxm_full/elementwise.csv).
  constexpr double left_by_flush = 0.5;
  return Seconds::from_si(row.flushes * left_by_flush * model.cache.value / model.bandwidth.value);
}

namespace {

Seconds written_first(const MeasuredKernel& row, const Profile& profile) {
  if (!profile.kernels) return {};
  const StreamModel* model = profile.kernels->stream_or_other(row.kernel);
  return model != nullptr ? written_first(row, *model) : Seconds();
}

}  // namespace

Seconds predicted_time(const MeasuredKernel& row, const GpuPeaks& peaks, const Profile& profile) {
  if (row.both_passes) {
    return predicted_time(pass_of(row, Phase::forward), peaks, profile) +
           predicted_time(pass_of(row, Phase::backward), peaks, profile);
  }
  switch (row.kind) {
    case MeasuredKernel::Kind::attention:
      return attention_cost(row.attention, row.phase, peaks, profile, row.regime).duration;
    case MeasuredKernel::Kind::gemm:
      return dense_cost(row.dense, peaks, profile, row.regime).duration;
    case MeasuredKernel::Kind::stream:
      return streaming_cost(row.bytes, peaks, profile, row.kernel).duration + written_first(row, profile);
    case MeasuredKernel::Kind::message:
      break;
  }
  if (!profile.kernels) return Seconds();
  if (const LinkTable* table = profile.kernels->link_of(row.link, row.mechanism, row.op)) return table->time(row.bytes);
  if (row.mechanism != "nccl") return Seconds();
  if (const auto time = send_recv_named(row.op, row.bytes, *profile.kernels, row.link)) return *time;
  const auto collective = collective_named(row.op, *profile.kernels, row.link);
  return collective ? collective->time(row.bytes) : Seconds();
}

void stretch(ErrorBand& band, const MeasuredKernel& row) {
  const bool first = band.group.empty();
  const auto add = [&](double& least, double& most, double value) {
    least = first ? value : std::min(least, value);
    most = first ? value : std::max(most, value);
  };
  band.group = row.group;
  add(band.least, band.most, row.work);
  if (row.kind != MeasuredKernel::Kind::attention) return;
  add(band.least_queries, band.most_queries, row.attention.query_rows);
  add(band.least_keys, band.most_keys, row.attention.key_rows);
  band.causal_rectangles = band.causal_rectangles || is_causal_rectangle(row.attention);
}

bool within(const ErrorBand& band, const MeasuredKernel& row) {
  if (row.work < band.least || row.work > band.most) return false;
  if (row.kind != MeasuredKernel::Kind::attention) return true;
  const AttentionShape& a = row.attention;
  return a.query_rows >= band.least_queries && a.query_rows <= band.most_queries && a.key_rows >= band.least_keys &&
         a.key_rows <= band.most_keys && !has_blind_queries(a) && (band.causal_rectangles || !is_causal_rectangle(a));
}

double error_of_other_head_dims(const AttentionShape& shape, Phase phase, Regime regime, const GpuPeaks& peaks,
                                const Profile& profile) {
  double worst = 0;
  for (const AttentionModel& measured : profile.kernels->attention) {
    if (measured.phase != phase) continue;
    AttentionShape known = shape;
    known.head_dim = measured.head_dim;
    Profile others = profile;
    std::erase_if(others.kernels->attention,
                  [&](const AttentionModel& m) { return m.phase == phase && m.head_dim == measured.head_dim; });
    if (others.kernels->attention_of(phase, measured.head_dim) == nullptr) continue;
    const Seconds from_others = attention_cost(known, phase, peaks, others, regime).duration;
    worst = std::max(worst, std::abs(from_others / attention_cost(known, phase, peaks, profile, regime).duration - 1));
  }
  return worst;
}

std::optional<KernelInterval> interval_of(const MeasuredKernel& row, const GpuPeaks& peaks, const Profile& profile) {
  if (row.both_passes) {
    const auto forward = interval_of(pass_of(row, Phase::forward), peaks, profile);
    const auto backward = interval_of(pass_of(row, Phase::backward), peaks, profile);
    if (!forward || !backward) return std::nullopt;
    return KernelInterval{std::max(forward->half_width, backward->half_width),
                          forward->extrapolated || backward->extrapolated};
  }
  const ErrorBand* band = profile.kernels ? profile.kernels->band_of(row.group) : nullptr;
  if (band == nullptr) return std::nullopt;
  const bool other_ranks =
      row.kind == MeasuredKernel::Kind::message && profile.kernels->link_of(row.link, row.mechanism, row.op) == nullptr;
  KernelInterval interval{band->inside, other_ranks || !within(*band, row)};
  if (interval.extrapolated) interval.half_width = band->outside;
  if (row.kind != MeasuredKernel::Kind::attention) return interval;
  if (profile.kernels->is_measured(row.phase, row.attention.head_dim)) return interval;
  const double of_others = error_of_other_head_dims(row.attention, row.phase, row.regime, peaks, profile);
  return KernelInterval{band->outside + of_others, true};
}

}  // namespace orrery
