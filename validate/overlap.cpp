// How much a transfer in the background slows a kernel: the simulator's rule of shared SMs and HBM against overlap.csv.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "scenarios/hardware.hpp"
#include "scenarios/preset_files.hpp"
#include "sim/compute_rates.hpp"
#include "validate/measured_rows.hpp"

namespace orrery {
namespace {

/// Kernels of orrery bench that ask for all of HBM, and what the profile knows them as. Others ask for a tenth.
constexpr std::pair<std::string_view, std::string_view> memory_bound[] = {{"merge", "merge_block"},
                                                                          {"copy", "copy_kernel"}};

double hbm_demand(const std::string& kernel, const Profile& profile) {
  for (const auto& [name, stream] : memory_bound) {
    if (name != kernel || !profile.kernels) continue;
    if (const StreamModel* model = profile.kernels->stream_of(stream)) return model->bandwidth.value;
  }
  return 0;
}

double slows_nccl(const std::string& kernel, const Profile& profile) {
  if (!profile.kernels || !profile.kernels->nccl_beside) return 1;
  const NcclBeside& beside = *profile.kernels->nccl_beside;
  if (kernel == "attention_forward") return beside.attention_forward.value;
  if (kernel == "attention_backward") return beside.attention_backward.value;
  return kernel == "gemm" ? beside.matrix_products.value : beside.streams.value;
}

/// Thread blocks of two NCCL channels share an SM.
constexpr std::int64_t most_channels = 64;

double sms_held(const MeasuredTable& table, std::size_t row, const Implementation& nccl) {
  const std::string& channels = table.text(row, "channels");
  if (!table.text(row, "mechanism").starts_with("nccl")) return 0;
  if (channels.empty() || channels == "auto") return nccl.sms.value;
  return std::min(nccl.sms.value, static_cast<double>(table.whole_number(row, "channels", most_channels)) / 2);
}

}  // namespace

std::vector<Prediction> predict_overlap(const MeasuredTable& table, const Profile& profile) {
  std::vector<Prediction> all;
  const Implementation nccl = load_implementation("orrery_ring_nccl");
  for (std::size_t row = 0; row < table.rows(); ++row) {
    if (!table.is_ok(row)) continue;
    const std::string& kernel = table.text(row, "kernel");
    const std::string& mechanism = table.text(row, "mechanism");
    const std::string& link = table.text(row, "link");
    const Gpu gpu = load_gpu(table.text(row, "gpu"));
    Prediction p;
    p.row = row;
    p.group = slow_down_group;
    p.name = fmt::format("{} beside {} {}", kernel, mechanism, table.text(row, "channels"));
    p.place = table.place(row);
    const double alone_us = table.positive(row, "compute_alone_us");
    p.measured = Seconds::from_si(table.positive(row, "compute_overlapped_us") * 1e-6);
    if (link == "local" || link == "host") {
      p.reason = "the driver may copy inside one GPU with kernels";
      all.push_back(std::move(p));
      continue;
    }
    // Both directions pass through HBM, at the rate that the transfer has beside the kernel.
    const double rate = table.positive(row, "transfer_bytes") / (table.positive(row, "transfer_alone_us") * 1e-6);
    ComputeRate compute;
    compute.hold_sms(sms_held(table, row, nccl));
    const bool is_nccl = mechanism.starts_with("nccl");
    compute.change_traffic(0, 2 * rate / (is_nccl ? slows_nccl(kernel, profile) : 1));
    compute.start(0, static_cast<Ticks>(std::llround(alone_us * 1e6)), hbm_demand(kernel, profile));
    compute.update({static_cast<double>(gpu.sms), gpu.hbm_bandwidth}, 0);
    p.predicted = Seconds::from_si(compute.ticks_left() / ticks_per_second);
    if (const ErrorBand* band = profile.kernels ? profile.kernels->band_of(slow_down_group) : nullptr) {
      p.extrapolated = p.predicted.si() < band->least || p.predicted.si() > band->most;
      p.band = p.extrapolated ? band->outside : band->inside;
    }
    all.push_back(std::move(p));
  }
  return all;
}

}  // namespace orrery
