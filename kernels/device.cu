#include <cuda_bf16.h>

#include <cstring>

#include "kernels/device.hpp"

namespace orrery {
namespace {

constexpr int kThreads = 256;

int blocks_for(size_t count) {
  const size_t blocks = (count + kThreads - 1) / kThreads;
  return static_cast<int>(blocks < 132 * 16 ? (blocks ? blocks : 1) : 132 * 16);
}

// splitmix64, which passes the usual statistical tests and needs no state.
__device__ inline uint64_t hash64(uint64_t x) {
  x += 0x9e3779b97f4a7c15ull;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
  return x ^ (x >> 31);
}
__device__ inline float uniform(uint64_t bits) {
  return (static_cast<float>(bits & 0xffffff) + 0.5f) * 0x1p-24f;
}
__device__ inline float normal(uint64_t seed, uint64_t index) {  // Box-Muller
  const uint64_t bits = hash64(seed * 0x100000001b3ull + hash64(index));
  return sqrtf(-2.0f * __logf(uniform(bits))) * __cosf(6.2831853f * uniform(bits >> 32));
}

// data[i] = N(0, 1). Grid-stride over any grid.
template <class T>
__global__ void normal_kernel(T* data, size_t count, uint64_t seed) {
  for (size_t i = blockIdx.x * size_t(blockDim.x) + threadIdx.x; i < count; i += size_t(gridDim.x) * blockDim.x) {
    data[i] = static_cast<T>(normal(seed, i));
  }
}

// data[i] = U(0, 1). Grid-stride over any grid.
__global__ void uniform_kernel(float* data, size_t count, uint64_t seed) {
  for (size_t i = blockIdx.x * size_t(blockDim.x) + threadIdx.x; i < count; i += size_t(gridDim.x) * blockDim.x) {
    data[i] = uniform(hash64(seed * 0x100000001b3ull + hash64(i)));
  }
}

// data[i] = a number below limit. Grid-stride over any grid.
__global__ void index_kernel(uint32_t* data, size_t count, uint32_t limit, uint64_t seed) {
  for (size_t i = blockIdx.x * size_t(blockDim.x) + threadIdx.x; i < count; i += size_t(gridDim.x) * blockDim.x) {
    data[i] = static_cast<uint32_t>(hash64(seed + hash64(i)) % limit);
  }
}

// Writes count 16-byte words. Grid-stride over any grid.
__global__ void write_kernel(uint4* data, size_t count) {
  for (size_t i = blockIdx.x * size_t(blockDim.x) + threadIdx.x; i < count; i += size_t(gridDim.x) * blockDim.x) {
    data[i] = make_uint4(static_cast<unsigned>(i), 0, 0, 0);
  }
}

// *total += how many of data are not finite. Grid-stride over any grid.
template <class T>
__global__ void nonfinite_kernel(const T* data, size_t count, unsigned long long* total) {
  unsigned found = 0;
  for (size_t i = blockIdx.x * size_t(blockDim.x) + threadIdx.x; i < count; i += size_t(gridDim.x) * blockDim.x) {
    found += isfinite(static_cast<float>(data[i])) ? 0 : 1;
  }
  if (found) atomicAdd(total, static_cast<unsigned long long>(found));
}

// One thread. Reads both clocks of the SM it runs on.
__global__ void stamp_kernel(ClockStamp* out) {
  uint64_t ns;
  uint32_t sm;
  asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(ns));
  asm volatile("mov.u32 %0, %%smid;" : "=r"(sm));
  out->cycles = clock64();
  out->nanoseconds = ns;
  out->sm = sm;
}

// One thread. Spins until *flag is set by the host, 2 s at most.
__global__ void gate_kernel(const volatile int* flag) {
  uint64_t start, now;
  asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(start));
  do {
    __nanosleep(100);
    asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(now));
  } while (*flag == 0 && now - start < 2000000000ull);
}

// One thread that does nothing: what a launch costs.
__global__ void nothing_kernel() {}

template <class T>
size_t count_nonfinite(const void* data, size_t count, cudaStream_t stream) {
  DeviceBuffer total(sizeof(unsigned long long));
  ORRERY_CUDA(cudaMemsetAsync(total.get(), 0, total.bytes(), stream));
  nonfinite_kernel<<<blocks_for(count), kThreads, 0, stream>>>(static_cast<const T*>(data), count,
                                                               total.as<unsigned long long>());
  ORRERY_LAUNCHED();
  unsigned long long result = 0;
  ORRERY_CUDA(cudaMemcpyAsync(&result, total.get(), sizeof result, cudaMemcpyDeviceToHost, stream));
  ORRERY_CUDA(cudaStreamSynchronize(stream));
  return result;
}

