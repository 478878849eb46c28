// The kernels that the overlap and power rows run over and over: one launch each, of about a millisecond.
#pragma once
#include <cuda_runtime.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace orrery {

struct Workload {
  std::function<void(cudaStream_t)> launch;
  double flops = 0, bytes = 0;
  std::string shape;
};

// attention_forward, attention_backward (if built with cuDNN), gemm, merge, copy. On the current GPU, random data.
const std::vector<std::string>& workload_names();
std::shared_ptr<Workload> make_workload(const std::string& name, int device, cudaStream_t stream);
// Compiles what make_workload needs; of all workloads at once by several threads.
void prepare_workload(const std::string& name, int device);

}  // namespace orrery
