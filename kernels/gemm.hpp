// bf16 matrix products through cuBLASLt, as a linear layer runs them (fp32 accumulation).
#pragma once
#include <cublasLt.h>

#include <cstdint>
#include <string>

#include "kernels/device.hpp"

namespace orrery {

// Row-major, for y = x W^T with x [tokens][in], W [out][in]:
//   forward:        y  [tokens][out] = x  [tokens][in]   W^T
//   input_gradient: dx [tokens][in]  = dy [tokens][out]  W
//   weight_gradient: dW [out][in]    = dy^T [out][tokens] x
enum class GemmPass { forward, input_gradient, weight_gradient };
const char* to_string(GemmPass pass);

struct GemmShape {
  int64_t tokens = 0, in = 0, out = 0;
  GemmPass pass = GemmPass::forward;
  double flops() const {
    return 2.0 * static_cast<double>(tokens) * static_cast<double>(in) * static_cast<double>(out);
  }
  // Sizes of the operands and of the result, in numbers, in the order above (a * b = c).
  int64_t a_count() const { return pass == GemmPass::forward ? tokens * in : tokens * out; }
  int64_t b_count() const { return pass == GemmPass::weight_gradient ? tokens * in : out * in; }
  int64_t c_count() const {
    return pass == GemmPass::forward ? tokens * out : pass == GemmPass::input_gradient ? tokens * in : out * in;
  }
  double bytes() const { return 2.0 * static_cast<double>(a_count() + b_count() + c_count()); }
  // Where the numbers of one dot product lie: c(r, c) = sum over i < inner() of a(r, i) b(i, c).
  int64_t rows() const { return pass == GemmPass::weight_gradient ? out : tokens; }
  int64_t columns() const { return pass == GemmPass::forward ? out : in; }
  int64_t inner() const { return pass == GemmPass::forward ? in : pass == GemmPass::input_gradient ? out : tokens; }
  int64_t a_at(int64_t r, int64_t i) const { return pass == GemmPass::weight_gradient ? i * out + r : r * inner() + i; }
  int64_t b_at(int64_t i, int64_t c) const { return pass == GemmPass::forward ? c * in + i : i * in + c; }
};

// The library's first choice of kernel for the shape. The handle and the 32 MiB workspace belong to the object.
class Gemm {
 public:
  explicit Gemm(const GemmShape& shape);
  ~Gemm();
  Gemm(const Gemm&) = delete;
  Gemm& operator=(const Gemm&) = delete;
  void run(const void* a, const void* b, void* c, cudaStream_t stream) const;

 private:
  GemmShape shape_;
  cublasLtHandle_t handle_ = nullptr;
  cublasLtMatmulDesc_t operation_ = nullptr;
  cublasLtMatrixLayout_t left_ = nullptr, right_ = nullptr, result_ = nullptr;
  cublasLtMatmulAlgo_t algorithm_{};
  DeviceBuffer workspace_;
};

}  // namespace orrery
