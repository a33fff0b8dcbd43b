// What every kernel may use: narrow floats, 16-byte vectors, reductions over warps and blocks, Philox.
//
// Kernels are CUDA C++ that NVRTC compiles; the tests compile the same text for the host, where "emulated.h"
// supplies what the language and the processor do (threadIdx, barriers, shuffles, tensor cores). Hence inline
// assembly stands only here, in tensor_core.cuh and in warpgroup.cuh, and every thread of a warp takes part
// in each collective.
#pragma once

#include "types.h"

#ifdef NF_EMULATED
#include "emulated.h"
#else
// The block's dynamic shared memory, aligned to 1024 bytes.
__device__ __forceinline__ unsigned char* dynamic_shared() {
  extern __shared__ __align__(1024) unsigned char nf_dynamic_shared[];
  return nf_dynamic_shared;
}
#endif

namespace nf::cuda {

constexpr unsigned kAllLanes = 0xFFFFFFFFu;

// NVRTC has no <cmath>.
__device__ __forceinline__ float infinity() { return __uint_as_float(0x7F800000u); }
__device__ __forceinline__ float lowest() { return __uint_as_float(0xFF7FFFFFu); }
__device__ __forceinline__ float not_a_number() { return __uint_as_float(0x7FC00000u); }

// ---- narrow floats

struct bf16 {
  uint16_t bits;
};
struct f16 {
  uint16_t bits;
};

__device__ __forceinline__ float to_float(float x) { return x; }
__device__ __forceinline__ float to_float(bf16 x) { return __uint_as_float(uint32_t(x.bits) << 16); }

#ifdef NF_EMULATED
inline bf16 to_bf16(float x) { return {nf_emulated_to_bf16(x)}; }
inline f16 to_f16(float x) { return {nf_emulated_to_f16(x)}; }
inline float to_float(f16 x) { return nf_emulated_from_f16(x.bits); }
#else
__device__ __forceinline__ bf16 to_bf16(float x) {
  bf16 result;
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(result.bits) : "f"(x));
  return result;
}
// Two at once: `low` in the low half.
__device__ __forceinline__ uint32_t pack_bf16(float low, float high) {
  uint32_t result;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(result) : "f"(high), "f"(low));
  return result;
}
__device__ __forceinline__ f16 to_f16(float x) {
  f16 result;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(result.bits) : "f"(x));
  return result;
}
__device__ __forceinline__ float to_float(f16 x) {
  float result;
  asm("cvt.f32.f16 %0, %1;" : "=f"(result) : "h"(x.bits));
  return result;
}
// 2^x, to about 2 ulp; 0 for -inf.
__device__ __forceinline__ float fast_exp2(float x) {
  float result;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(x));
  return result;
}
#endif

__device__ __forceinline__ void from_float(float x, float& to) { to = x; }
__device__ __forceinline__ void from_float(float x, bf16& to) { to = to_bf16(x); }
__device__ __forceinline__ void from_float(float x, f16& to) { to = to_f16(x); }

// ---- vectors: `count` elements moved as one access of 4, 8 or 16 bytes; the address is aligned to that

template <typename T, int count>
struct alignas(sizeof(T) * count) Vector {
  T items[count];
};

template <int count, typename T>
__device__ __forceinline__ Vector<T, count> load_vector(const T* from) {
  return *reinterpret_cast<const Vector<T, count>*>(from);
}
template <int count, typename T>
__device__ __forceinline__ void store_vector(T* to, const Vector<T, count>& value) {
  *reinterpret_cast<Vector<T, count>*>(to) = value;
}

// ---- reductions, always in the same order

struct Sum {
  static __device__ __forceinline__ float identity() { return 0.0f; }
  template <typename T>
  static __device__ __forceinline__ T combine(T a, T b) {
    return a + b;
  }
};
struct Max {
  static __device__ __forceinline__ float identity() { return -infinity(); }
  // As the other backends: a NaN on either side wins.
  template <typename T>
  static __device__ __forceinline__ T combine(T a, T b) {
    return a > b || a != a ? a : b;
  }
};

// Over groups of `width` lanes (a power of two); every lane gets the result, the same bits in each.
template <typename Op, int width = 32, typename T>
__device__ __forceinline__ T warp_reduce(T x) {
#pragma unroll
  for (int offset = width / 2; offset > 0; offset /= 2)
    x = Op::combine(x, __shfl_xor_sync(kAllLanes, x, offset));
  return x;
}

// Over a block of `threads` threads (a multiple of 32); every thread gets the result. `scratch`: threads / 32
// elements of shared memory, free again after the next barrier.
template <typename Op, int threads, typename T>
__device__ __forceinline__ T block_reduce(T x, T* scratch) {
  x = warp_reduce<Op>(x);
  if (threads == 32) return x;
  __syncthreads();  // the scratch of the reduction before has been read
  if (threadIdx.x % 32 == 0) scratch[threadIdx.x / 32] = x;
  __syncthreads();
  x = scratch[0];
#pragma unroll
  for (int warp = 1; warp < threads / 32; ++warp) x = Op::combine(x, scratch[warp]);
  return x;
}

// ---- faults

// Leaves the first position whose value cannot be used, and the value; see engine/cuda/faults.h.
__device__ __forceinline__ void report_fault(uint64_t* fault, int64_t position, int32_t value) {
  atomicMin(fault, uint64_t(position) << 32 | uint32_t(value));
}

// ---- Philox 4x32-10, as engine/base/philox.h

// The four words of a block: elements 4 block to 4 block + 3.
__device__ __forceinline__ Vector<uint32_t, 4> philox_block(uint64_t block, uint64_t stream, uint32_t key0,
                                                            uint32_t key1) {
  uint32_t c0 = uint32_t(block), c1 = uint32_t(block >> 32), c2 = uint32_t(stream),
           c3 = uint32_t(stream >> 32);
#pragma unroll
  for (int round = 0; round < 10; ++round) {
    const uint32_t high0 = __umulhi(0xD2511F53u, c0), low0 = 0xD2511F53u * c0;
    const uint32_t high1 = __umulhi(0xCD9E8D57u, c2), low1 = 0xCD9E8D57u * c2;
    c0 = high1 ^ c1 ^ key0;
    c1 = low1;
    c2 = high0 ^ c3 ^ key1;
    c3 = low0;
    key0 += 0x9E3779B9u;
    key1 += 0xBB67AE85u;
  }
  return {{c0, c1, c2, c3}};
}

__device__ __forceinline__ uint32_t philox_word(uint64_t index, uint64_t stream, uint32_t key0,
                                                uint32_t key1) {
  const Vector<uint32_t, 4> block = philox_block(index / 4, stream, key0, key1);
  const uint32_t lane = uint32_t(index % 4);  // an index would send the words through memory
  return lane == 0   ? block.items[0]
         : lane == 1 ? block.items[1]
         : lane == 2 ? block.items[2]
                     : block.items[3];
}

}  // namespace nf::cuda
