#include "cpu/gemm.h"

#include "base/parallel.h"
#include "nf/error.h"

namespace nf::cpu {
namespace {

float element(const MatrixView& view, int64_t index) {
  return view.dtype == DType::f32 ? static_cast<const float*>(view.data)[index]
                                  : to_float(static_cast<const bf16*>(view.data)[index]);
}

void check(const GemmArgs& args) {
  const auto usable = [](DType dtype) { return dtype == DType::f32 || dtype == DType::bf16; };
  require(args.batch >= 0 && args.m >= 0 && args.n >= 0 && args.k >= 0,
          "gemm: negative size in batch {}, m {}, n {}, k {}", args.batch, args.m, args.n, args.k);
  require(usable(args.a.dtype) && usable(args.b.dtype) && usable(args.c_dtype),
          "gemm: dtypes {} x {} -> {}, only f32 and bf16 are supported", name(args.a.dtype),
          name(args.b.dtype), name(args.c_dtype));
  require(!args.accumulate || args.c_dtype == DType::f32, "gemm: accumulation into {}, only f32 is supported",
          name(args.c_dtype));
}

}  // namespace

size_t gemm_workspace(const GemmArgs& args, int /*threads*/) {
  check(args);
  return 0;
}

void gemm(const GemmArgs& args, void* /*workspace*/, int threads) {
  check(args);
  parallel_for(threads, args.batch * args.m, [&](int64_t task) {
    const int64_t item = task / args.m, row = task % args.m;
    for (int64_t col = 0; col < args.n; ++col) {
      float sum = 0;
      for (int64_t i = 0; i < args.k; ++i)
        sum += element(args.a, item * args.a_batch_stride + row * args.a.row_stride + i * args.a.col_stride) *
               element(args.b, item * args.b_batch_stride + i * args.b.row_stride + col * args.b.col_stride);
      const int64_t at = item * args.c_batch_stride + row * args.c_row_stride + col;
      if (args.c_dtype == DType::bf16)
        static_cast<bf16*>(args.c)[at] = to_bf16(sum);
      else if (args.accumulate)
        static_cast<float*>(args.c)[at] += sum;
      else
        static_cast<float*>(args.c)[at] = sum;
    }
  });
}

std::string_view gemm_kernel_name(const GemmArgs&) { return "portable"; }

double measure_peak_gflops(DType, int) { return 1; }

}  // namespace nf::cpu
