// What attention's kernels for sm_90a share. A block has one warpgroup that copies tiles into rings of
// buffers, and `readers` that each hold 64 rows and walk over the tiles; it stays for many lots of rows.
#pragma once

#include "attention_common.cuh"
#include "warpgroup.cuh"

namespace nf::cuda {

// Calls visit(number) for each of the block's lots of a grid's `count`: in rounds of one per block, every
// other one backwards, so that blocks get as much to do as each other when the lots grow or shrink steadily.
template <typename Visit>
__device__ __forceinline__ void for_each_lot(int count, const Visit& visit) {
  const int blocks = gridDim.x;
  for (int round = 0; round * blocks < count; ++round) {
    const int lot = round * blocks + (round % 2 == 0 ? int(blockIdx.x) : blocks - 1 - int(blockIdx.x));
    if (lot < count) visit(lot);
  }
}

// The warpgroup that copies, as a team.
struct Filler {
  static constexpr int kThreads = kWarpgroup;
  static __device__ __forceinline__ int thread() { return threadIdx.x; }
  static __device__ __forceinline__ void sync() { sync_threads(1, kThreads); }
};

// Where lot `number` stands. The heads of all batches are cut into sections of `section` heads, whose rows
// the GPU's cache holds together while blocks walk over them again and again. A section's lots are in the
// order of how much there is to do, over all of its heads, so that the rounds of for_each_lot give every
// block as much; every other section begins with the least, where the one before ended. The last one ends
// with it.
struct LotPlace {
  int head, rank;  // the lots of a head have ranks from 0, the one with most to do, on

  __device__ __forceinline__ LotPlace(int number, int tiles, int heads, int section) {
    const int at = number / tiles / section, sections = (heads + section - 1) / section,
              first_head = at * section, width = min(section, heads - first_head),
              place = number - first_head * tiles;
    head = first_head + place % width;
    rank = (sections - at) % 2 == 1 ? place / width : tiles - 1 - place / width;
  }
};

// Warpgroups that take turns, all of them equally often: what one does between wait and pass no other does
// meanwhile.
template <int count>
struct ReaderTurns {
  static constexpr int kFirstBarrier = 2, kThreads = 2 * kWarpgroup;  // of who passes and who waits

  // Of the block's warpgroups 1 to `count`.
  static __device__ __forceinline__ int mine() { return int(threadIdx.x) / kWarpgroup - 1; }
  static __device__ __forceinline__ void wait() { sync_threads(kFirstBarrier + mine(), kThreads); }
  static __device__ __forceinline__ void pass() { pass_to(mine() + 1 == count ? 0 : mine() + 1); }
  // The first turn is the first one's, and nobody takes the one that is left.
  static __device__ __forceinline__ void begin() {
    if (mine() == 0) pass_to(0);
  }
  static __device__ __forceinline__ void end() {
    if (mine() == 0) wait();
  }

 private:
  static __device__ __forceinline__ void pass_to(int next) { arrive_threads(kFirstBarrier + next, kThreads); }
};

// A lot of `rows` queries of a head.
struct QueryLot {
  int batch, head, kv_head, first, rows;

  static __device__ __forceinline__ int count(const AttentionParams& p, int rows) {
    return (p.queries + rows - 1) / rows * p.heads * p.batch;
  }
  __device__ __forceinline__ QueryLot(const AttentionParams& p, int number, int rows) : rows(rows) {
    const int tiles = (p.queries + rows - 1) / rows;
    const LotPlace place(number, tiles, p.batch * p.heads, p.section);
    batch = place.head / p.heads;
    head = place.head % p.heads;
    kv_head = head / (p.heads / p.kv_heads);
    first = (tiles - 1 - place.rank) * rows;  // the last see most
  }

  // Those that any of the lot sees; all threads of the filler call it.
  template <typename A>
  __device__ __forceinline__ KeyRange keys(const AttentionParams& p, const Visibility<A>& visibility) const {
    const int end = min(first + rows, p.queries);
    const KeyRange keys = visibility.sight.keys_of_any(first, end - 1);
    return A::kDocuments
               ? meet_documents<Filler>(keys, visibility.k_documents, {first, end}, visibility.q_documents)
               : keys;
  }
};

// The same number, but the compiler does not know: what it made of the number before, it makes again rather
// than keep it in registers meanwhile.
__device__ __forceinline__ int anew(int number) {
  uint32_t bits = number;
  pin_register(bits);
  return int(bits);
}

constexpr int whole_panels(int width) { return (width + 63) / 64 * 64; }

// Shares out a processor's registers anew, as many in all as the launch took, and the block's work: `fill()`
// for the first warpgroup, `read(i)` for the others.
template <int readers, bool documents, typename Fill, typename Read>
__device__ __forceinline__ void deal_registers(const Fill& fill, const Read& read) {
  static_assert(readers == 2 || readers == 3, "what 64 Ki registers are enough for");
  constexpr int kAll = readers == 2 ? 504 : 512;  // of a thread of each warpgroup together
  constexpr int kFiller = readers == 3 ? 32 : documents ? 56 : 40;
  const int warpgroup = __shfl_sync(kAllLanes, int(threadIdx.x) / kWarpgroup, 0);
  if (warpgroup == 0) {
    leave_registers<kFiller>();
    fill();
  } else {
    take_registers<(kAll - kFiller) / readers>();
    read(warpgroup - 1);
  }
}

}  // namespace nf::cuda
