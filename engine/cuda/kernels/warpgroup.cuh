// Tensor cores as sm_90a drives them: a warpgroup (four warps, threads 128 i to 128 i + 127) multiplies
// matrices that lie in shared memory, while its threads go on. First one function per instruction (PTX
// ISA 8.0, "Asynchronous warpgroup level matrix instructions", "mbarrier", "setmaxnreg"), then tiles of
// shared memory in the layout that these read. The host versions are in the tests' emulated.h.
#pragma once

#include "tensor_core.cuh"

namespace nf::cuda {

// How the right factor, K x N, lies in shared memory: each row or each column is contiguous.
enum class Major { column, row };

}  // namespace nf::cuda

#ifndef NF_EMULATED

namespace nf::cuda {

// ---- products: d (64 x 64 or 64 x 128, f32) = a (64 x 16, bf16) b (16 x N, bf16), + d if `accumulate`
//
// Warp i of the warpgroup holds rows 16 i to 16 i + 15 of d and of an `a` in registers, in the layout of
// mma_bf16's; other factors are matrix descriptors. Products are asynchronous: from multiply_async until
// wait_products, nobody touches d and `a` (and what the descriptors name is not overwritten). All threads of
// a warpgroup call these together.

// The operands of d: 32 or 64 numbers.
#define NF_ROW(d, j) "+f"(d[j][0]), "+f"(d[j][1]), "+f"(d[j][2]), "+f"(d[j][3])
#define NF_SUMS_32(d)                                                                               \
  NF_ROW(d, 0), NF_ROW(d, 1), NF_ROW(d, 2), NF_ROW(d, 3), NF_ROW(d, 4), NF_ROW(d, 5), NF_ROW(d, 6), \
      NF_ROW(d, 7)
#define NF_SUMS_64(d)                                                                                    \
  NF_SUMS_32(d), NF_ROW(d, 8), NF_ROW(d, 9), NF_ROW(d, 10), NF_ROW(d, 11), NF_ROW(d, 12), NF_ROW(d, 13), \
      NF_ROW(d, 14), NF_ROW(d, 15)
#define NF_NAMES_32                                                                                      \
  "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, " \
  "%22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define NF_NAMES_64                                                                         \
  NF_NAMES_32                                                                               \
  ", %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, %48, " \
  "%49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"

template <Major b_major>
__device__ __forceinline__ void multiply_async(float (&d)[8][4], uint64_t a, uint64_t b, bool accumulate) {
  asm volatile(
      "{.reg .pred p; setp.ne.b32 p, %34, 0; "
      "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {" NF_NAMES_32 "}, %32, %33, p, 1, 1, 0, %35;}"
      : NF_SUMS_32(d)
      : "l"(a), "l"(b), "r"(int(accumulate)), "n"(int(b_major)));
}
template <Major b_major>
__device__ __forceinline__ void multiply_async(float (&d)[8][4], const uint32_t (&a)[4], uint64_t b,
                                               bool accumulate) {
  asm volatile(
      "{.reg .pred p; setp.ne.b32 p, %37, 0; "
      "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {" NF_NAMES_32
      "}, {%32, %33, %34, %35}, %36, p, 1, 1, %38;}"
      : NF_SUMS_32(d)
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(int(accumulate)), "n"(int(b_major)));
}
template <Major b_major>
__device__ __forceinline__ void multiply_async(float (&d)[16][4], uint64_t a, uint64_t b, bool accumulate) {
  asm volatile(
      "{.reg .pred p; setp.ne.b32 p, %66, 0; "
      "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {" NF_NAMES_64 "}, %64, %65, p, 1, 1, 0, %67;}"
      : NF_SUMS_64(d)
      : "l"(a), "l"(b), "r"(int(accumulate)), "n"(int(b_major)));
}
template <Major b_major>
__device__ __forceinline__ void multiply_async(float (&d)[16][4], const uint32_t (&a)[4], uint64_t b,
                                               bool accumulate) {
  asm volatile(
      "{.reg .pred p; setp.ne.b32 p, %69, 0; "
      "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {" NF_NAMES_64
      "}, {%64, %65, %66, %67}, %68, p, 1, 1, %70;}"
      : NF_SUMS_64(d)
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(int(accumulate)), "n"(int(b_major)));
}

#undef NF_ROW
#undef NF_SUMS_32
#undef NF_SUMS_64
#undef NF_NAMES_32
#undef NF_NAMES_64

// Before the first product, and before those that follow other uses of their registers.
__device__ __forceinline__ void fence_products() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
// Closes a group of products.
__device__ __forceinline__ void commit_products() {
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
// Waits until at most `pending` groups are under way.
template <int pending>
__device__ __forceinline__ void wait_products() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(pending) : "memory");
}
// The compiler moves no use of this register across.
__device__ __forceinline__ void pin_register(float& x) { asm volatile("" : "+f"(x)::"memory"); }
__device__ __forceinline__ void pin_register(uint32_t& x) { asm volatile("" : "+r"(x)::"memory"); }