double widen(uint16_t bits) {
  const uint32_t word = static_cast<uint32_t>(bits) << 16;
  float value;
  std::memcpy(&value, &word, sizeof value);
  return value;
}

}  // namespace

void fill_normal_bf16(void* data, size_t count, uint64_t seed, cudaStream_t stream) {
  normal_kernel<<<blocks_for(count), kThreads, 0, stream>>>(static_cast<__nv_bfloat16*>(data), count, seed);
  ORRERY_LAUNCHED();
}
void fill_normal_f32(void* data, size_t count, uint64_t seed, cudaStream_t stream) {
  normal_kernel<<<blocks_for(count), kThreads, 0, stream>>>(static_cast<float*>(data), count, seed);
  ORRERY_LAUNCHED();
}
void fill_uniform_f32(void* data, size_t count, uint64_t seed, cudaStream_t stream) {
  uniform_kernel<<<blocks_for(count), kThreads, 0, stream>>>(static_cast<float*>(data), count, seed);
  ORRERY_LAUNCHED();
}
void fill_indices(void* data, size_t count, uint32_t limit, uint64_t seed, cudaStream_t stream) {
  index_kernel<<<blocks_for(count), kThreads, 0, stream>>>(static_cast<uint32_t*>(data), count, limit, seed);
  ORRERY_LAUNCHED();
}
void poison(void* data, size_t bytes, cudaStream_t stream) {
  ORRERY_CUDA(cudaMemsetAsync(data, 0xff, bytes, stream));
}

void flush_l2(const DeviceBuffer& buffer, cudaStream_t stream) {
  write_kernel<<<132 * 4, 512, 0, stream>>>(buffer.as<uint4>(), buffer.bytes() / sizeof(uint4));
  ORRERY_LAUNCHED();
}

size_t count_nonfinite_bf16(const void* data, size_t count, cudaStream_t stream) {
  return count_nonfinite<__nv_bfloat16>(data, count, stream);
}
size_t count_nonfinite_f32(const void* data, size_t count, cudaStream_t stream) {
  return count_nonfinite<float>(data, count, stream);
}

void stamp_clock(ClockStamp* out, cudaStream_t stream) {
  stamp_kernel<<<1, 1, 0, stream>>>(out);
  ORRERY_LAUNCHED();
}
void empty_kernel(cudaStream_t stream) {
  nothing_kernel<<<1, 1, 0, stream>>>();
  ORRERY_LAUNCHED();
}

StartGate::StartGate() {
  ORRERY_CUDA(cudaHostAlloc(reinterpret_cast<void**>(&flag_), 128, cudaHostAllocPortable | cudaHostAllocMapped));
  *flag_ = 0;
}
StartGate::~StartGate() {
  release();
  cudaFreeHost(flag_);
}
void StartGate::reset() {
  *static_cast<volatile int*>(flag_) = 0;
}
void StartGate::release() {
  __atomic_store_n(flag_, 1, __ATOMIC_SEQ_CST);
}
void StartGate::hold(cudaStream_t stream) {
  gate_kernel<<<1, 1, 0, stream>>>(flag_);
  ORRERY_LAUNCHED();
}

std::vector<double> download_bf16(const void* data, size_t count) {
  std::vector<uint16_t> raw(count);
  ORRERY_CUDA(cudaMemcpy(raw.data(), data, count * 2, cudaMemcpyDeviceToHost));
  std::vector<double> out(count);
  for (size_t i = 0; i < count; ++i) out[i] = widen(raw[i]);
  return out;
}
std::vector<double> download_f32(const void* data, size_t count) {
  std::vector<float> raw(count);
  ORRERY_CUDA(cudaMemcpy(raw.data(), data, count * 4, cudaMemcpyDeviceToHost));
  return std::vector<double>(raw.begin(), raw.end());
}
std::vector<double> download_head_bf16(const void* data, int64_t tokens, int64_t heads, int64_t head,
                                       int64_t head_dim) {
  const size_t width = static_cast<size_t>(head_dim) * 2;
  std::vector<uint16_t> raw(static_cast<size_t>(tokens * head_dim));
  ORRERY_CUDA(cudaMemcpy2D(raw.data(), width, static_cast<const char*>(data) + static_cast<size_t>(head) * width,
                           width * static_cast<size_t>(heads), width, static_cast<size_t>(tokens),
                           cudaMemcpyDeviceToHost));
  std::vector<double> out(raw.size());
  for (size_t i = 0; i < raw.size(); ++i) out[i] = widen(raw[i]);
  return out;
}

}  // namespace orrery
