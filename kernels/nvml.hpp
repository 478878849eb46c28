// Clock, power, temperature and throttle reasons of a GPU, sampled by a thread while rows run. NVML is opened at run
// time with our own prototypes: the toolkit may come without its header, the driver always brings the library.
#pragma once
#include <atomic>
#include <cstdint>
#include <mutex>
#include <string>
#include <thread>

namespace orrery {

struct GpuState {
  double sm_clock_mhz = 0, power_w = 0, temperature_c = 0;
  uint64_t reasons = 0;  // bits of nvmlClocksEventReasons
  int samples = 0;
};

// The bits that hold a clock back, joined by '+': power_cap, thermal, hw_slowdown, ...; "none".
std::string describe_reasons(uint64_t reasons);

class NvmlMonitor {
 public:
  // `pci_bus_id` as cudaDeviceGetPCIBusId writes it. Without NVML `available()` is false and states are empty.
  explicit NvmlMonitor(const std::string& pci_bus_id, int period_ms = 10);
  ~NvmlMonitor();
  NvmlMonitor(const NvmlMonitor&) = delete;
  NvmlMonitor& operator=(const NvmlMonitor&) = delete;

  bool available() const { return available_; }
  void begin();    // starts a window
  GpuState end();  // means over the window (the highest temperature, all reasons seen)
  GpuState now();

  std::string driver_version() const { return driver_; }
  double power_limit_w() const { return power_limit_w_; }
  double max_sm_clock_mhz() const { return max_sm_clock_mhz_; }
  double memory_clock_mhz() const { return memory_clock_mhz_; }

 private:
  struct Api;
  void sample_forever(int period_ms);
  GpuState read() const;

  Api* api_ = nullptr;
  void* device_ = nullptr;
  bool available_ = false;
  std::string driver_;
  double power_limit_w_ = 0, max_sm_clock_mhz_ = 0, memory_clock_mhz_ = 0;
  std::atomic<bool> stop_{false};
  std::mutex mutex_;
  GpuState sum_;
  std::thread thread_;
};

}  // namespace orrery
