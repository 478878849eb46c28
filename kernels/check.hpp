// Every CUDA call is checked: a failure throws, the row that made it is reported as failed and the others go on.
#pragma once
#include <cuda_runtime.h>

#include <stdexcept>
#include <string>

namespace orrery {

struct BenchError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

inline void check_cuda(cudaError_t status, const char* call, const char* file, int line) {
  if (status == cudaSuccess) return;
  cudaGetLastError();  // a sticky error stays, any other must not be charged to the next row
  throw BenchError(std::string(call) + ": " + cudaGetErrorString(status) + " (" + file + ":" + std::to_string(line) +
                   ")");
}

}  // namespace orrery

#define ORRERY_CUDA(call) ::orrery::check_cuda((call), #call, __FILE__, __LINE__)
#define ORRERY_LAUNCHED() ::orrery::check_cuda(cudaGetLastError(), "kernel launch", __FILE__, __LINE__)
