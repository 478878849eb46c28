// Rows of files as a known profile makes them: a fit has to find its constants again.
#pragma once

#include <fmt/format.h>

#include <string>
#include <vector>

#include "cost_models/fit_kernels.hpp"
#include "tests/cost_models/measured_models.hpp"

namespace orrery {

inline const GpuPeaks known_peaks{FlopsPerSecond::from_si(9.8e14), BytesPerSecond::from_si(4.8e12), 132};

inline FitFacts known_facts() {
  return {
      .peaks = known_peaks, .maximum_clock_hz = 1.98e9, .power_limit_w = 700, .idle_power_w = 120, .source = "test"};
}

/// Constants near those of a real GPU.
inline Profile known_profile() {
  Profile p = measured_profile();
  ClockModel& clock = p.kernels->clock;
  clock.maximum_clock = number(1.98e9);
  clock.burst_clock = number(1.86e9);
  clock.idle_power = number(120);
  clock.power_limit = number(700);
  clock.power_exponent = number(2.5);
  clock.busy_power = number(450);
  clock.hbm_energy = number(0);  // no copy rows here, so that the fit takes none either
  clock.tensor_flops_per_cycle = number(132 * 4096);
  for (AttentionModel& m : p.kernels->attention) {
    const bool forward = m.phase == Phase::forward;
    m.launch = number(forward ? 6e-6 : 12e-6);
    m.query_traffic = number(forward ? 0 : 18);
    m.grouped_traffic = number(forward ? 0 : 5);
    m.grouped_launch = number(forward ? 0 : 2e-6);
    m.waves_in_step = number(forward ? 1.2 : 6);
    m.list_start = number(forward ? 2500 : 8000);
    m.full_tile = number(forward ? 2650 : 7600);
    m.masked_tile = number(forward ? 4000 : 9000);
    m.masked_kernel = number(forward ? 1.01 : 1.04);
    m.power = {number(forward ? 2.4e8 : 1.2e8), number(forward ? 1050 : 1150)};
  }
  p.kernels->streams.clear();
  return p;
}

struct KnownBlock {
  MaskShape mask;
  double heads = 32, kv_heads = heads;
  Regime regime = Regime::burst;
  std::string cache{};  // as the column has it: nothing is cold
};

/// What a row of a file says of a block, as `model` has it.
inline std::string csv_row(const Profile& profile, const AttentionModel& model, const KnownBlock& block) {
  const MaskShape& mask = block.mask;
  const TilePairs pairs = tile_pairs(mask, 128, 128);
  const AttentionShape shape{.pairs = pairs.executed,
                             .query_rows = mask.n_q,
                             .key_rows = mask.n_k,
                             .heads = block.heads,
                             .kv_heads = block.kv_heads,
                             .head_dim = static_cast<double>(model.head_dim),
                             .masked_pairs = pairs.masked,
                             .pairs_beyond = pairs.beyond,
                             .window = mask.mask == "window",
                             .cold = block.cache != "warm"};
  const KernelRun run = run_kernel(attention_load(shape, model, *profile.kernels, known_peaks, 128, 128),
                                   profile.kernels->clock, model.power, block.regime);
  return fmt::format("h200_sxm,kernel,{},{},{},{},{},{},{},{},{},{},{:.9},{:.9},{},ok\n", name_of(model.phase),
                     block.heads, block.kv_heads, model.head_dim, mask.n_q, mask.n_k, mask.mask,
                     shape.window ? fmt::format("{}", mask.window) : "", mask.mask == "full" ? "false" : "true",
                     block.regime == Regime::burst ? "burst" : "sustained", run.duration.si() * 1e3, run.clock_hz / 1e6,
                     block.cache);
}
inline std::string csv_row(const Profile& profile, const AttentionModel& model, double n, double window,
                           Regime regime = Regime::burst) {
  return csv_row(profile, model, {.mask = {n, n, window > 0 ? "window" : "full", window}, .regime = regime});
}

/// Of blocks without a mask, and causal squares.
inline std::string known_csv(bool causal = true, const std::string& cache = "") {
  const Profile profile = known_profile();
  std::string text =
      "gpu,schedule,pass,heads,kv_heads,head_dim,n_q,n_k,mask,window,causal,regime,time_ms,sm_clock_mhz,cache,status\n";
  for (const Phase phase : {Phase::forward, Phase::backward}) {
    for (const std::string mask : {"full", "causal"}) {
      if (mask == "causal" && !causal) continue;
      for (const double n_q : {512, 2048, 8192, 16384}) {
        for (const double n_k : {512, 2048, 8192, 16384}) {
          if (mask == "causal" && n_q != n_k) continue;
          for (const double kv_heads : {32, 8}) {
            for (const Regime regime : {Regime::burst, Regime::sustained}) {
              text += csv_row(profile, *profile.kernels->attention_of(phase, 128),
                              {.mask = {n_q, n_k, mask, 0}, .kv_heads = kv_heads, .regime = regime, .cache = cache});
            }
          }
        }
      }
    }
  }
  return text;
}

/// Those of known_csv(), and of a second file.
inline std::vector<MeasuredKernel> known_rows(const std::string& more = "", const std::string& file = "") {
  std::vector<MeasuredKernel> rows = rows_of_text(known_csv());
  if (!more.empty()) add_rows(MeasuredTable::parse(more, file), rows);
  return rows;
}

inline KernelFit fit_of(const std::vector<MeasuredKernel>& rows, const MachineRows& other_machines = {}) {
  return fit_kernels(rows, known_facts(), measured_profile(), other_machines);
}

}  // namespace orrery
