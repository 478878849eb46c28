#include "kernels/cluster.hpp"

namespace orrery {

int gpu_count() {
  int count = 0;
  if (cudaGetDeviceCount(&count) != cudaSuccess) {
    cudaGetLastError();
    return 0;
  }
  return count;
}

std::string link_name() {
  if (gpu_count() < 2) return "none";
  int atomics = 0, major = 0;
  // Native atomics between GPUs of one host exist over NVLink and not over PCIe.
  if (cudaDeviceGetP2PAttribute(&atomics, cudaDevP2PAttrNativeAtomicSupported, 0, 1) != cudaSuccess) cudaGetLastError();
  if (!atomics) return "pcie";
  ORRERY_CUDA(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, 0));
  return major == 8 ? "nvlink3" : major == 9 ? "nvlink4" : major >= 10 ? "nvlink5" : "nvlink";
}

Ranks::Ranks(int rank_count) : count(rank_count), gpus(gpu_count()) {}

void enable_peer_access() {
  static bool done = false;
  if (done) return;
  done = true;
  const int gpus = gpu_count();
  for (int a = 0; a < gpus; ++a) {
    OnDevice on(a);
    for (int b = 0; b < gpus; ++b) {
      int possible = 0;
      if (a == b || cudaDeviceCanAccessPeer(&possible, a, b) != cudaSuccess || !possible) continue;
      const cudaError_t status = cudaDeviceEnablePeerAccess(b, 0);
      if (status == cudaErrorPeerAccessAlreadyEnabled) {
        cudaGetLastError();
      } else {
        ORRERY_CUDA(status);
      }
    }
  }
}

void copy_between(void* to, int to_device, const void* from, int from_device, int64_t bytes, cudaStream_t stream) {
  const auto size = static_cast<size_t>(bytes);
  if (to_device == from_device) {
    ORRERY_CUDA(cudaMemcpyAsync(to, from, size, cudaMemcpyDeviceToDevice, stream));
  } else {
    ORRERY_CUDA(cudaMemcpyPeerAsync(to, to_device, from, from_device, size, stream));
  }
}

}  // namespace orrery
