// Tensor cores and asynchronous copies of sm_80 and newer, one function per instruction (PTX ISA 7.0,
// "Warp-level matrix instructions" and "cp.async"). All 32 lanes of a warp call them together. The host
// versions are in the tests' emulated.h.
#pragma once

#include "device.cuh"

#ifndef NF_EMULATED

namespace nf::cuda {

// c (16 x 8, f32) += a (16 x 16, bf16, row-major) b (16 x 8, bf16, column-major). With lane = 4 * row +
// column:
//   a[0], a[1]: rows `row` and `row + 8`, columns 2 * column, + 1;  a[2], a[3]: the same, columns + 8
//   b[0], b[1]: column `row`, rows 2 * column, + 1 and + 8, + 9
//   c[0], c[1]: row `row`, columns 2 * column, + 1;  c[2], c[3]: row + 8
__device__ __forceinline__ void mma_bf16(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

__device__ __forceinline__ uint32_t shared_address(const void* pointer) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(pointer));
}

// Four 8 x 8 matrices of bf16 from shared memory. Lane i gives the address of row i % 8 (16 bytes, aligned)
// of matrix i / 8; lane 4 * row + column gets elements (row, 2 * column) and the next of each.
__device__ __forceinline__ void load_matrices(uint32_t (&matrices)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(matrices[0]), "=r"(matrices[1]), "=r"(matrices[2]), "=r"(matrices[3])
               : "r"(shared_address(row)));
}
// The same, each matrix transposed on the way.
__device__ __forceinline__ void load_matrices_transposed(uint32_t (&matrices)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(matrices[0]), "=r"(matrices[1]), "=r"(matrices[2]), "=r"(matrices[3])
               : "r"(shared_address(row)));
}

// Begins to copy 16 bytes (both addresses aligned to that) from global to shared memory; zeros when not
// `valid`.
__device__ __forceinline__ void copy_async(void* to, const void* from, bool valid) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(to)), "l"(from),
               "r"(valid ? 16 : 0)
               : "memory");
}
// The same of 4 bytes.
__device__ __forceinline__ void copy_word_async(void* to, const void* from, bool valid) {
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(shared_address(to)), "l"(from),
               "r"(valid ? 4 : 0)
               : "memory");
}
// Closes a group of copies of this thread.
__device__ __forceinline__ void commit_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }
// Waits until at most `pending` groups of this thread are under way; other threads see them after a barrier.
template <int pending>
__device__ __forceinline__ void wait_copies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(pending) : "memory");
}

}  // namespace nf::cuda

#endif

namespace nf::cuda {

// Eight columns of a result, in c's layout, as half of the factor `a` of another product.
__device__ __forceinline__ void pack_half(uint32_t (&a)[4], const float (&c)[4], int half) {
#pragma unroll
  for (int i = 0; i < 2; ++i) a[2 * half + i] = pack_bf16(c[2 * i], c[2 * i + 1]);
}
// Columns 16 k to 16 k + 15.
template <int tiles>
__device__ __forceinline__ void pack_left(uint32_t (&a)[4], const float (&c)[tiles][4], int k) {
#pragma unroll
  for (int half = 0; half < 2; ++half) pack_half(a, c[2 * k + half], half);
}

}  // namespace nf::cuda
