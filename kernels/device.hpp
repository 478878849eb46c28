// Small owners of CUDA objects, and the small kernels that measuring needs: random data, poison, L2 flush, in-kernel
// clock stamps, and a gate that holds streams until everything is queued. Implemented in device.cu.
#pragma once
#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "kernels/check.hpp"

namespace orrery {

class DeviceBuffer {
 public:
  DeviceBuffer() = default;
  explicit DeviceBuffer(size_t bytes) : bytes_(bytes) {
    if (bytes) ORRERY_CUDA(cudaMalloc(&data_, bytes));
  }
  DeviceBuffer(DeviceBuffer&& o) noexcept
      : data_(std::exchange(o.data_, nullptr)), bytes_(std::exchange(o.bytes_, 0)) {}
  DeviceBuffer& operator=(DeviceBuffer&& o) noexcept {
    std::swap(data_, o.data_);
    std::swap(bytes_, o.bytes_);
    return *this;
  }
  ~DeviceBuffer() { cudaFree(data_); }
  void* get() const { return data_; }
  template <class T>
  T* as() const {
    return static_cast<T*>(data_);
  }
  size_t bytes() const { return bytes_; }

 private:
  void* data_ = nullptr;
  size_t bytes_ = 0;
};

class Stream {
 public:
  explicit Stream(bool high_priority = false) {
    int low = 0, high = 0;
    ORRERY_CUDA(cudaDeviceGetStreamPriorityRange(&low, &high));
    ORRERY_CUDA(cudaStreamCreateWithPriority(&raw_, cudaStreamNonBlocking, high_priority ? high : low));
  }
  Stream(Stream&& o) noexcept : raw_(std::exchange(o.raw_, nullptr)) {}
  Stream& operator=(Stream&& o) noexcept {
    std::swap(raw_, o.raw_);
    return *this;
  }
  ~Stream() {
    if (raw_) cudaStreamDestroy(raw_);
  }
  operator cudaStream_t() const { return raw_; }
  void sync() const { ORRERY_CUDA(cudaStreamSynchronize(raw_)); }

 private:
  cudaStream_t raw_ = nullptr;
};

class Event {
 public:
  explicit Event(bool timing = true) {
    ORRERY_CUDA(cudaEventCreateWithFlags(&raw_, timing ? cudaEventDefault : cudaEventDisableTiming));
  }
  Event(Event&& o) noexcept : raw_(std::exchange(o.raw_, nullptr)) {}
  Event& operator=(Event&& o) noexcept {
    std::swap(raw_, o.raw_);
    return *this;
  }
  ~Event() {
    if (raw_) cudaEventDestroy(raw_);
  }
  operator cudaEvent_t() const { return raw_; }
  void record(cudaStream_t stream) const { ORRERY_CUDA(cudaEventRecord(raw_, stream)); }

 private:
  cudaEvent_t raw_ = nullptr;
};

inline double elapsed_us(cudaEvent_t start, cudaEvent_t end) {
  float ms = 0;
  ORRERY_CUDA(cudaEventElapsedTime(&ms, start, end));
  return 1e3 * static_cast<double>(ms);
}

// Pseudo-random data: a hash of (seed, index), so the same on every run and GPU. Normal with sigma = 1, or uniform.
void fill_normal_bf16(void* data, size_t count, uint64_t seed, cudaStream_t stream);
void fill_normal_f32(void* data, size_t count, uint64_t seed, cudaStream_t stream);
void fill_uniform_f32(void* data, size_t count, uint64_t seed, cudaStream_t stream);
void fill_indices(void* data, size_t count, uint32_t limit, uint64_t seed, cudaStream_t stream);  // uint32
// NaN in bf16 and in fp32.
void poison(void* data, size_t bytes, cudaStream_t stream);
// Writes the buffer with plain stores, which evicts what L2 held.
void flush_l2(const DeviceBuffer& buffer, cudaStream_t stream);
// How many numbers are NaN or infinite.
size_t count_nonfinite_bf16(const void* data, size_t count, cudaStream_t stream);
size_t count_nonfinite_f32(const void* data, size_t count, cudaStream_t stream);

// One SM's cycle counter and the GPU's nanosecond clock, read together: two stamps give the mean SM clock between them.
struct ClockStamp {
  uint64_t cycles, nanoseconds;
  uint32_t sm, pad;
};
void stamp_clock(ClockStamp* out, cudaStream_t stream);
void empty_kernel(cudaStream_t stream);

// Streams of any GPU wait until release(), so that the host has queued everything before anything runs and all start
// together. The kernel gives up after 2 s: a mistake costs a wrong row, not a hung GPU.
class StartGate {
 public:
  StartGate();
  ~StartGate();
  StartGate(const StartGate&) = delete;
  StartGate& operator=(const StartGate&) = delete;
  void reset();
  void hold(cudaStream_t stream);
  void release();

 private:
  int* flag_ = nullptr;
};

// A range of a token-major [tokens][heads][head_dim] bf16 tensor on the host, as doubles.
std::vector<double> download_bf16(const void* data, size_t count);
std::vector<double> download_f32(const void* data, size_t count);
std::vector<double> download_head_bf16(const void* data, int64_t tokens, int64_t heads, int64_t head, int64_t head_dim);

}  // namespace orrery
