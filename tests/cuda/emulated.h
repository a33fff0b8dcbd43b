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

// What all lanes of a warp do together. Memory is ordered by the first alone.
enum EmulatedCollective : unsigned { kSyncWarp, kShuffle, kBallot, kMatch, kProduct, kLoadMatrices };

#pragma GCC visibility push(default)
extern "C" {
Dim nf_emulated_thread();
Dim nf_emulated_block();
Dim nf_emulated_block_size();
Dim nf_emulated_grid_size();
unsigned char* nf_emulated_dynamic_shared();
void nf_emulated_barrier();
// Gives `bytes` (at most 16) of this lane to its warp; returns the 32 lanes' parts, 16 bytes apart, valid
// until the warp's exchange after the next.
const unsigned char* nf_emulated_exchange(EmulatedCollective kind, unsigned mask, const void* mine,
                                          unsigned bytes);
void nf_emulated_read(const void* address, unsigned bytes);
void nf_emulated_write(const void* address, unsigned bytes);
void nf_emulated_atomic(const void* address, unsigned bytes);
void nf_emulated_misaligned(const void* address, unsigned bytes);
void nf_emulated_copy(void* to, const void* from, unsigned bytes, bool valid);  // at most 16
void nf_emulated_commit();
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
#pragma GCC visibility pop

#define threadIdx (nf_emulated_thread())
#define blockIdx (nf_emulated_block())
#define blockDim (nf_emulated_block_size())
#define gridDim (nf_emulated_grid_size())

// Kernels are compiled with the compiler's sanitizers, whose calls go to the emulator: before every access,
// and where an address is not aligned as its type says. What the emulator's own parts below do is none of its
// business.
#define NF_UNFILLED __attribute__((uninitialized))  // spared the garbage that arrays begin with
#define NF_UNWATCHED __attribute__((no_sanitize("thread", "alignment")))
#define NF_VISIBLE __attribute__((visibility("default")))
#if defined(NF_WATCHED)
#define NF_HOOK extern "C" __attribute__((used, no_sanitize("thread", "alignment")))
#define NF_HOOKS(bytes)                                                              \
  NF_HOOK void __tsan_read##bytes(void* p) { nf_emulated_read(p, bytes); }           \
  NF_HOOK void __tsan_write##bytes(void* p) { nf_emulated_write(p, bytes); }         \
  NF_HOOK void __tsan_unaligned_read##bytes(void* p) { nf_emulated_read(p, bytes); } \
  NF_HOOK void __tsan_unaligned_write##bytes(void* p) { nf_emulated_write(p, bytes); }
NF_HOOKS(1)
NF_HOOKS(2)
NF_HOOKS(4)
NF_HOOKS(8)
NF_HOOKS(16)
NF_HOOK void __tsan_read_range(void* p, unsigned long bytes) { nf_emulated_read(p, unsigned(bytes)); }
NF_HOOK void __tsan_write_range(void* p, unsigned long bytes) { nf_emulated_write(p, unsigned(bytes)); }
NF_HOOK void* __tsan_memcpy(void* to, const void* from, unsigned long bytes) {
  nf_emulated_read(from, unsigned(bytes));
  nf_emulated_write(to, unsigned(bytes));
  return std::memcpy(to, from, bytes);
}
NF_HOOK void* __tsan_memset(void* to, int value, unsigned long bytes) {
  nf_emulated_write(to, unsigned(bytes));
  return std::memset(to, value, bytes);
}
NF_HOOK void __tsan_func_entry(void*) {}
NF_HOOK void __tsan_func_exit(void*) {}
NF_HOOK void __tsan_init() {}
// What the compiler tells of an access: as libubsan's TypeMismatchData.
struct EmulatedMismatch {
  const char* file;
  unsigned line, column;
  const void* type;
  unsigned char log_alignment, kind;
};
NF_HOOK void __ubsan_handle_type_mismatch_v1(void* what, void* address) {
  nf_emulated_misaligned(address, 1u << static_cast<EmulatedMismatch*>(what)->log_alignment);
}

// The library's own data: static shared memory.
extern "C" __attribute__((visibility("hidden"))) unsigned char __bss_start, _end;
extern "C" NF_UNWATCHED NF_VISIBLE unsigned char* nf_emulated_static_shared(unsigned long* bytes) {
  *bytes = static_cast<unsigned long>(&_end - &__bss_start);
  return &__bss_start;
}
#endif

inline unsigned char* dynamic_shared() { return nf_emulated_dynamic_shared(); }
inline void __syncthreads() { nf_emulated_barrier(); }
inline void __syncwarp(unsigned mask = ~0u) { nf_emulated_exchange(kSyncWarp, mask, nullptr, 0); }
inline void __threadfence() {}

template <typename T>
NF_UNWATCHED T nf_emulated_lane(unsigned mask, T value, unsigned lane) {
  T result;
  std::memcpy(&result, nf_emulated_exchange(kShuffle, mask, &value, sizeof value) + 16 * lane, sizeof result);
  return result;
}
inline unsigned nf_emulated_own_lane() { return nf_emulated_thread().x % 32; }
template <typename T>
T __shfl_sync(unsigned mask, T value, int lane) {
  return nf_emulated_lane(mask, value, unsigned(lane) % 32);
}
template <typename T>
T __shfl_xor_sync(unsigned mask, T value, int lanes) {
  return nf_emulated_lane(mask, value, nf_emulated_own_lane() ^ unsigned(lanes));
}
template <typename T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta) {
  const unsigned lane = nf_emulated_own_lane();
  return nf_emulated_lane(mask, value, lane >= delta ? lane - delta : lane);
}
template <typename T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta) {
  const unsigned lane = nf_emulated_own_lane();
  return nf_emulated_lane(mask, value, lane + delta < 32 ? lane + delta : lane);
}
NF_UNWATCHED inline unsigned __ballot_sync(unsigned mask, bool predicate) {
  const unsigned char mine = predicate;
  const unsigned char* all = nf_emulated_exchange(kBallot, mask, &mine, 1);
  unsigned result = 0;
  for (unsigned lane = 0; lane < 32; ++lane) result |= unsigned(all[16 * lane]) << lane;
  return result;
}
inline bool __any_sync(unsigned mask, bool predicate) { return __ballot_sync(mask, predicate) != 0; }
inline bool __all_sync(unsigned mask, bool predicate) { return __ballot_sync(mask, predicate) == ~0u; }
NF_UNWATCHED inline unsigned __match_any_sync(unsigned mask, int value) {
  const unsigned char* all = nf_emulated_exchange(kMatch, mask, &value, sizeof value);
  unsigned result = 0;
  for (unsigned lane = 0; lane < 32; ++lane)
    result |= unsigned(std::memcmp(all + 16 * lane, &value, sizeof value) == 0) << lane;
  return result;
}
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __ffs(unsigned x) { return __builtin_ffs(int(x)); }

