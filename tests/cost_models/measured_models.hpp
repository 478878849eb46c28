// A profile with measured kernels whose constants are round numbers, so that times follow by hand, and rows of files.
#pragma once

#include <string>
#include <vector>

#include "cost_models/kernel_cost.hpp"
#include "cost_models/measured_kernels.hpp"

namespace orrery {

inline Constant number(double value) {
  return {"", value, "1", Provenance::assumed, "test"};
}

inline constexpr int test_sms = 10;
inline constexpr double test_clock = 1e9;
inline const GpuPeaks test_peaks{FlopsPerSecond::from_si(1e14), BytesPerSecond::from_si(4e12), test_sms};
inline const GpuPeaks round_peaks{FlopsPerSecond::from_si(1e15), BytesPerSecond::from_si(2e12), 100};

/// The clock never leaves 1 GHz: nothing droops, and the power limit is far away.
inline ClockModel steady_clock() {
  ClockModel clock;
  clock.maximum_clock = clock.burst_clock = number(test_clock);
  clock.idle_power = number(100);
  clock.power_limit = number(1e9);
  clock.power_exponent = number(2);
  clock.hbm_energy = number(1e-10);
  clock.tensor_flops_per_cycle = number(1e5);
  clock.power_lag = number(0.05);
  return clock;
}

inline Profile measured_profile() {
  Profile p;
  p.attention_forward_efficiency = p.attention_backward_efficiency = p.dense_efficiency = p.hbm_efficiency = number(1);
  p.kernel_overhead = number(0);
  p.tile_query = p.tile_key = number(128);
  MeasuredKernels& k = p.kernels.emplace();
  k.clock = steady_clock();
  for (const Phase phase : {Phase::forward, Phase::backward}) {
    AttentionModel& m = k.attention.emplace_back();
    m.phase = phase;
    m.head_dim = 128;
    m.launch = number(5e-6);
    m.query_traffic = number(phase == Phase::backward ? 16 : 0);
    m.grouped_traffic = number(phase == Phase::backward ? 4 : 0);
    m.list_start = number(1000);
    m.full_tile = number(2000);
    m.masked_tile = number(3000);
    m.power.clock_droop = number(0);
    m.power.tensor_power = number(1000);
  }
  k.streams.push_back({"copy_kernel", number(2e-6), number(4e12), number(4e12), number(0)});
  return p;
}

/// Of a measured file with this text.
inline std::vector<MeasuredKernel> rows_of_text(const std::string& csv, const std::string& file = "made.csv") {
  std::vector<MeasuredKernel> rows;
  add_rows(MeasuredTable::parse(csv, file), rows);
  return rows;
}

/// One head of 256 queries on 512 keys, of whose eight tiles so many hold what a mask lets pass, two of them its edge.
inline AttentionShape masked_rectangle(double tiles) {
  return {.pairs = tiles * 128 * 128,
          .query_rows = 256,
          .key_rows = 512,
          .heads = 1,
          .kv_heads = 1,
          .head_dim = 128,
          .masked_pairs = 128 * 127};
}

}  // namespace orrery
