// Kernels that move or add whole rows.
#pragma once

#include "device.cuh"
#include "rows_params.h"

namespace nf::cuda {

__device__ __forceinline__ int64_t global_thread() { return int64_t(blockIdx.x) * kRowThreads + threadIdx.x; }

// A thread per unit. Count: what can count them; a division of 64 bits takes longer than the copy.
template <typename Unit, typename Count>
__device__ void copy_units(const CopyParams& p) {
  const int64_t unit = global_thread();
  if (unit >= p.units) return;
  Count rest = Count(unit);
  int64_t from = 0, to = 0;
  for (int axis = 0; axis < p.axes; ++axis) {
    const Count size = Count(p.shape[axis]), next = axis == p.axes - 1 ? 0 : rest / size;
    const int64_t index = rest - next * size;
    rest = next;
    from += index * p.from_strides[axis];
    to += index * p.to_strides[axis];
  }
  if (p.start != nullptr) {
    if (*p.start < 0 || *p.start > p.last_start) {
      if (unit == 0) report_fault(p.fault, 0, *p.start);
      return;
    }
    to += *p.start * p.start_stride;
  }
  static_cast<Unit*>(p.to)[to] = static_cast<const Unit*>(p.from)[from];
}

template <typename Unit, typename Count>
__device__ void gather_units(const GatherParams& p) {
  const int64_t i = global_thread();
  if (i >= p.count * p.width) return;
  const Count row = Count(i) / Count(p.width), column = Count(i) - row * Count(p.width);
  const int32_t id = p.ids[row];
  const bool inside = id >= 0 && id < p.rows;
  if (!inside && column == 0) report_fault(p.fault, row, id);
  static_cast<Unit*>(p.out)[i] = inside ? static_cast<const Unit*>(p.table)[id * p.width + column] : Unit{};
}

// ---- scatter: positions are sorted by id, then summed chunk by chunk
//
// The sort is a radix sort, a pass per kDigitBits bits of the ids from the lowest on: the digits of each tile
// of positions are counted, the counts are summed up to where each tile's first position of each digit goes,
// and the positions are placed in their order. Ids outside [0, rows) count as `rows`: they come last.

__device__ __forceinline__ int32_t sort_key(const ScatterParams& p, int32_t position) {
  const int32_t id = p.ids[position];
  return id >= 0 && id < p.rows ? id : int32_t(p.rows);
}

__device__ inline void scatter_clear(const ScatterParams& p) {
  const int64_t i = global_thread();
  if (i < p.rows * p.width) p.sums[i] = 0;
}

// The positions in the order that the pass finds them in; the first finds them in their own.
__device__ __forceinline__ int32_t position_at(const ScatterPass& pass, int64_t at) {
  return pass.from == nullptr ? int32_t(at) : pass.from[at];
}

__device__ __forceinline__ int digit_of(const ScatterPass& pass, int32_t position) {
  return (sort_key(pass.p, position) >> pass.shift) & (kDigits - 1);
}

// blockIdx.x: the tile.
__device__ inline void scatter_count(const ScatterPass& pass) {
  static_assert(kDigits == kRowThreads);
  __shared__ int32_t counts[kDigits];
  counts[threadIdx.x] = 0;
  __syncthreads();
  const int64_t first = int64_t(blockIdx.x) * kSortTile, last = min(pass.p.count, first + kSortTile);
  for (int64_t at = first + threadIdx.x; at < last; at += kRowThreads)
    atomicAdd(&counts[digit_of(pass, position_at(pass, at))], 1);
  __syncthreads();
  pass.p.counts[threadIdx.x * int64_t(gridDim.x) + blockIdx.x] = counts[threadIdx.x];
}

// One block: each count becomes the sum of those before it.
__device__ inline void scatter_scan(const ScatterPass& pass) {
  __shared__ int32_t sums[kScanThreads];
  const int64_t per_thread = (pass.counters + kScanThreads - 1) / kScanThreads;
  const int64_t first = threadIdx.x * per_thread, last = min(pass.counters, first + per_thread);
  int32_t sum = 0;
  for (int64_t i = first; i < last; ++i) sum += pass.p.counts[i];
  sums[threadIdx.x] = sum;
  __syncthreads();
  for (int step = 1; step < kScanThreads; step *= 2) {
    const int32_t before = int(threadIdx.x) >= step ? sums[threadIdx.x - step] : 0;
    __syncthreads();
    sums[threadIdx.x] += before;
    __syncthreads();
  }
  int32_t start = sums[threadIdx.x] - sum;
  for (int64_t i = first; i < last; ++i) {
    const int32_t count = pass.p.counts[i];
    pass.p.counts[i] = start;
    start += count;
  }
}

// blockIdx.x: the tile. The block takes as many positions at a time as it has threads: one's place among
// those of its digit is what earlier rounds, earlier warps and earlier lanes have of it.
__device__ inline void scatter_place(const ScatterPass& pass) {
  constexpr int kWarps = kRowThreads / 32;
  __shared__ int32_t starts[kWarps][kDigits];
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  // Where the tile's next position goes whose digit is the thread's number.
  int32_t next = pass.p.counts[threadIdx.x * int64_t(gridDim.x) + blockIdx.x];
  const int64_t first = int64_t(blockIdx.x) * kSortTile, last = min(pass.p.count, first + kSortTile);
  for (int64_t round = first; round < last; round += kRowThreads) {
#pragma unroll
    for (int w = 0; w < kWarps; ++w) starts[w][threadIdx.x] = 0;
    __syncthreads();
    const int64_t at = round + threadIdx.x;
    const int32_t position = at < last ? position_at(pass, at) : 0;
    const int digit = at < last ? digit_of(pass, position) : kDigits;
    const uint32_t same = __match_any_sync(kAllLanes, digit);
    const int before = __popc(same & ((1u << lane) - 1));
    if (before == 0 && at < last) starts[warp][digit] = __popc(same);
    __syncthreads();
#pragma unroll
    for (int w = 0; w < kWarps; ++w) {
      const int32_t count = starts[w][threadIdx.x];
      starts[w][threadIdx.x] = next;
      next += count;
    }
    __syncthreads();
    if (at < last) pass.to[starts[warp][digit] + before] = position;
    __syncthreads();
  }
}

__device__ inline void add_to_row(const ScatterParams& p, int32_t row, int64_t column, float sum) {
  if (row == p.rows) return;
  float& to = p.sums[row * p.width + column];
  to = p.accumulate ? to + sum : sum;
}

// blockIdx.x: the chunk, blockIdx.y: the columns, a thread each. A run of equal ids that lies in the chunk is
// finished here; one that crosses a border leaves a partial sum.
template <typename T>
__device__ void scatter_sum(const ScatterParams& p) {
  const int64_t first = int64_t(blockIdx.x) * kChunk, last = min(p.count, first + kChunk);
  const int64_t column = int64_t(blockIdx.y) * kRowThreads + threadIdx.x;
  if (column >= p.width) return;
  const T* updates = static_cast<const T*>(p.updates);
  float* const partials = p.partials + int64_t(blockIdx.x) * 2 * p.width;
  const int32_t before = first > 0 ? sort_key(p, p.sorted[first - 1]) : -1;
  const int32_t after = last < p.count ? sort_key(p, p.sorted[last]) : -1;
  float sum = 0;
  bool is_first_run = true;
  for (int64_t at = first; at < last; ++at) {
    const int32_t position = p.sorted[at], row = sort_key(p, position);
    sum += to_float(updates[position * p.width + column]);
    const int32_t next = at + 1 < last ? sort_key(p, p.sorted[at + 1]) : -1;
    if (next == row) continue;
    if (is_first_run && row == before)
      partials[column] = sum;
    else if (at + 1 == last && row == after)
      partials[p.width + column] = sum;
    else
      add_to_row(p, row, column, sum);
    sum = 0;
    is_first_run = false;
  }
}

// The runs that cross borders, each by the chunk in which it begins.
__device__ inline void scatter_join(const ScatterParams& p) {
  const int64_t first = int64_t(blockIdx.x) * kChunk;
  const int64_t column = int64_t(blockIdx.y) * kRowThreads + threadIdx.x;
  if (first + kChunk >= p.count || column >= p.width) return;
  const auto id_at = [&](int64_t at) { return sort_key(p, p.sorted[at]); };
  const int32_t row = id_at(first + kChunk - 1);
  const bool begins_before = first > 0 && id_at(first - 1) == row && id_at(first) == row;
  if (begins_before || id_at(first + kChunk) != row) return;
  float sum = p.partials[(int64_t(blockIdx.x) * 2 + 1) * p.width + column];
  for (int64_t start = first + kChunk; start < p.count && id_at(start) == row; start += kChunk) {
    sum += p.partials[start / kChunk * 2 * p.width + column];
    if (start + kChunk < p.count && id_at(start + kChunk - 1) != row) break;
  }
  add_to_row(p, row, column, sum);
}

}  // namespace nf::cuda
