// The GPUs of this machine as ranks: rank r runs on GPU r modulo the number of GPUs. With more ranks than GPUs several
// share one (virtual ranks), which is how everything here is first made right on one GPU.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "kernels/device.hpp"

namespace orrery {

int gpu_count();
// nvlink4, nvlink5, pcie (several GPUs) or none.
std::string link_name();

// Makes a GPU current and the one before it current again.
class OnDevice {
 public:
  explicit OnDevice(int device) {
    ORRERY_CUDA(cudaGetDevice(&before_));
    ORRERY_CUDA(cudaSetDevice(device));
  }
  ~OnDevice() { cudaSetDevice(before_); }
  OnDevice(const OnDevice&) = delete;
  OnDevice& operator=(const OnDevice&) = delete;

 private:
  int before_ = 0;
};

struct Ranks {
  explicit Ranks(int count);
  int count;
  int device(int rank) const { return rank % gpus; }
  bool is_virtual() const { return count > gpus; }
  int gpus;
};

// Peer access between all pairs of GPUs, once; a pair without it still copies, through the host.
void enable_peer_access();

// By a copy engine, also within one GPU.
void copy_between(void* to, int to_device, const void* from, int from_device, int64_t bytes, cudaStream_t stream);

}  // namespace orrery
