// Kernels that move or add whole rows.
#pragma once

#include "device.cuh"
#include "rows_params.h"

namespace nf::cuda {

constexpr int kRowThreads = 256;
constexpr int kScanThreads = 1024;
constexpr int kChunk = 64;  // sorted positions that one block adds up

__device__ __forceinline__ int64_t global_thread() { return int64_t(blockIdx.x) * kRowThreads + threadIdx.x; }

// A thread per unit.
template <typename Unit>
__device__ void copy_units(const CopyParams& p) {
  int64_t rest = global_thread();
  if (rest >= p.units) return;
  int64_t from = 0, to = 0;
  for (int axis = 0; axis < p.axes; ++axis) {
    const int64_t index = axis == p.axes - 1 ? rest : rest % p.shape[axis];
    rest /= p.shape[axis];
    from += index * p.from_strides[axis];
    to += index * p.to_strides[axis];
  }
  if (p.start != nullptr) {
    if (*p.start < 0 || *p.start > p.last_start) return;
    to += *p.start * p.start_stride;
  }
  static_cast<Unit*>(p.to)[to] = static_cast<const Unit*>(p.from)[from];
}

template <typename Unit>
__device__ void gather_units(const GatherParams& p) {
  const int64_t i = global_thread();
  if (i >= p.count * p.width) return;
  const int32_t id = p.ids[i / p.width];
  const bool inside = id >= 0 && id < p.rows;
  static_cast<Unit*>(p.out)[i] =
      inside ? static_cast<const Unit*>(p.table)[id * p.width + i % p.width] : Unit{};
}

// ---- scatter: positions are sorted by id (counting sort), then summed chunk by chunk
//
// Integer atomics decide where a position is put among those of its row; its rank among them is counted
// afterwards, so the result is the sorted order whatever the atomics did.

__device__ inline void scatter_clear(const ScatterParams& p) {
  const int64_t i = global_thread();
  if (i <= p.rows) p.starts[i] = 0;
  if (!p.accumulate && i < p.rows * p.width) p.sums[i] = 0;
}

__device__ inline void scatter_count(const ScatterParams& p) {
  const int64_t i = global_thread();
  if (i >= p.count) return;
  const int32_t id = p.ids[i];
  if (id >= 0 && id < p.rows) atomicAdd(&p.starts[id + 1], 1);
}

// One block: counts to starts.
__device__ inline void scatter_scan(const ScatterParams& p) {
  __shared__ int32_t sums[kScanThreads];
  const int64_t per_thread = (p.rows + kScanThreads - 1) / kScanThreads;
  const int64_t first = threadIdx.x * per_thread, last = min(p.rows, first + per_thread);
  int32_t sum = 0;
  for (int64_t row = first; row < last; ++row) sum += p.starts[row + 1];
  sums[threadIdx.x] = sum;
  __syncthreads();
  for (int step = 1; step < kScanThreads; step *= 2) {
    const int32_t before = int(threadIdx.x) >= step ? sums[threadIdx.x - step] : 0;
    __syncthreads();
    sums[threadIdx.x] += before;
    __syncthreads();
  }
  int32_t start = sums[threadIdx.x] - sum;
  for (int64_t row = first; row < last; ++row) {
    p.cursors[row] = start;
    start += p.starts[row + 1];
    p.starts[row + 1] = start;
  }
}

__device__ inline void scatter_place(const ScatterParams& p) {
  const int64_t i = global_thread();
  if (i >= p.count) return;
  const int32_t id = p.ids[i];
  if (id >= 0 && id < p.rows) p.placed[atomicAdd(&p.cursors[id], 1)] = int32_t(i);
}

__device__ inline void scatter_rank(const ScatterParams& p) {
  const int64_t at = global_thread();
  if (at >= p.starts[p.rows]) return;
  const int32_t position = p.placed[at], id = p.ids[position];
  int32_t rank = 0;
  for (int32_t other = p.starts[id]; other < p.starts[id + 1]; ++other) rank += p.placed[other] < position;
  p.sorted[p.starts[id] + rank] = position;
}

__device__ inline void add_to_row(const ScatterParams& p, int32_t row, int64_t column, float sum) {
  float& to = p.sums[row * p.width + column];
  to = p.accumulate ? to + sum : sum;
}

// blockIdx.x: the chunk, blockIdx.y: the columns, a thread each. A run of equal ids that lies in the chunk is
// finished here; one that crosses a border leaves a partial sum.
template <typename T>
__device__ void scatter_sum(const ScatterParams& p) {
  const int64_t total = p.starts[p.rows], first = int64_t(blockIdx.x) * kChunk,
                last = min(total, first + kChunk);
  const int64_t column = int64_t(blockIdx.y) * kRowThreads + threadIdx.x;
  if (first >= last || column >= p.width) return;
  const T* updates = static_cast<const T*>(p.updates);
  float* const partials = p.partials + int64_t(blockIdx.x) * 2 * p.width;
  const int32_t before = first > 0 ? p.ids[p.sorted[first - 1]] : -1;
  const int32_t after = last < total ? p.ids[p.sorted[last]] : -1;
  float sum = 0;
  bool is_first_run = true;
  for (int64_t at = first; at < last; ++at) {
    const int32_t position = p.sorted[at], row = p.ids[position];
    sum += to_float(updates[position * p.width + column]);
    const int32_t next = at + 1 < last ? p.ids[p.sorted[at + 1]] : -1;
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
  const int64_t total = p.starts[p.rows], first = int64_t(blockIdx.x) * kChunk;
  const int64_t column = int64_t(blockIdx.y) * kRowThreads + threadIdx.x;
  if (first + kChunk >= total || column >= p.width) return;
  const auto id_at = [&](int64_t at) { return p.ids[p.sorted[at]]; };
  const int32_t row = id_at(first + kChunk - 1);
  const bool begins_before = first > 0 && id_at(first - 1) == row && id_at(first) == row;
  if (begins_before || id_at(first + kChunk) != row) return;
  float sum = p.partials[(int64_t(blockIdx.x) * 2 + 1) * p.width + column];
  for (int64_t start = first + kChunk; start < total && id_at(start) == row; start += kChunk) {
    sum += p.partials[start / kChunk * 2 * p.width + column];
    if (start + kChunk < total && id_at(start + kChunk - 1) != row) break;
  }
  add_to_row(p, row, column, sum);
}

}  // namespace nf::cuda
