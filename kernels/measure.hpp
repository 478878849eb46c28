// How a row is timed. The method is written down in validate/measured/README.md.
#pragma once
#include <atomic>
#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "kernels/device.hpp"
#include "kernels/nvml.hpp"
#include "kernels/stats.hpp"

namespace orrery {

struct MeasureOptions {
  size_t min_samples = 20;
  double target_ci = 0.005;  // stop when half the 95 % interval of the median is below this
  double cap_s = 0.35;       // ... or after this long, once min_samples are taken
  // Under the same regime, before the first sample: the clock needs as long to settle at what the power limit leaves,
  // or at what bursts allow.
  double warmup_s = 0.1;
};

// What `queue` puts into the stream, captured to be launched as one.
class Graph {
 public:
  Graph(cudaStream_t stream, const std::function<void()>& queue);
  ~Graph() { cudaGraphExecDestroy(exec_); }
  Graph(const Graph&) = delete;
  Graph& operator=(const Graph&) = delete;
  void launch(cudaStream_t stream) const { ORRERY_CUDA(cudaGraphLaunch(exec_, stream)); }

 private:
  cudaGraphExec_t exec_ = nullptr;
};

// What one GPU needs for measuring.
class Rig {
 public:
  explicit Rig(int device);
  int device;
  cudaDeviceProp properties{};
  Stream stream;
  DeviceBuffer flush;  // twice L2
  std::unique_ptr<NvmlMonitor> monitor;
  MeasureOptions options;
  StartGate gate;

  // The power limit holds for a mean over about a second, so a window under load also depends on the load before it.
  void rest_after_load(double seconds) const;  // until as long has passed since the last load ended
  void load_ends_now() { load_end_ = std::chrono::steady_clock::now(); }

 private:
  std::chrono::steady_clock::time_point load_end_{};
};

// Set by Ctrl-C: the row in progress is given up, the rows before it are kept.
extern std::atomic<bool> interrupted;
struct Interrupted {};

struct Work {
  std::function<void(cudaStream_t, int set)> launch;
  int sets = 1;       // independent sets of buffers to rotate through
  bool warm = false;  // leave L2 as the last launch left it
};
// So many sets that together they are three times L2, so each launch finds its inputs cold; at most kMostSets. Where a
// sample has launches for fewer, L2 is written over before it, and each set is used once.
constexpr int kMostSets = 64;
int rotation_sets(const Rig& rig, double footprint_bytes);

// A GPU under its power limit has two speeds. Burst: a sample, then a rest of three times its length (30 ms at most),
// so that the mean power stays below the limit. Sustained: samples back to back. Both after a warm-up of the same kind.
enum class Regime { burst, sustained };

// How long samples are taken at least (rests of bursts included), and how long the GPU has rested before.
struct Window {
  double at_least_s = 0.05, rest_s = 0;
};

struct Measurement {
  Regime regime = Regime::sustained;
  Summary us;
  double sm_clock_mhz = 0;  // from clock stamps in the stream, mean over the samples
  GpuState state;           // NVML over the same time
  std::string cache;        // flushed, rotated or warm
  int repeats = 1;          // launches per sample
  double apart_us = 0;      // what times itself: from the start of one sample to that of the next
};

// Kernels under 200 us are captured as many as fill 400 us into one graph that rotates through the sets, so that
// neither the launch nor the resolution of events counts; longer ones are launched one at a time behind an L2 flush.
Measurement measure(Rig& rig, const Work& work, Regime regime = Regime::sustained, Window window = {});
// Longer than this a burst would be no different, so that a row with a sustained window has none: the clock falls
// within tens of milliseconds of one launch.
constexpr double kLongestBurstUs = 60e3;

// The same stopping rule for anything that times itself: `once` returns microseconds. Called, but not counted, for half
// of at_least_s before. What is too long for the least number of samples in ten caps gets fewer. Samples of earlier
// rounds count as well, and these are added to them.
Measurement measure_samples(Rig& rig, const std::function<double()>& once, double at_least_s, double cap_s,
                            std::vector<double>* rounds = nullptr);

}  // namespace orrery