// What threads (copies of theirs, too) wrote to shared memory, and this one knows of, is there for the
// products that this thread takes part in.
__device__ __forceinline__ void fence_shared_for_products() {
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

// ---- phases: a barrier in shared memory that counts arrivals; at the last of `arrivals` a phase ends and
// the next begins. Phases have parities 0, 1, 0, …

__device__ __forceinline__ void begin_phases(uint64_t* barrier, int arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(barrier)), "r"(arrivals)
               : "memory");
}
__device__ __forceinline__ void arrive(uint64_t* barrier) {
  asm volatile(
      "{.reg .b64 state; mbarrier.arrive.shared::cta.b64 state, [%0];}" ::"r"(shared_address(barrier))
      : "memory");
}
// Arrives as soon as all copies that this thread has begun are done.
__device__ __forceinline__ void arrive_after_copies(uint64_t* barrier) {
  asm volatile("cp.async.mbarrier.arrive.noinc.shared::cta.b64 [%0];" ::"r"(shared_address(barrier))
               : "memory");
}
// Waits until the latest phase of that parity has ended; before the first, that of parity 1 has.
__device__ __forceinline__ void wait_phase(uint64_t* barrier, uint32_t parity) {
  uint32_t is_over = 0;
  while (is_over == 0)
    asm volatile("{.reg .pred p; mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2; selp.u32 %0, 1, 0, p;}"
                 : "=r"(is_over)
                 : "r"(shared_address(barrier)), "r"(parity)
                 : "memory");
}

// ---- threads

// A barrier of some of the block's threads; `barrier` is 1 to 15.
__device__ __forceinline__ void sync_threads(int barrier, int threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(barrier), "r"(threads) : "memory");
}
// Counts as one of them, and goes on.
__device__ __forceinline__ void arrive_threads(int barrier, int threads) {
  asm volatile("bar.arrive %0, %1;" ::"r"(barrier), "r"(threads) : "memory");
}
// Gives the warpgroup so many registers per thread: takes from, or leaves to, those of the block's others.
template <int registers>
__device__ __forceinline__ void take_registers() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(registers));
}
template <int registers>
__device__ __forceinline__ void leave_registers() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(registers));
}

}  // namespace nf::cuda

#endif

namespace nf::cuda {

constexpr int kWarpgroup = 128;  // threads

// ---- registers of products under way

template <int tiles, int count, typename T>
__device__ __forceinline__ void pin(T (&x)[tiles][count]) {
#pragma unroll
  for (int i = 0; i < tiles; ++i)
#pragma unroll
    for (int e = 0; e < count; ++e) pin_register(x[i][e]);
}
// Before products that use these.
template <typename... Registers>
__device__ __forceinline__ void begin_products(Registers&... registers) {
  (pin(registers), ...);
  fence_products();
}
// Waits until at most `pending` groups are under way; these are results of the others.
template <int pending, typename... Registers>
__device__ __forceinline__ void finish_products(Registers&... registers) {
  wait_products<pending>();
  (pin(registers), ...);
}

// ---- tiles of bf16 in shared memory: panels of 64 columns, whose rows of 128 bytes lie one below the other.
// The 16-byte pieces of a row change places by the row's number (a swizzle of 128 bytes), so that both the
// rows and the columns of 8 x 8 elements lie in different banks. One layout serves either Major.

template <int height, int width>
struct Panels {
  static_assert(height % 8 == 0 && width % 64 == 0, "whole swizzles");
  static constexpr int kHeight = height, kWidth = width;
  static constexpr int kPanelBytes = height * 128, kBytes = width / 64 * kPanelBytes;

  unsigned char* data;  // aligned to 1024 bytes

