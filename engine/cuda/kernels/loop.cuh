// What the text of a fused loop (cuda/loop_source.h) is made of: the ops of a body by their names in the op
// table, vectors of leaves and outputs, partial results of column reductions.
//
// In registers bf16 and f16 values are floats that have been rounded, u8 is int32_t, and booleans are bool.
#pragma once

#include "device.cuh"
#include "loop_params.h"

namespace nf::cuda {

// ---- between memory and registers

__device__ __forceinline__ float lane(float x) { return x; }
__device__ __forceinline__ float lane(bf16 x) { return to_float(x); }
__device__ __forceinline__ float lane(f16 x) { return to_float(x); }
__device__ __forceinline__ int32_t lane(int32_t x) { return x; }
__device__ __forceinline__ int32_t lane(uint8_t x) { return x; }
__device__ __forceinline__ bool lane(bool x) { return x; }

__device__ __forceinline__ void unlane(float x, float& to) { to = x; }
__device__ __forceinline__ void unlane(float x, bf16& to) { to = to_bf16(x); }
__device__ __forceinline__ void unlane(float x, f16& to) { to = to_f16(x); }
__device__ __forceinline__ void unlane(int32_t x, int32_t& to) { to = x; }
__device__ __forceinline__ void unlane(int32_t x, uint8_t& to) { to = uint8_t(x); }
__device__ __forceinline__ void unlane(bool x, bool& to) { to = x; }

// Leaves whose elements do not follow each other, or not where vectors may begin.
template <int count, typename T, typename Index>
__device__ __forceinline__ Vector<T, count> gather_vector(const T* from, Index stride) {
  Vector<T, count> result;
#pragma unroll
  for (int j = 0; j < count; ++j) result.items[j] = from[j * stride];
  return result;
}
// From `column` on, in a row of `columns` that begins at `row` and goes on at its begin.
template <int count, typename T, typename Index>
__device__ __forceinline__ Vector<T, count> gather_around(const T* row, Index column, Index columns,
                                                          Index stride) {
  Vector<T, count> result;
#pragma unroll
  for (int j = 0; j < count; ++j)
    result.items[j] = row[(column + j < columns ? column + j : column + j - columns) * stride];
  return result;
}
// The first `valid` of a vector; the others are 0.
template <int count, typename T, typename Index>
__device__ __forceinline__ Vector<T, count> gather_first(const T* from, Index stride, int valid) {
  Vector<T, count> result = {};
#pragma unroll
  for (int j = 0; j < count; ++j)
    if (j < valid) result.items[j] = from[j * stride];
  return result;
}

template <int count, typename T, typename Lane>
__device__ __forceinline__ void store_lanes(T* to, const Lane (&lanes)[count]) {
  Vector<T, count> value;
#pragma unroll
  for (int j = 0; j < count; ++j) unlane(lanes[j], value.items[j]);
  store_vector(to, value);
}
// In pairs: one conversion for two.
template <int count>
__device__ __forceinline__ void store_lanes(bf16* to, const float (&lanes)[count]) {
  if (count == 1) {
    *to = to_bf16(lanes[0]);
    return;
  }
  Vector<uint32_t, (count + 1) / 2> pairs;
#pragma unroll
  for (int j = 0; j + 1 < count; j += 2) pairs.items[j / 2] = pack_bf16(lanes[j], lanes[j + 1]);
  store_vector(reinterpret_cast<uint32_t*>(to), pairs);
}
template <int count, typename T, typename Lane, typename Index>
__device__ __forceinline__ void scatter_lanes(T* to, Index stride, const Lane (&lanes)[count]) {
#pragma unroll
  for (int j = 0; j < count; ++j) unlane(lanes[j], to[j * stride]);
}
template <int count, typename T, typename Lane, typename Index>
__device__ __forceinline__ void scatter_first(T* to, Index stride, const Lane (&lanes)[count], int valid) {
#pragma unroll
  for (int j = 0; j < count; ++j)
    if (j < valid) unlane(lanes[j], to[j * stride]);
}

// ---- philox

struct PhiloxKey {
  uint32_t low, high;
};
__device__ __forceinline__ PhiloxKey philox_key(const int32_t* rng, int stride) {
  return {uint32_t(rng[0]) ^ (uint32_t(rng[2 * stride]) * 0x9E3779B9u),
          uint32_t(rng[stride]) ^ (uint32_t(rng[3 * stride]) * 0x85EBCA6Bu)};
}
__device__ __forceinline__ float philox_uniform(uint32_t word) { return float(word >> 8) * 0x1p-24f; }

template <int count>
__device__ __forceinline__ Vector<float, count> philox_vector(uint64_t first, uint64_t stream,
                                                              PhiloxKey key) {
  Vector<float, count> result;
  if (count % 4 == 0 && first % 4 == 0) {
#pragma unroll
    for (int block = 0; block < count / 4; ++block) {
      const Vector<uint32_t, 4> words = philox_block(first / 4 + block, stream, key.low, key.high);
#pragma unroll
      for (int j = 0; j < 4; ++j) result.items[4 * block + j] = philox_uniform(words.items[j]);
    }
  } else {
#pragma unroll
    for (int j = 0; j < count; ++j)
      result.items[j] = philox_uniform(philox_word(first + j, stream, key.low, key.high));
  }
  return result;
}

// ---- the ops. A product is never contracted with a sum: a value's bits depend on its operands alone, not on
// the loop that computes it.

namespace op {

__device__ __forceinline__ float neg(float x) { return -x; }
__device__ __forceinline__ int32_t neg(int32_t x) { return int32_t(0u - uint32_t(x)); }
__device__ __forceinline__ float exp(float x) { return expf(x); }
__device__ __forceinline__ float log(float x) { return logf(x); }
__device__ __forceinline__ float sqrt(float x) { return sqrtf(x); }
__device__ __forceinline__ float rsqrt(float x) { return rsqrtf(x); }
__device__ __forceinline__ float tanh(float x) { return tanhf(x); }
// To 2 ulp more than a division would, at a fifth of its instructions; 0 where the result is below 2^-126.
__device__ __forceinline__ float sigmoid(float x) { return __fdividef(1.0f, 1.0f + expf(-x)); }
__device__ __forceinline__ float erf(float x) { return erff(x); }
__device__ __forceinline__ float abs(float x) { return fabsf(x); }
__device__ __forceinline__ int32_t abs(int32_t x) { return x < 0 ? neg(x) : x; }
__device__ __forceinline__ float sin(float x) { return sinf(x); }
__device__ __forceinline__ float cos(float x) { return cosf(x); }

__device__ __forceinline__ float add(float a, float b) { return a + b; }
__device__ __forceinline__ int32_t add(int32_t a, int32_t b) { return int32_t(uint32_t(a) + uint32_t(b)); }
__device__ __forceinline__ float sub(float a, float b) { return a - b; }
__device__ __forceinline__ int32_t sub(int32_t a, int32_t b) { return int32_t(uint32_t(a) - uint32_t(b)); }
__device__ __forceinline__ float mul(float a, float b) { return __fmul_rn(a, b); }
__device__ __forceinline__ int32_t mul(int32_t a, int32_t b) { return int32_t(uint32_t(a) * uint32_t(b)); }
__device__ __forceinline__ float div(float a, float b) { return a / b; }
__device__ __forceinline__ int32_t div(int32_t a, int32_t b) { return b == 0 ? 0 : b == -1 ? neg(a) : a / b; }
// A NaN on either side wins.
template <typename T>
__device__ __forceinline__ T max(T a, T b) {
  return a > b || a != a ? a : b;
}
template <typename T>
__device__ __forceinline__ T min(T a, T b) {
  return a < b || a != a ? a : b;
}
template <typename T>
__device__ __forceinline__ bool equal(T a, T b) {
  return a == b;
}
template <typename T>
__device__ __forceinline__ bool less(T a, T b) {
  return a < b;
}
template <typename T>
__device__ __forceinline__ bool less_equal(T a, T b) {
  return a <= b;
}
template <typename T>
__device__ __forceinline__ T where(bool condition, T a, T b) {
  return condition ? a : b;
}

template <typename T>
__device__ __forceinline__ float cast_f32(T x) {
  return float(x);
}
template <typename T>
__device__ __forceinline__ float cast_bf16(T x) {
  return to_float(to_bf16(float(x)));
}
template <typename T>
__device__ __forceinline__ float cast_f16(T x) {
  return to_float(to_f16(float(x)));
}
template <typename T>
__device__ __forceinline__ int32_t cast_i32(T x) {
  return int32_t(x);
}
template <typename T>
__device__ __forceinline__ int32_t cast_u8(T x) {
  return int32_t(x) & 255;
}
template <typename T>
__device__ __forceinline__ bool cast_bool(T x) {
  return x != T(0);
}

}  // namespace op

// ---- row reductions over a block

// Over `warps` warps, each of which has its part in x; every thread gets the result. `scratch`: a T per warp,
// which the block may use again after the barrier that follows this.
template <typename Op, int warps, typename T>
__device__ __forceinline__ T combine_warps(const T* scratch) {
  T x = scratch[0];
#pragma unroll
  for (int warp = 1; warp < warps; ++warp) x = Op::combine(x, scratch[warp]);
  return x;
}

// ---- column reductions

// The second stage: the rows of `partial` [rows, columns] combined, in 32 columns per block, by `parts`
// threads each. `store(column, value)` keeps the result.
template <typename Op, int parts, typename T, typename Index, typename Store>
__device__ __forceinline__ void finish_columns(const T* partial, Index rows, Index columns, Store store) {
  __shared__ T sums[parts][32];
  const int x = threadIdx.x % 32, part = threadIdx.x / 32;
  const Index column = Index(blockIdx.x) * 32 + x;
  if (column < columns && part < rows) {
    T sum = partial[part * columns + column];
#pragma unroll 8
    for (Index row = part + parts; row < rows; row += parts)
      sum = Op::combine(sum, partial[row * columns + column]);
    sums[part][x] = sum;
  }
  __syncthreads();
  if (part > 0 || column >= columns) return;
  T sum = sums[0][x];
  for (int i = 1; i < parts && i < rows; ++i) sum = Op::combine(sum, sums[i][x]);
  store(column, sum);
}

}  // namespace nf::cuda
