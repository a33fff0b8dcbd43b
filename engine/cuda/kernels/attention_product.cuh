// The two products that attention is made of, for one warp: rows of both factors in shared memory, and a left
// factor that is a result of the first. Results are in the layout of mma_bf16's c: tiles of 16 x 8; with
// lane = 4 * row + column a thread holds rows `row` and `row + 8`, columns 2 * column and the next. bf16 runs
// on tensor cores, f32 by FMA in the same layout.
#pragma once

#include "attention_params.h"
#include "tensor_core.cuh"

namespace nf::cuda {

template <typename T, int width>
constexpr int kTileStride = width + 16 / int(sizeof(T));  // as tile_bytes

// ---- c += a b^T: a [16 * m_tiles, width] and b [n, width] in shared memory

template <int m_tiles, int n, int width>
__device__ __forceinline__ void multiply_transposed(float (&c)[m_tiles][n / 8][4], const bf16* a,
                                                    const bf16* b) {
  constexpr int kStride = kTileStride<bf16, width>;
  const int lane = threadIdx.x % 32;
  a += lane % 16 * kStride + lane / 16 * 8;
  b += (lane / 16 * 8 + lane % 8) * kStride + lane / 8 % 2 * 8;
#pragma unroll
  for (int k = 0; k < width; k += 16) {
    uint32_t left[m_tiles][4];
#pragma unroll
    for (int m = 0; m < m_tiles; ++m) load_matrices(left[m], a + m * 16 * kStride + k);
#pragma unroll
    for (int j = 0; j < n / 16; ++j) {
      uint32_t right[4];
      load_matrices(right, b + j * 16 * kStride + k);
      const uint32_t first[2] = {right[0], right[1]}, second[2] = {right[2], right[3]};
#pragma unroll
      for (int m = 0; m < m_tiles; ++m) {
        mma_bf16(c[m][2 * j], left[m], first);
        mma_bf16(c[m][2 * j + 1], left[m], second);
      }
    }
  }
}

template <int m_tiles, int n, int width>
__device__ __forceinline__ void multiply_transposed(float (&c)[m_tiles][n / 8][4], const float* a,
                                                    const float* b) {
  constexpr int kStride = kTileStride<float, width>;
  const int lane = threadIdx.x % 32;
  a += lane / 4 * kStride;
  b += lane % 4 * 2 * kStride;
#pragma unroll 1
  for (int k = 0; k < width; k += 4) {
    Vector<float, 4> left[m_tiles][2];
#pragma unroll
    for (int m = 0; m < 2 * m_tiles; ++m) left[m / 2][m % 2] = load_vector<4>(a + m * 8 * kStride + k);
#pragma unroll
    for (int j = 0; j < n / 8; ++j) {
      const Vector<float, 4> right[2] = {load_vector<4>(b + j * 8 * kStride + k),
                                         load_vector<4>(b + (j * 8 + 1) * kStride + k)};
#pragma unroll
      for (int m = 0; m < m_tiles; ++m)
#pragma unroll
        for (int e = 0; e < 4; ++e)
#pragma unroll
          for (int i = 0; i < 4; ++i) c[m][j][e] += left[m][e / 2].items[i] * right[e % 2].items[i];
    }
  }
}

// ---- c += a b: a [16 * m_tiles, n] in registers, b [n, width] in shared memory

template <int m_tiles, int n, int width>
__device__ __forceinline__ void multiply(float (&c)[m_tiles][width / 8][4],
                                         const float (&a)[m_tiles][n / 8][4], const bf16* b) {
  constexpr int kStride = kTileStride<bf16, width>;
  const int lane = threadIdx.x % 32;
  b += lane % 16 * kStride + lane / 16 * 8;
#pragma unroll
  for (int k = 0; k < n / 16; ++k) {
    uint32_t left[m_tiles][4];
#pragma unroll
    for (int m = 0; m < m_tiles; ++m) pack_left(left[m], a[m], k);
#pragma unroll
    for (int j = 0; j < width / 16; ++j) {
      uint32_t right[4];
      load_matrices_transposed(right, b + k * 16 * kStride + j * 16);
      const uint32_t first[2] = {right[0], right[1]}, second[2] = {right[2], right[3]};
#pragma unroll
      for (int m = 0; m < m_tiles; ++m) {
        mma_bf16(c[m][2 * j], left[m], first);
        mma_bf16(c[m][2 * j + 1], left[m], second);
      }
    }
  }
}

// A row of a is spread over four lanes, which give it to each other.
template <int m_tiles, int n, int width>
__device__ __forceinline__ void multiply(float (&c)[m_tiles][width / 8][4],
                                         const float (&a)[m_tiles][n / 8][4], const float* b) {
  constexpr int kStride = kTileStride<float, width>;
  const int lane = threadIdx.x % 32;
  b += lane % 4 * 2;
#pragma unroll
  for (int j = 0; j < n / 8; ++j)
#pragma unroll 1
    for (int owner = 0; owner < 4; ++owner)
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        float left[m_tiles][2];
#pragma unroll
        for (int m = 0; m < m_tiles; ++m)
#pragma unroll
          for (int row = 0; row < 2; ++row)
            left[m][row] = __shfl_sync(kAllLanes, a[m][j][2 * row + e], lane / 4 * 4 + owner);
        const float* const right = b + (j * 8 + owner * 2 + e) * kStride;
#pragma unroll
        for (int i = 0; i < width / 8; ++i) {
          const Vector<float, 2> pair = load_vector<2>(right + i * 8);
#pragma unroll
          for (int m = 0; m < m_tiles; ++m)
#pragma unroll
            for (int part = 0; part < 4; ++part) c[m][i][part] += left[m][part / 2] * pair.items[part % 2];
        }
      }
}

}  // namespace nf::cuda
