// How much a transfer in the background slows a kernel: the simulator's rule of shared SMs and HBM against overlap.csv.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <iterator>

#include "cost_models/nccl_channels.hpp"
#include "scenarios/hardware.hpp"
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

constexpr std::int64_t most_channels = 64;

/// NCCL's thread blocks, an SM each.
int channels_of(const MeasuredTable& table, std::size_t row) {
  constexpr int collective = 24;  // between GPUs of an NVSwitch node, as NCCL says in its log
  if (table.text(row, "mechanism") != "nccl_send_recv") return collective;
  const std::string& limit = table.text(row, "channels");
  const bool automatic = limit.empty() || limit == "auto";
  const int most =
      automatic ? nccl_automatic_channels : static_cast<int>(table.whole_number(row, "channels", most_channels));
  const int ranks = table.text(row, "n_gpu").empty() ? 2 : static_cast<int>(table.whole_number(row, "n_gpu", 65536));
  return nccl_send_recv_channels(most, ranks, Bytes::from_si(table.positive(row, "transfer_bytes")));
}

/// Attention of orrery bench as thread blocks that each take an SM for as long: 32 heads of 8192 queries forward, of
/// 4096 keys backward, 128 of them a block.
constexpr std::pair<std::string_view, double> attention_blocks[] = {{"attention_forward", 32 * 8192 / 128},
                                                                    {"attention_backward", 32 * 4096 / 128}};

bool is_attention(std::string_view kernel) {
  return std::any_of(std::begin(attention_blocks), std::end(attention_blocks),
                     [&](const auto& known) { return known.first == kernel; });
}

/// Times as long beside a transfer that takes `busy` of the kernel's time: where NCCL is, attention's blocks are not,
/// and those that found no SM take whole waves more. Forward, NCCL starts in the last wave of the kernel before.
double lost_waves(const std::string& kernel, int held, double busy, double sms) {
  for (const auto& [name, blocks] : attention_blocks) {
    if (name != kernel) continue;
    const double waves = std::ceil(blocks / sms);
    const double in_last_wave = kernel == "attention_forward" ? 1 : 0;
    const double displaced = held * std::max(0.0, std::min(busy, 1.0) * waves - in_last_wave);
    const double idle = waves * sms - blocks - held * in_last_wave;
    return (waves + std::ceil(std::max(0.0, displaced - std::max(0.0, idle)) / sms)) / waves;
  }
  return 1;
}

}  // namespace

std::vector<Prediction> predict_overlap(const MeasuredTable& table, const ProfileOfRow& profile_of_row) {
  std::vector<Prediction> all;
  for (std::size_t row = 0; row < table.rows(); ++row) {
    if (!table.is_ok(row)) continue;
    const Profile& profile = profile_of_row(row);
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
    const double transfer_alone_us = table.positive(row, "transfer_alone_us");
    const double rate = table.positive(row, "transfer_bytes") / (transfer_alone_us * 1e-6);
    const bool is_nccl = mechanism.starts_with("nccl");
    const double slower = is_nccl ? slows_nccl(kernel, profile) : 1;
    const int held = is_nccl ? channels_of(table, row) : 0;
    // One transfer starts beside every kernel, or the last one still runs.
    const double busy = std::min(1.0, slower * transfer_alone_us / alone_us);
    const double waves = lost_waves(kernel, held, busy, static_cast<double>(gpu.sms));
    ComputeRate compute;
    if (is_nccl && !is_attention(kernel)) compute.hold_sms(held * busy);
    compute.change_traffic(0, 2 * rate / slower);
    compute.start(0, static_cast<Ticks>(std::llround(alone_us * 1e6)), hbm_demand(kernel, profile));
    compute.update({static_cast<double>(gpu.sms), gpu.hbm_bandwidth}, 0);
    p.predicted = Seconds::from_si(waves * compute.ticks_left() / ticks_per_second);
    if (const ErrorBand* band = profile.kernels ? profile.kernels->band_of(slow_down_group) : nullptr) {
      p.extrapolated = p.predicted.si() < band->least || p.predicted.si() > band->most;
      p.band = p.extrapolated ? band->outside : band->inside;
    }
    all.push_back(std::move(p));
  }
  return all;
}

}  // namespace orrery
