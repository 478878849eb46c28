// Group `power`: heavy kernels in a short burst from a resting GPU and sustained for 10 s, second by second. One GPU's
// clock falls under its power limit within tenths of a second, so a model of either alone would be wrong for the other.
#include <chrono>
#include <map>

#include "kernels/table.hpp"
#include "kernels/workload.hpp"

namespace orrery {
namespace {

using Clock = std::chrono::steady_clock;
double since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

struct Stamped {
  Stamped() : buffer(2 * sizeof(ClockStamp)) {}
  DeviceBuffer buffer;
  Event start, end;

  // Runs `count` launches between two stamps; returns microseconds per launch and adds to cycles and nanoseconds.
  // Nothing starts before the host has queued it all: after a rest its first launch takes longer than a GPU without
  // work waits.
  double run(Rig& rig, const Workload& w, int count, double& cycles, double& nanoseconds) {
    const cudaStream_t stream = rig.stream;
    rig.gate.reset();
    rig.gate.hold(stream);
    stamp_clock(buffer.as<ClockStamp>(), stream);
    start.record(stream);
    for (int i = 0; i < count; ++i) w.launch(stream);
    end.record(stream);
    stamp_clock(buffer.as<ClockStamp>() + 1, stream);
    rig.gate.release();
    rig.stream.sync();
    ClockStamp s[2];
    ORRERY_CUDA(cudaMemcpy(s, buffer.get(), sizeof s, cudaMemcpyDeviceToHost));
    if (s[0].sm == s[1].sm && s[1].nanoseconds > s[0].nanoseconds) {
      cycles += static_cast<double>(s[1].cycles - s[0].cycles);
      nanoseconds += static_cast<double>(s[1].nanoseconds - s[0].nanoseconds);
    }
    return elapsed_us(start, end) / count;
  }
};

Fields line(const Workload& w, const std::string& regime, int second, const std::vector<double>& samples, double cycles,
            double nanoseconds, const GpuState& state) {
  const Summary s = summarize(samples);
  Fields f{{"regime", regime},
           {"second", std::to_string(second)},
           {"shape", w.shape},
           {"time_us", format_number(s.median)},
           {"p5_us", format_number(s.p5)},
           {"p95_us", format_number(s.p95)},
           {"samples", std::to_string(s.samples)},
           {"bytes", format_count(w.bytes)}};
  if (w.flops > 0) f.push_back({"flops", format_count(w.flops)});
  if (nanoseconds > 0) f.push_back({"sm_clock_mhz", format_number(1e3 * cycles / nanoseconds)});
  if (state.samples) {
    f.push_back({"nvml_sm_clock_mhz", format_number(state.sm_clock_mhz)});
    f.push_back({"power_w", format_number(state.power_w)});
    f.push_back({"temperature_c", format_number(state.temperature_c)});
    f.push_back({"throttle", describe_reasons(state.reasons)});
  }
  return f;
}

Outcome run_burst(Rig& rig, const std::string& kernel) {
  const auto w = make_workload(kernel, rig.device, rig.stream);
  Stamped stamped;
  double cycles = 0, ns = 0;
  stamped.run(rig, *w, 1, cycles, ns);
  cycles = ns = 0;
  std::vector<double> samples;
  rig.monitor->begin();
  for (size_t i = 0; i < rig.options.min_samples; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
    samples.push_back(stamped.run(rig, *w, 1, cycles, ns));
    if (interrupted) throw Interrupted{};
  }
  Outcome out;
  out.rows.push_back(line(*w, "burst", 0, samples, cycles, ns, rig.monitor->end()));
  out.headline = ns > 0 ? 1e3 * cycles / ns : 0;
  out.headline_unit = "MHz";
  return out;
}

Outcome run_sustained(Rig& rig, const std::string& kernel, int seconds) {
  const auto w = make_workload(kernel, rig.device, rig.stream);
  Stamped stamped;
  double cycles = 0, ns = 0;
  const double us = stamped.run(rig, *w, 2, cycles, ns);
  const int count = static_cast<int>(std::max(1.0, 40e3 / us));  // samples of 40 ms
  std::this_thread::sleep_for(std::chrono::seconds(1));
  Outcome out;
  const Clock::time_point begin = Clock::now();
  for (int second = 0; second < seconds; ++second) {
    std::vector<double> samples;
    cycles = ns = 0;
    rig.monitor->begin();
    while (since(begin) < second + 1) {
      samples.push_back(stamped.run(rig, *w, count, cycles, ns));
      if (interrupted) throw Interrupted{};
    }
    out.rows.push_back(line(*w, "sustained", second, samples, cycles, ns, rig.monitor->end()));
  }
  rig.load_ends_now();
  out.headline = ns > 0 ? 1e3 * cycles / ns : 0;
  out.headline_unit = "MHz";
  return out;
}

}  // namespace

void add_power_rows(Table& table) {
  table.groups.push_back(
      {"power",
       "kernels in a burst from rest and sustained for 10 s: clock, power, temperature",
       {"gpu", "kernel", "regime", "second", "shape", "time_us", "p5_us", "p95_us", "samples", "flops", "bytes",
        "sm_clock_mhz", "nvml_sm_clock_mhz", "power_w", "temperature_c", "throttle", "status", "reason"},
       ""});
  for (const std::string& kernel : workload_names()) {
    for (const bool sustained : {false, true}) {
      Row row;
      row.group = "power";
      row.name = "power/" + kernel + (sustained ? "/sustained" : "/burst");
      row.what = sustained ? "back to back for 10 s, one line for every second" : "one launch after 100 ms of rest";
      row.quick = !sustained && kernel == workload_names().front();
      row.expected_s = sustained ? 11.5 : 2.5;
      row.keys = {{"gpu", table.gpu}, {"kernel", kernel}};
      row.run = [kernel, sustained](Rig& rig) {
        return sustained ? run_sustained(rig, kernel, 10) : run_burst(rig, kernel);
      };
      row.prepare = [kernel](int device) { prepare_workload(kernel, device); };
      table.rows.push_back(std::move(row));
    }
  }
}

}  // namespace orrery
