#include "kernels/measure.hpp"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <thread>

namespace orrery {

std::atomic<bool> interrupted{false};

namespace {

std::string bus_id(int device) {
  char text[32] = "";
  ORRERY_CUDA(cudaDeviceGetPCIBusId(text, sizeof text, device));
  return text;
}
int select(int device) {
  ORRERY_CUDA(cudaSetDevice(device));
  return device;
}

using Clock = std::chrono::steady_clock;
double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

}  // namespace

Graph::Graph(cudaStream_t stream, const std::function<void()>& queue) {
  cudaGraph_t graph = nullptr;
  ORRERY_CUDA(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
  try {
    queue();
  } catch (...) {
    cudaStreamEndCapture(stream, &graph);
    if (graph) cudaGraphDestroy(graph);
    cudaGetLastError();
    throw;
  }
  ORRERY_CUDA(cudaStreamEndCapture(stream, &graph));
  const cudaError_t status = cudaGraphInstantiate(&exec_, graph, 0);
  cudaGraphDestroy(graph);
  ORRERY_CUDA(status);
  ORRERY_CUDA(cudaGraphUpload(exec_, stream));
}

// Once streams of a process have waited for each other some 200 times, its copies, additions and merges take 0.36 us
// longer (on H200 a copy of 131 kB 1.81 us instead of 1.45; attention does not). Whole runs of the bench do that early,
// so here they do before anything is measured, whichever rows are asked for.
void wait_for_another_stream(cudaStream_t stream) {
  constexpr int hops = 200;
  const Stream other;
  std::vector<Event> events;
  for (int i = 0; i < 2 * hops; ++i) events.emplace_back(false);
  StartGate gate;
  gate.hold(stream);
  for (int i = 0; i < hops; ++i) {
    empty_kernel(stream);
    events[2 * i].record(stream);
    ORRERY_CUDA(cudaStreamWaitEvent(other, events[2 * i], 0));
    empty_kernel(other);
    events[2 * i + 1].record(other);
    ORRERY_CUDA(cudaStreamWaitEvent(stream, events[2 * i + 1], 0));
  }
  gate.release();
  ORRERY_CUDA(cudaStreamSynchronize(stream));
}

Rig::Rig(int device_index) : device(select(device_index)), monitor(new NvmlMonitor(bus_id(device_index))) {
  ORRERY_CUDA(cudaGetDeviceProperties(&properties, device));
  flush = DeviceBuffer(static_cast<size_t>(properties.l2CacheSize) * 2);
  wait_for_another_stream(stream);
}

void Rig::rest_after_load(double seconds) const {
  std::this_thread::sleep_until(load_end_ + std::chrono::duration<double>(seconds));
}

int rotation_sets(const Rig& rig, double footprint_bytes) {
  const double wanted = 3.0 * rig.properties.l2CacheSize / std::max(1.0, footprint_bytes);
  return static_cast<int>(std::min<double>(kMostSets, std::max(1.0, std::ceil(wanted))));
}

Measurement measure(Rig& rig, const Work& work, Regime regime, Window window) {
  const cudaStream_t stream = rig.stream;
  const MeasureOptions& options = rig.options;
  const bool burst = regime == Regime::burst;
  Measurement out;
  out.regime = regime;

  // Twice: the first launch of a kernel also loads it.
  work.launch(stream, 0);
  rig.stream.sync();
  Event probe_start, probe_end;
  probe_start.record(stream);
  for (int i = 0; i < 3; ++i) work.launch(stream, i % work.sets);
  probe_end.record(stream);
  rig.stream.sync();
  const double estimate = elapsed_us(probe_start, probe_end) / 3;

  out.repeats =
      estimate < 200 ? static_cast<int>(std::min<double>(kMostSets, std::ceil(400 / std::max(1.0, estimate)))) : 1;
  std::unique_ptr<Graph> graph;
  if (out.repeats > 1) {
    graph.reset(new Graph(stream, [&] {
      for (int i = 0; i < out.repeats; ++i) work.launch(stream, i % work.sets);
    }));
  }
  const bool flush = !work.warm && (out.repeats < work.sets || work.sets == 1 || work.sets == kMostSets);
  out.cache = work.warm ? "warm" : !flush ? "rotated" : out.repeats == 1 ? "flushed" : "flushed_per_sample";
  int next_set = 0;
  auto run = [&] {
    if (graph) {
      graph->launch(stream);
    } else {
      work.launch(stream, next_set);
      next_set = (next_set + 1) % work.sets;
    }
  };

  const double sample_us = estimate * out.repeats + 50;
  const int batch = burst ? 1 : static_cast<int>(std::min(10.0, std::max(1.0, 50e3 / sample_us)));
  const auto rest = std::chrono::microseconds(static_cast<long>(std::clamp(3 * sample_us, 500.0, 30e3)));
  rig.rest_after_load(window.rest_s);
  const Clock::time_point warm = Clock::now();
  for (int i = 0; i < 2 || seconds_since(warm) < options.warmup_s; i += batch) {
    for (int b = 0; b < batch; ++b) run();
    rig.stream.sync();
    if (burst) std::this_thread::sleep_for(rest);
  }
  std::vector<Event> starts, ends;
  for (int i = 0; i < batch; ++i) {
    starts.emplace_back();
    ends.emplace_back();
  }
  DeviceBuffer stamps(static_cast<size_t>(2 * batch) * sizeof(ClockStamp));
  std::vector<ClockStamp> host(static_cast<size_t>(2 * batch));
  std::vector<double> samples;
  double cycles = 0, nanoseconds = 0;

  if (rig.monitor->available()) rig.monitor->begin();
  const Clock::time_point begin = Clock::now();
  while (true) {
    // Nothing starts before the host has queued it all: a host that is slow after a rest would be timed otherwise.
    rig.gate.reset();
    rig.gate.hold(stream);
    for (int i = 0; i < batch; ++i) {
      if (flush) flush_l2(rig.flush, stream);
      stamp_clock(stamps.as<ClockStamp>() + 2 * i, stream);
      starts[i].record(stream);
      run();
      ends[i].record(stream);
      stamp_clock(stamps.as<ClockStamp>() + 2 * i + 1, stream);
    }
    rig.gate.release();
    rig.stream.sync();
    ORRERY_CUDA(cudaMemcpy(host.data(), stamps.get(), stamps.bytes(), cudaMemcpyDeviceToHost));
    for (int i = 0; i < batch; ++i) {
      samples.push_back(elapsed_us(starts[i], ends[i]) / out.repeats);
      const ClockStamp &a = host[2 * i], &b = host[2 * i + 1];
      if (a.sm == b.sm && b.nanoseconds > a.nanoseconds && b.cycles > a.cycles) {
        cycles += static_cast<double>(b.cycles - a.cycles);
        nanoseconds += static_cast<double>(b.nanoseconds - a.nanoseconds);
      }
    }
    if (interrupted) throw Interrupted{};
    if (burst) std::this_thread::sleep_for(rest);
    if (samples.size() < options.min_samples || seconds_since(begin) < window.at_least_s) continue;
    out.us = summarize(samples);
    if (out.us.ci95_rel < options.target_ci || seconds_since(begin) > options.cap_s) break;
  }
  if (!burst) rig.load_ends_now();
  out.state = rig.monitor->end();
  out.sm_clock_mhz = nanoseconds > 0 ? 1e3 * cycles / nanoseconds : out.state.sm_clock_mhz;
  return out;
}

Measurement measure_samples(Rig& rig, const std::function<double()>& once, double at_least_s, double cap_s,
                            std::vector<double>* rounds) {
  Measurement out;
  out.cache = "as_is";
  const Clock::time_point warm = Clock::now();
  for (int i = 0; i < 2 || seconds_since(warm) < at_least_s / 2; ++i) once();
  std::vector<double> samples;
  if (rig.monitor->available()) rig.monitor->begin();
  const Clock::time_point begin = Clock::now();
  do {
    for (int i = 0; i < 5; ++i) samples.push_back(once());
    if (interrupted) throw Interrupted{};
    out.us = summarize(samples);
  } while ((samples.size() < rig.options.min_samples && seconds_since(begin) < 10 * cap_s) ||
           seconds_since(begin) < at_least_s ||
           (out.us.ci95_rel >= rig.options.target_ci && seconds_since(begin) < cap_s));
  out.apart_us = 1e6 * seconds_since(begin) / static_cast<double>(samples.size());
  if (rounds) {
    rounds->insert(rounds->end(), samples.begin(), samples.end());
    out.us = summarize(*rounds);
  }
  out.state = rig.monitor->end();
  out.sm_clock_mhz = out.state.sm_clock_mhz;
  return out;
}

}  // namespace orrery
