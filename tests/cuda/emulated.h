// CUDA's language for the host: what a kernel of engine/cuda/kernels finds when the tests compile it with
// NF_EMULATED. Threads are fibers of the emulator (emulator.h), which supplies the nf_emulated_ functions.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

#define __global__
#define __device__
#define __host__
#define __constant__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __grid_constant__
#define __shared__ static  // blocks run one after another
#define __restrict__

struct Dim {
  unsigned x, y, z;
};
struct EmulatedThread {
  Dim thread, block, block_size, grid_size;
  unsigned char* dynamic_shared;
};

extern "C" {
EmulatedThread* nf_emulated_thread();
void nf_emulated_barrier();
// Gives `bytes` (at most 16) of this lane to its warp; returns the 32 lanes' parts, 16 bytes apart, valid
// until the warp's exchange after the next.
const unsigned char* nf_emulated_exchange(const void* mine, unsigned bytes);
void nf_emulated_copy(void* to, const void* from, unsigned bytes, bool valid);  // at most 16
void nf_emulated_commit();
void nf_emulated_aligned(const void* address, unsigned bytes);  // else throws, as a GPU faults
void nf_emulated_wait(int pending);
void nf_emulated_multiply(float* sum, unsigned columns, const uint32_t* registers, uint64_t left,
                          uint64_t right, bool right_by_rows, bool accumulate);
void nf_emulated_fence_products();
void nf_emulated_commit_products();
void nf_emulated_wait_products(int pending);
void nf_emulated_fence_shared();
void nf_emulated_begin_phases(uint64_t* barrier, int arrivals);
void nf_emulated_arrive(uint64_t* barrier, bool after_copies);
void nf_emulated_wait_phase(const uint64_t* barrier, uint32_t parity);
void nf_emulated_sync_threads(int barrier, int threads);
void nf_emulated_arrive_threads(int barrier, int threads);
uint16_t nf_emulated_to_f16(float x);
float nf_emulated_from_f16(uint16_t bits);
}

#define threadIdx (nf_emulated_thread()->thread)
#define blockIdx (nf_emulated_thread()->block)
#define blockDim (nf_emulated_thread()->block_size)
#define gridDim (nf_emulated_thread()->grid_size)

inline unsigned char* dynamic_shared() { return nf_emulated_thread()->dynamic_shared; }
inline void __syncthreads() { nf_emulated_barrier(); }
inline void __syncwarp(unsigned = ~0u) { nf_emulated_exchange(nullptr, 0); }
inline void __threadfence() {}

template <typename T>
T nf_emulated_lane(T value, unsigned lane) {
  T result;
  std::memcpy(&result, nf_emulated_exchange(&value, sizeof value) + 16 * lane, sizeof result);
  return result;
}
inline unsigned nf_emulated_own_lane() { return nf_emulated_thread()->thread.x % 32; }
template <typename T>
T __shfl_sync(unsigned, T value, int lane) {
  return nf_emulated_lane(value, unsigned(lane) % 32);
}
template <typename T>
T __shfl_xor_sync(unsigned, T value, int mask) {
  return nf_emulated_lane(value, nf_emulated_own_lane() ^ unsigned(mask));
}
template <typename T>
T __shfl_up_sync(unsigned, T value, unsigned delta) {
  const unsigned lane = nf_emulated_own_lane();
  return nf_emulated_lane(value, lane >= delta ? lane - delta : lane);
}
template <typename T>
T __shfl_down_sync(unsigned, T value, unsigned delta) {
  const unsigned lane = nf_emulated_own_lane();
  return nf_emulated_lane(value, lane + delta < 32 ? lane + delta : lane);
}
inline unsigned __ballot_sync(unsigned, bool predicate) {
  const unsigned char mine = predicate;
  const unsigned char* all = nf_emulated_exchange(&mine, 1);
  unsigned result = 0;
  for (unsigned lane = 0; lane < 32; ++lane) result |= unsigned(all[16 * lane]) << lane;
  return result;
}
inline bool __any_sync(unsigned mask, bool predicate) { return __ballot_sync(mask, predicate) != 0; }
inline bool __all_sync(unsigned mask, bool predicate) { return __ballot_sync(mask, predicate) == ~0u; }
inline unsigned __match_any_sync(unsigned, int value) {
  const unsigned char* all = nf_emulated_exchange(&value, sizeof value);
  unsigned result = 0;
  for (unsigned lane = 0; lane < 32; ++lane)
    result |= unsigned(std::memcmp(all + 16 * lane, &value, sizeof value) == 0) << lane;
  return result;
}
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __ffs(unsigned x) { return __builtin_ffs(int(x)); }

