#include "kernels/gemm.hpp"

namespace orrery {
namespace {
void check_cublas(cublasStatus_t status, const char* call, int line) {
  if (status == CUBLAS_STATUS_SUCCESS) return;
  throw BenchError(std::string(call) + ": " + cublasLtGetStatusString(status) + " (gemm.cpp:" + std::to_string(line) +
                   ")");
}
#define ORRERY_CUBLAS(call) check_cublas((call), #call, __LINE__)
constexpr size_t kWorkspace = 32u << 20;
}  // namespace

const char* to_string(GemmPass pass) {
  return pass == GemmPass::forward          ? "forward"
         : pass == GemmPass::input_gradient ? "input_gradient"
                                            : "weight_gradient";
}

// cuBLAS is column-major: a row-major c = a b is computed as c^T = b^T a^T, so b comes first.
Gemm::Gemm(const GemmShape& shape) : shape_(shape), workspace_(kWorkspace) {
  ORRERY_CUBLAS(cublasLtCreate(&handle_));
  ORRERY_CUBLAS(cublasLtMatmulDescCreate(&operation_, CUBLAS_COMPUTE_32F, CUDA_R_32F));
  // Memory of each operand as a column-major matrix, and whether it must be transposed.
  const bool forward = shape.pass == GemmPass::forward, weight = shape.pass == GemmPass::weight_gradient;
  const cublasOperation_t left_op = forward ? CUBLAS_OP_T : CUBLAS_OP_N, right_op = weight ? CUBLAS_OP_T : CUBLAS_OP_N;
  ORRERY_CUBLAS(cublasLtMatmulDescSetAttribute(operation_, CUBLASLT_MATMUL_DESC_TRANSA, &left_op, sizeof left_op));
  ORRERY_CUBLAS(cublasLtMatmulDescSetAttribute(operation_, CUBLASLT_MATMUL_DESC_TRANSB, &right_op, sizeof right_op));
  const auto in = static_cast<uint64_t>(shape.in), out = static_cast<uint64_t>(shape.out),
             tokens = static_cast<uint64_t>(shape.tokens);
  // Row-major [r][c] is column-major c x r.
  auto layout = [](cublasLtMatrixLayout_t* l, uint64_t rows, uint64_t columns) {
    ORRERY_CUBLAS(cublasLtMatrixLayoutCreate(l, CUDA_R_16BF, columns, rows, static_cast<int64_t>(columns)));
  };
  if (weight) {
    layout(&left_, tokens, in);
    layout(&right_, tokens, out);
    layout(&result_, out, in);
  } else {
    layout(&left_, out, in);
    layout(&right_, tokens, forward ? in : out);
    layout(&result_, tokens, forward ? out : in);
  }
  cublasLtMatmulPreference_t preference = nullptr;
  ORRERY_CUBLAS(cublasLtMatmulPreferenceCreate(&preference));
  ORRERY_CUBLAS(cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &kWorkspace,
                                                     sizeof kWorkspace));
  cublasLtMatmulHeuristicResult_t choice{};
  int found = 0;
  const cublasStatus_t status = cublasLtMatmulAlgoGetHeuristic(handle_, operation_, left_, right_, result_, result_,
                                                               preference, 1, &choice, &found);
  cublasLtMatmulPreferenceDestroy(preference);
  ORRERY_CUBLAS(status);
  if (!found) throw BenchError("cuBLASLt has no kernel for this product");
  algorithm_ = choice.algo;
}

Gemm::~Gemm() {
  cublasLtMatrixLayoutDestroy(left_);
  cublasLtMatrixLayoutDestroy(right_);
  cublasLtMatrixLayoutDestroy(result_);
  cublasLtMatmulDescDestroy(operation_);
  cublasLtDestroy(handle_);
}

void Gemm::run(const void* a, const void* b, void* c, cudaStream_t stream) const {
  const float one = 1, zero = 0;
  ORRERY_CUBLAS(cublasLtMatmul(handle_, operation_, &one, b, left_, a, right_, &zero, c, result_, c, result_,
                               &algorithm_, workspace_.get(), kWorkspace, stream));
}

}  // namespace orrery
