// A matrix product for operands that the GPU's library does not take: any strides, mixed dtypes. A block of
// 16 x 16 threads computes as many elements of c, k in steps of 16; blockIdx.z counts the batch.
#pragma once

#include "device.cuh"
#include "matmul_params.h"

namespace nf::cuda {

template <typename A, typename B, typename C>
__device__ void matmul(const MatmulParams& p) {
  constexpr int kTile = 16;
  __shared__ float a_tile[kTile][kTile], b_tile[kTile][kTile + 1];
  const int64_t tiles = (p.n + kTile - 1) / kTile;
  const int y = threadIdx.x / kTile, x = threadIdx.x % kTile;
  const int64_t row = blockIdx.x / tiles * kTile + y, column = blockIdx.x % tiles * kTile + x;
  const A* a = static_cast<const A*>(p.a.data) + blockIdx.z * p.a.batch_stride;
  const B* b = static_cast<const B*>(p.b.data) + blockIdx.z * p.b.batch_stride;
  float sum = 0;
  for (int64_t start = 0; start < p.k; start += kTile) {
    const int64_t ka = start + x, kb = start + y;
    a_tile[y][x] = row < p.m && ka < p.k ? to_float(a[row * p.a.row_stride + ka * p.a.col_stride]) : 0.0f;
    b_tile[y][x] =
        column < p.n && kb < p.k ? to_float(b[kb * p.b.row_stride + column * p.b.col_stride]) : 0.0f;
    __syncthreads();
    for (int k = 0; k < kTile; ++k) sum += a_tile[y][k] * b_tile[k][x];
    __syncthreads();
  }
  if (row >= p.m || column >= p.n) return;
  C& c = static_cast<C*>(p.c)[blockIdx.z * p.c_batch_stride + row * p.c_row_stride + column];
  from_float(p.accumulate ? to_float(c) + sum : sum, c);
}

}  // namespace nf::cuda