// Fibers switch at collectives alone, so these are atomic.
template <typename T>
T atomicAdd(T* address, T value) {
  const T old = *address;
  *address += value;
  return old;
}
template <typename T>
T atomicMin(T* address, T value) {
  const T old = *address;
  if (value < old) *address = value;
  return old;
}
template <typename T>
T atomicMax(T* address, T value) {
  const T old = *address;
  if (value > old) *address = value;
  return old;
}

template <typename To, typename From>
To nf_emulated_bits(From value) {
  static_assert(sizeof(To) == sizeof(From));
  To result;
  std::memcpy(&result, &value, sizeof result);
  return result;
}
inline float __uint_as_float(unsigned x) { return nf_emulated_bits<float>(x); }
inline unsigned __float_as_uint(float x) { return nf_emulated_bits<unsigned>(x); }
inline float __int_as_float(int x) { return nf_emulated_bits<float>(x); }
inline int __float_as_int(float x) { return nf_emulated_bits<int>(x); }
inline unsigned __umulhi(unsigned a, unsigned b) { return unsigned((uint64_t(a) * b) >> 32); }
template <typename T>
T __ldg(const T* from) {
  return *from;
}
inline float rsqrtf(float x) { return 1.0f / std::sqrt(x); }
inline float __frcp_rn(float x) { return 1.0f / x; }
inline float __fdividef(float a, float b) { return a / b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fadd_rn(float a, float b) { return a + b; }
inline int min(int a, int b) { return a < b ? a : b; }
inline int max(int a, int b) { return a > b ? a : b; }
inline int64_t min(int64_t a, int64_t b) { return a < b ? a : b; }
inline int64_t max(int64_t a, int64_t b) { return a > b ? a : b; }

// ---- device.cuh

inline uint16_t nf_emulated_to_bf16(float x) {
  uint32_t bits = __float_as_uint(x);
  if (x != x) return 0x7FFF;  // as cvt.rn.bf16.f32
  bits += 0x7FFF + ((bits >> 16) & 1);
  return uint16_t(bits >> 16);
}
inline uint32_t pack_bf16(float low, float high) {
  return uint32_t(nf_emulated_to_bf16(low)) | uint32_t(nf_emulated_to_bf16(high)) << 16;
}
inline float fast_exp2(float x) { return std::exp2(x); }

// ---- tensor_core.cuh: a lane computes its part from what all lanes gave

inline float nf_emulated_half(uint32_t pair, unsigned high) {
  return __uint_as_float(high ? pair & 0xFFFF0000u : pair << 16);
}
inline void mma_bf16(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  uint32_t as[32][4], bs[32][2];
  const unsigned char* all = nf_emulated_exchange(a, 16);
  for (unsigned lane = 0; lane < 32; ++lane) std::memcpy(as[lane], all + 16 * lane, 16);
  all = nf_emulated_exchange(b, 8);
  for (unsigned lane = 0; lane < 32; ++lane) std::memcpy(bs[lane], all + 16 * lane, 8);
  const unsigned lane = nf_emulated_own_lane();
  for (unsigned i = 0; i < 4; ++i) {
    const unsigned row = lane / 4, below = i / 2, column = 2 * (lane % 4) + i % 2;
    float sum = 0;
    for (unsigned k = 0; k < 16; ++k) {
      const float x = nf_emulated_half(as[4 * row + k % 8 / 2][below + 2 * (k / 8)], k % 2);
      const float y = nf_emulated_half(bs[4 * column + k % 8 / 2][k / 8], k % 2);
      sum += x * y;
    }
    c[i] += sum;
  }
}
inline void nf_emulated_load_matrices(uint32_t (&matrices)[4], const void* row, bool transposed) {
  const void* rows[32];
  const unsigned char* all = nf_emulated_exchange(&row, sizeof row);
  for (unsigned lane = 0; lane < 32; ++lane) std::memcpy(&rows[lane], all + 16 * lane, sizeof row);
  const unsigned lane = nf_emulated_own_lane();
  for (unsigned matrix = 0; matrix < 4; ++matrix) {
    uint16_t pair[2];
    for (unsigned i = 0; i < 2; ++i) {
      const unsigned r = transposed ? 2 * (lane % 4) + i : lane / 4,
                     c = transposed ? lane / 4 : 2 * (lane % 4) + i;
      pair[i] = static_cast<const uint16_t*>(rows[8 * matrix + r])[c];
    }
    matrices[matrix] = pair[0] | uint32_t(pair[1]) << 16;
  }
  __syncwarp();  // nobody overwrites the rows while another lane reads them
}
inline void load_matrices(uint32_t (&matrices)[4], const void* row) {
  nf_emulated_load_matrices(matrices, row, false);
}
inline void load_matrices_transposed(uint32_t (&matrices)[4], const void* row) {
  nf_emulated_load_matrices(matrices, row, true);
}
inline void copy_async(void* to, const void* from, bool valid) { nf_emulated_copy(to, from, 16, valid); }
inline void copy_word_async(void* to, const void* from, bool valid) { nf_emulated_copy(to, from, 4, valid); }
inline void commit_copies() { nf_emulated_commit(); }
template <int pending>
void wait_copies() {
  nf_emulated_wait(pending);
}

// ---- warpgroup.cuh; addresses of shared memory are relative to the dynamic part

inline uint32_t shared_address(const void* pointer) {
  return uint32_t(static_cast<const unsigned char*>(pointer) - dynamic_shared());
}
template <auto b_major, int tiles>
void multiply_async(float (&d)[tiles][4], uint64_t a, uint64_t b, bool accumulate) {
  nf_emulated_multiply(&d[0][0], 8 * tiles, nullptr, a, b, int(b_major) != 0, accumulate);
}
template <auto b_major, int tiles>
void multiply_async(float (&d)[tiles][4], const uint32_t (&a)[4], uint64_t b, bool accumulate) {
  nf_emulated_multiply(&d[0][0], 8 * tiles, a, 0, b, int(b_major) != 0, accumulate);
}
inline void fence_products() { nf_emulated_fence_products(); }
inline void commit_products() { nf_emulated_commit_products(); }
template <int pending>
void wait_products() {
  nf_emulated_wait_products(pending);
}
inline void pin_register(float&) {}
inline void pin_register(uint32_t&) {}
inline void fence_shared_for_products() { nf_emulated_fence_shared(); }
inline void begin_phases(uint64_t* barrier, int arrivals) { nf_emulated_begin_phases(barrier, arrivals); }
inline void arrive(uint64_t* barrier) { nf_emulated_arrive(barrier, false); }
inline void arrive_after_copies(uint64_t* barrier) { nf_emulated_arrive(barrier, true); }
inline void wait_phase(uint64_t* barrier, uint32_t parity) { nf_emulated_wait_phase(barrier, parity); }
inline void sync_threads(int barrier, int threads) { nf_emulated_sync_threads(barrier, threads); }
inline void arrive_threads(int barrier, int threads) { nf_emulated_arrive_threads(barrier, threads); }
template <int registers>
void take_registers() {}
template <int registers>
void leave_registers() {}