// Nothing is watched, hence no fiber switched, within these.
template <typename T>
NF_UNWATCHED T atomicAdd(T* address, T value) {
  nf_emulated_atomic(address, sizeof(T));
  const T old = *address;
  *address += value;
  return old;
}
template <typename T>
NF_UNWATCHED T atomicMin(T* address, T value) {
  nf_emulated_atomic(address, sizeof(T));
  const T old = *address;
  if (value < old) *address = value;
  return old;
}
template <typename T>
NF_UNWATCHED T atomicMax(T* address, T value) {
  nf_emulated_atomic(address, sizeof(T));
  const T old = *address;
  if (value > old) *address = value;
  return old;
}

template <typename To, typename From>
To nf_emulated_bits(From value) {
  return __builtin_bit_cast(To, value);
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
// As CUDA documents it: a divisor above 2^126 counts as infinite.
inline float __fdividef(float a, float b) { return std::fabs(b) > 0x1p126f ? a * 0.0f : a / b; }
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

NF_UNWATCHED inline float nf_emulated_half(uint32_t pair, unsigned high) {
  return __builtin_bit_cast(float, high ? pair & 0xFFFF0000u : pair << 16);
}
NF_UNWATCHED inline void mma_bf16(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  NF_UNFILLED uint32_t as[32][4], bs[32][2];
  const unsigned char* all = nf_emulated_exchange(kProduct, ~0u, a, 16);
  for (unsigned lane = 0; lane < 32; ++lane) std::memcpy(as[lane], all + 16 * lane, 16);
  all = nf_emulated_exchange(kProduct, ~0u, b, 8);
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
NF_UNWATCHED inline void nf_emulated_load_matrices(uint32_t (&matrices)[4], const void* row,
                                                   bool transposed) {
  NF_UNFILLED const void* rows[32];
  if (uintptr_t(row) % 16 != 0) nf_emulated_misaligned(row, 16);
  nf_emulated_read(row, 16);
  const unsigned char* all = nf_emulated_exchange(kLoadMatrices, ~0u, &row, sizeof row);
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
  nf_emulated_exchange(kLoadMatrices, ~0u, nullptr, 0);  // nobody overwrites the rows amid this
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
