// cuBLASLt counts columns first. A row-major c = a b is a column-major c^T = b^T a^T over the same memory, so
// b is the library's first operand and a its second, and what it calls rows are columns here.
#include "cuda/cublas.h"

#include <cublasLt.h>

#include <algorithm>
#include <array>

#include "cuda/dynamic_library.h"

namespace nf::cuda {

struct Cublas::Library {
  decltype(&cublasLtCreate) create;
  decltype(&cublasLtDestroy) destroy;
  decltype(&cublasLtMatmul) matmul;
  decltype(&cublasLtMatmulAlgoGetHeuristic) heuristic;
  decltype(&cublasLtMatmulDescInit_internal) desc_init;
  decltype(&cublasLtMatmulDescSetAttribute) desc_set;
  decltype(&cublasLtMatrixLayoutInit_internal) layout_init;
  decltype(&cublasLtMatrixLayoutSetAttribute) layout_set;
  decltype(&cublasLtMatmulPreferenceInit_internal) preference_init;
  decltype(&cublasLtMatmulPreferenceSetAttribute) preference_set;
  decltype(&cublasLtGetStatusString) status_text;
  cublasLtHandle_t handle = nullptr;

  Library() {
    const DynamicLibrary library(NF_CUBLASLT, NF_CUDA_LIBRARIES);
    library.find("cublasLtCreate", create);
    library.find("cublasLtDestroy", destroy);
    library.find("cublasLtMatmul", matmul);
    library.find("cublasLtMatmulAlgoGetHeuristic", heuristic);
    library.find("cublasLtMatmulDescInit_internal", desc_init);
    library.find("cublasLtMatmulDescSetAttribute", desc_set);
    library.find("cublasLtMatrixLayoutInit_internal", layout_init);
    library.find("cublasLtMatrixLayoutSetAttribute", layout_set);
    library.find("cublasLtMatmulPreferenceInit_internal", preference_init);
    library.find("cublasLtMatmulPreferenceSetAttribute", preference_set);
    library.find("cublasLtGetStatusString", status_text);
    check(create(&handle), "start");
  }
  Library(const Library&) = delete;
  Library& operator=(const Library&) = delete;
  ~Library() { destroy(handle); }

  void check(cublasStatus_t status, const char* what) const {
    if (status != CUBLAS_STATUS_SUCCESS) fail("cuda: cuBLASLt cannot {}: {}", what, status_text(status));
  }
};

namespace {

cudaDataType_t data_type(DType dtype) { return dtype == DType::bf16 ? CUDA_R_16BF : CUDA_R_32F; }

// A matrix as the library sees it: `rows` adjacent elements, `columns` of them a leading dimension apart.
struct ColumnMajor {
  uint64_t rows, columns;
  int64_t leading;
  bool transposed;  // with respect to what the product needs
};

// An operand [rows, columns] of ours, needed transposed.
ColumnMajor column_major(const MatrixLayout& m, int64_t rows, int64_t columns) {
  const bool row_major = (m.col_stride == 1 || columns == 1) && (m.row_stride >= columns || rows == 1);
  const int64_t inner = row_major ? columns : rows, outer = row_major ? rows : columns;
  return {static_cast<uint64_t>(inner), static_cast<uint64_t>(outer),
          std::max(row_major ? m.row_stride : m.col_stride, inner), !row_major};
}

// Everything of one product that the library reads when it runs.
struct Plan {
  cublasLtMatmulDescOpaque_t operation = {};
  cublasLtMatrixLayoutOpaque_t first = {}, second = {}, result = {};
  cublasLtMatmulAlgo_t algorithm = {};
  size_t workspace_bytes = 0;
  float alpha = 1, beta = 0;
};

}  // namespace

Cublas::Cublas(cudaStream_t stream) : library_(std::make_shared<Library>()), stream_(stream) {}
Cublas::~Cublas() = default;

Multiply Cublas::product(const Product& p, void* workspace) const {
  const Library& lt = *library_;
  const auto made = std::make_shared<Plan>();
  Plan& plan = *made;
  plan.beta = p.accumulate ? 1 : 0;
  const ColumnMajor first = column_major(p.b, p.k, p.n), second = column_major(p.a, p.m, p.k);
  lt.check(lt.desc_init(&plan.operation, sizeof plan.operation, CUBLAS_COMPUTE_32F, CUDA_R_32F),
           "describe a product");
  const auto set_transpose = [&](cublasLtMatmulDescAttributes_t which, bool transposed) {
    const cublasOperation_t operation = transposed ? CUBLAS_OP_T : CUBLAS_OP_N;
    lt.check(lt.desc_set(&plan.operation, which, &operation, sizeof operation), "transpose");
  };
  set_transpose(CUBLASLT_MATMUL_DESC_TRANSA, first.transposed);
  set_transpose(CUBLASLT_MATMUL_DESC_TRANSB, second.transposed);
  const auto set_layout = [&](cublasLtMatrixLayoutOpaque_t& layout, DType dtype, const ColumnMajor& matrix,
                              int64_t batch_stride) {
    lt.check(
        lt.layout_init(&layout, sizeof layout, data_type(dtype), matrix.rows, matrix.columns, matrix.leading),
        "describe an operand");
    const auto batch = static_cast<int32_t>(p.batch);
    lt.check(lt.layout_set(&layout, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, &batch, sizeof batch), "batch");
    lt.check(lt.layout_set(&layout, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, &batch_stride,
                           sizeof batch_stride),
             "batch");
  };
  set_layout(plan.first, p.b.dtype, first, p.b.batch_stride);
  set_layout(plan.second, p.a.dtype, second, p.a.batch_stride);
  set_layout(plan.result, p.c.dtype,
             {static_cast<uint64_t>(p.n), static_cast<uint64_t>(p.m), std::max(p.c.row_stride, p.n), false},
             p.c.batch_stride);

  cublasLtMatmulPreferenceOpaque_t preference;
  lt.check(lt.preference_init(&preference, sizeof preference), "take a preference");
  const size_t workspace_limit = Gpu::kProductWorkspace;
  lt.check(lt.preference_set(&preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace_limit,
                             sizeof workspace_limit),
           "take a preference");
  cublasLtMatmulHeuristicResult_t found{};
  int count = 0;
  const cublasStatus_t status = lt.heuristic(lt.handle, &plan.operation, &plan.first, &plan.second,
                                             &plan.result, &plan.result, &preference, 1, &found, &count);
  if (status != CUBLAS_STATUS_SUCCESS || count == 0)
    fail("cuda: cuBLASLt knows no algorithm for {} products [{}, {}] x [{}, {}] of {}: {}", p.batch, p.m, p.k,
         p.k, p.n, name(p.a.dtype), lt.status_text(status));
  plan.algorithm = found.algo;
  plan.workspace_bytes = found.workspaceSize;
  return [made, library = library_, stream = stream_, workspace](const void* a, const void* b, void* c) {
    library->check(library->matmul(library->handle, &made->operation, &made->alpha, b, &made->first, a,
                                   &made->second, &made->beta, c, &made->result, c, &made->result,
                                   &made->algorithm, workspace, made->workspace_bytes, stream),
                   "multiply");
  };
}

}  // namespace nf::cuda
