#include "kernels/nvml.hpp"

#include <dlfcn.h>

#include <algorithm>
#include <chrono>

namespace orrery {
namespace {
constexpr unsigned kClockSm = 1, kClockMemory = 2, kTemperatureGpu = 0;
constexpr unsigned kFieldPowerInstant = 186;  // NVML_FI_DEV_POWER_INSTANT, milliwatt; the plain call averages 1 s

struct FieldValue {  // nvmlFieldValue_t
  unsigned field_id, scope_id;
  long long timestamp, latency_us;
  int value_type, status;
  union {
    double d;
    unsigned u;
    unsigned long ul;
    unsigned long long ull;
    long long ll;
  } value;
};
}  // namespace

// Prototypes of the NVML functions in use; names and argument order are NVML's own.
struct NvmlMonitor::Api {
  void* library = nullptr;
  int (*init)() = nullptr;
  int (*shutdown)() = nullptr;
  int (*by_pci)(const char*, void**) = nullptr;
  int (*clock)(void*, unsigned, unsigned*) = nullptr;
  int (*max_clock)(void*, unsigned, unsigned*) = nullptr;
  int (*power)(void*, unsigned*) = nullptr;
  int (*power_limit)(void*, unsigned*) = nullptr;
  int (*temperature)(void*, unsigned, unsigned*) = nullptr;
  int (*reasons)(void*, unsigned long long*) = nullptr;
  int (*driver)(char*, unsigned) = nullptr;
  int (*fields)(void*, int, FieldValue*) = nullptr;

  template <class F>
  void load(F& f, const char* name) {
    f = reinterpret_cast<F>(dlsym(library, name));
  }
};

std::string describe_reasons(uint64_t reasons) {
  struct Bit {
    uint64_t bit;
    const char* name;
  };
  static const Bit bits[] = {{0x2, "applications_clocks"}, {0x4, "power_cap"},       {0x8, "hw_slowdown"},
                             {0x10, "sync_boost"},         {0x20, "thermal_sw"},     {0x40, "thermal_hw"},
                             {0x80, "power_brake"},        {0x100, "display_clocks"}};
  std::string text;
  for (const Bit& b : bits) {
    if (reasons & b.bit) text += (text.empty() ? "" : "+") + std::string(b.name);
  }
  return text.empty() ? "none" : text;
}

NvmlMonitor::NvmlMonitor(const std::string& pci_bus_id, int period_ms) : api_(new Api) {
  api_->library = dlopen("libnvidia-ml.so.1", RTLD_NOW);
  if (!api_->library) return;
  api_->load(api_->init, "nvmlInit_v2");
  api_->load(api_->shutdown, "nvmlShutdown");
  api_->load(api_->by_pci, "nvmlDeviceGetHandleByPciBusId_v2");
  api_->load(api_->clock, "nvmlDeviceGetClockInfo");
  api_->load(api_->max_clock, "nvmlDeviceGetMaxClockInfo");
  api_->load(api_->power, "nvmlDeviceGetPowerUsage");
  api_->load(api_->power_limit, "nvmlDeviceGetEnforcedPowerLimit");
  api_->load(api_->temperature, "nvmlDeviceGetTemperature");
  api_->load(api_->reasons, "nvmlDeviceGetCurrentClocksEventReasons");
  if (!api_->reasons) api_->load(api_->reasons, "nvmlDeviceGetCurrentClocksThrottleReasons");
  api_->load(api_->driver, "nvmlSystemGetDriverVersion");
  api_->load(api_->fields, "nvmlDeviceGetFieldValues");
  if (!api_->init || !api_->by_pci || !api_->clock || !api_->power || api_->init() != 0) return;
  if (api_->by_pci(pci_bus_id.c_str(), &device_) != 0) return;
  available_ = true;
  char text[96] = "";
  if (api_->driver && api_->driver(text, sizeof text) == 0) driver_ = text;
  unsigned value = 0;
  if (api_->power_limit && api_->power_limit(device_, &value) == 0) power_limit_w_ = value * 1e-3;
  if (api_->max_clock && api_->max_clock(device_, kClockSm, &value) == 0) max_sm_clock_mhz_ = value;
  if (api_->clock(device_, kClockMemory, &value) == 0) memory_clock_mhz_ = value;
  thread_ = std::thread([this, period_ms] { sample_forever(period_ms); });
}

NvmlMonitor::~NvmlMonitor() {
  stop_ = true;
  if (thread_.joinable()) thread_.join();
  if (api_->library) {
    if (available_ && api_->shutdown) api_->shutdown();
    dlclose(api_->library);
  }
  delete api_;
}

GpuState NvmlMonitor::read() const {
  GpuState s;
  unsigned value = 0;
  if (api_->clock(device_, kClockSm, &value) == 0) s.sm_clock_mhz = value;
  FieldValue field{};
  field.field_id = kFieldPowerInstant;
  if (api_->fields && api_->fields(device_, 1, &field) == 0 && field.status == 0 && field.value.u > 0) {
    s.power_w = field.value.u * 1e-3;
  } else if (api_->power(device_, &value) == 0) {
    s.power_w = value * 1e-3;
  }
  if (api_->temperature && api_->temperature(device_, kTemperatureGpu, &value) == 0) s.temperature_c = value;
  unsigned long long reasons = 0;
  if (api_->reasons && api_->reasons(device_, &reasons) == 0) s.reasons = reasons;
  s.samples = 1;
  return s;
}

void NvmlMonitor::sample_forever(int period_ms) {
  while (!stop_) {
    const GpuState s = read();
    {
      std::lock_guard<std::mutex> lock(mutex_);
      sum_.sm_clock_mhz += s.sm_clock_mhz;
      sum_.power_w += s.power_w;
      sum_.temperature_c = std::max(sum_.temperature_c, s.temperature_c);
      sum_.reasons |= s.reasons;
      ++sum_.samples;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(period_ms));
  }
}

void NvmlMonitor::begin() {
  std::lock_guard<std::mutex> lock(mutex_);
  sum_ = GpuState{};
}

GpuState NvmlMonitor::end() {
  if (!available_) return {};
  GpuState s;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    s = sum_;
  }
  if (s.samples == 0) return read();
  s.sm_clock_mhz /= s.samples;
  s.power_w /= s.samples;
  return s;
}

GpuState NvmlMonitor::now() {
  return available_ ? read() : GpuState{};
}

}  // namespace orrery