  // The 16 bytes from `column`, a multiple of 8, on.
  __device__ __forceinline__ unsigned char* piece(int row, int column) const {
    return data + column / 64 * kPanelBytes + row * 128 + (column / 8 ^ row) % 8 * 16;
  }
  // Row `row`, a multiple of 8, in the units of matrix descriptors, and how far from it others are.
  __device__ __forceinline__ uint32_t start(int row) const { return (shared_address(data) + row * 128) / 16; }
  static constexpr uint32_t to_column(int column) {
    return (column / 64 * kPanelBytes + column % 64 * 2) / 16;
  }
  static constexpr uint32_t to_row(int row) { return row * 128 / 16; }
};

// Matrix descriptor of what starts there in swizzled panels, `panel_bytes` apart if the product reads
// several.
__device__ __forceinline__ uint64_t panels_from(uint32_t start, int panel_bytes) {
  constexpr uint32_t kEightRows = 8 * 128 / 16, kSwizzle128 = 1u << 30;
  return uint64_t(kEightRows | kSwizzle128) << 32 | (start | uint32_t(panel_bytes / 16) << 16);
}

// Begins to copy rows of global memory, `stride` elements apart, into a tile: those from `first` on; zeros
// for rows from `end` on and columns from `width` on. Rows and their starts are multiples of 16 bytes. All
// threads of a warpgroup call it.
template <typename Tile>
__device__ __forceinline__ void load_panels(const Tile& tile, const bf16* from, int64_t stride, int first,
                                            int end, int width) {
  constexpr int kStep = kWarpgroup / 8;  // a thread keeps to its columns; a row has the same swizzle 8 below
  static_assert(Tile::kHeight % kStep == 0 && kStep % 8 == 0, "rows of equal swizzle");
  const int top = threadIdx.x % kWarpgroup / 8, left = threadIdx.x % 8 * 8;
#pragma unroll
  for (int panel = 0; panel < Tile::kWidth; panel += 64) {
    const bool inside = panel + left < width;
    unsigned char* to = tile.piece(top, panel + left);
    const bf16* source = from + (first + top) * stride + panel + left;
#pragma unroll 4
    for (int row = top; row < Tile::kHeight; row += kStep, to += kStep * 128, source += kStep * stride) {
      const bool valid = inside && first + row < end;
      copy_async(to, valid ? source : from, valid);
    }
  }
}

// Starts are pinned so that the compiler adds to them where it needs others, and does not keep all in
// registers.

// c (64 x the rows of b) = rows of a, from `row` on, times those of b: over their first `width` columns.
template <int width, int tiles, typename Left, typename Right>
__device__ __forceinline__ void multiply_rows(float (&c)[tiles][4], const Left& a, int row, const Right& b) {
  static_assert(tiles * 8 == Right::kHeight, "a column per row of b");
  constexpr int kOnePanel = 16;  // bytes, not read
  uint32_t left = a.start(row), right = b.start(0);
  pin_register(left);
  pin_register(right);
#pragma unroll
  for (int k = 0; k < width; k += 16)
    multiply_async<Major::column>(c, panels_from(left + Left::to_column(k), kOnePanel),
                                  panels_from(right + Right::to_column(k), kOnePanel), k > 0);
}
// c (64 x the width of b) += a b, a (64 x the rows of b) in registers.
template <int tiles, int steps, typename Right>
__device__ __forceinline__ void multiply_columns(float (&c)[tiles][4], const uint32_t (&a)[steps][4],
                                                 const Right& b) {
  static_assert(tiles * 8 == Right::kWidth && steps * 16 == Right::kHeight, "all of b");
  uint32_t right = b.start(0);
  pin_register(right);
#pragma unroll
  for (int k = 0; k < steps; ++k)
    multiply_async<Major::row>(c, a[k], panels_from(right + Right::to_row(16 * k), Right::kPanelBytes), true);
}
template <int steps, int tiles>
__device__ __forceinline__ void pack_left(uint32_t (&a)[steps][4], const float (&c)[tiles][4]) {
#pragma unroll
  for (int k = 0; k < steps; ++k) pack_left(a[k], c, k);
}

// ---- a ring of buffers that the threads of one warpgroup fill by copies and warps of others read. Each
// thread walks round it by itself.

template <int buffers>
struct Ring {
  uint64_t* phases;  // in shared memory: for each buffer, that it is full, that it is empty
  int buffer = 0;
  uint32_t parity = 0;

  static constexpr int kPhases = 2 * buffers;

  __device__ __forceinline__ explicit Ring(uint64_t* phases) : phases(phases) {}

  // By one thread, before a barrier of the block. `readers`: warps; `more`: arrivals that are no copies.
  __device__ __forceinline__ void begin(int readers, int more = 0) const {
    for (int i = 0; i < buffers; ++i) {
      begin_phases(phases + 2 * i, kWarpgroup + more);
      begin_phases(phases + 2 * i + 1, readers);
    }
  }
  __device__ __forceinline__ void advance() {
    buffer = buffer + 1 == buffers ? 0 : buffer + 1;
    parity ^= buffer == 0;
  }

  __device__ __forceinline__ void wait_empty() const { wait_phase(phases + 2 * buffer + 1, parity ^ 1); }
  __device__ __forceinline__ uint64_t* full() const { return phases + 2 * buffer; }
  // The copies that fill the buffer have been begun.
  __device__ __forceinline__ void filled() {
    arrive_after_copies(full());
    advance();
  }

  // All that was copied has been read: a thread stays until its copies are done.
  __device__ __forceinline__ void drain() {
    for (int i = 0; i < buffers; ++i) {
      wait_empty();
      advance();
    }
  }

  // Then products may read it.
  __device__ __forceinline__ void wait_full() const {
    wait_phase(full(), parity);
    fence_shared_for_products();
  }
  // The warp has read it.
  __device__ __forceinline__ void release() {
    release(buffer);
    advance();
  }
  // The warp has read the one before.
  __device__ __forceinline__ void release_last() const { release(buffer == 0 ? buffers - 1 : buffer - 1); }

 private:
  __device__ __forceinline__ void release(int which) const {
    __syncwarp();
    if (threadIdx.x % 32 == 0) arrive(phases + 2 * which + 1);
  }
};

}  // namespace nf::cuda
