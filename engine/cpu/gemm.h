// The matrix product of the CPU backend: c = a b or c += a b, batched, over f32 and bf16 operands of any
// strides.
//
// Products accumulate in f32. Which kernel runs follows from the processor and the operands' dtypes:
//   avx512_bf16    both operands bf16, on a processor with VDPBF16PS (which takes subnormals for zero)
//   avx512_f32, avx2_f32, portable
//                  everything else; bf16 operands are widened to f32, which is exact
//
// Determinism: the order in which the terms of one element of c are added depends on k and on the kernel
// alone. It does not depend on m, n, batch, strides, the element's position or the number of threads: a row
// computed alone (decoding) equals, bit for bit, that row of a larger product (prefill).
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "nf/dtype.h"

namespace nf::cpu {

// An operand: any strides, so that a transpose is a swap of the two.
struct MatrixView {
  const void* data = nullptr;
  DType dtype = DType::f32;  // f32 or bf16
  int64_t row_stride = 0;    // in elements
  int64_t col_stride = 0;
};

struct GemmArgs {
  int64_t batch = 1;
  int64_t m = 0, n = 0, k = 0;
  MatrixView a = {};           // [m, k]
  int64_t a_batch_stride = 0;  // in elements; 0 uses one a for the whole batch
  MatrixView b = {};           // [k, n]
  int64_t b_batch_stride = 0;
  const void* packed_b = nullptr;  // what pack_b() has made of b, which is not read then; null: read b
  void* c = nullptr;               // [m, n], column stride 1; may not overlap a or b
  DType c_dtype = DType::f32;      // f32 or bf16 (rounded once, from the whole f32 sum)
  int64_t c_row_stride = 0;
  int64_t c_batch_stride = 0;
  bool accumulate = false;  // c += a b; c must be f32
};

// Bytes of scratch memory that gemm() needs for these arguments and threads. Pointers are not read.
size_t gemm_workspace(const GemmArgs& args, int threads);

// The same, whichever strides a and b have: for who does not know them yet.
size_t gemm_workspace_of_any_strides(const GemmArgs& args, int threads);

// Computes the product on up to `threads` threads (1: on the caller's alone, fit for use inside a
// task). `workspace` holds gemm_workspace(args, threads) bytes of any alignment, used by no one else during
// the call. Allocates nothing. Throws Error for negative sizes, other dtypes, or accumulation into bf16.
void gemm(const GemmArgs& args, void* workspace, int threads);

// Where few rows are multiplied by the same b again and again (decoding), b in the order in which that is
// read fastest: packed_b_bytes() of memory, 64-byte aligned; 0: this product has no use for it, and gemm()
// refuses it. It serves any m for which there is a use, with the same dtypes, n and k. The result keeps its
// bits.
size_t packed_b_bytes(const GemmArgs& args);
void pack_b(const GemmArgs& args, void* packed, int threads);

// The kernel that gemm() runs for these operands, as in the list above.
std::string_view gemm_kernel_name(const GemmArgs& args);

// GFLOP/s (10^9 multiplications and additions a second) of the fastest kernel for operands of `dtype` when it
// runs from registers alone, on `threads` threads at once: the most a matrix product could reach. Takes about
// 20 ms.
double measure_peak_gflops(DType dtype, int threads);

}  // namespace nf::cpu
