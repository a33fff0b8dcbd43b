#pragma once

#include "types.h"

namespace nf::cuda {

constexpr int kMostCopyAxes = 8;
constexpr int kRowThreads = 256;
constexpr int kScanThreads = 1024;
constexpr int kChunk = 64;  // sorted positions that one block adds up
constexpr int kDigitBits = 8;
constexpr int kDigits = 1 << kDigitBits;
constexpr int kSortTile = 2048;  // positions that one block sorts

// Copies `units` units between two windows of the same shape. Strides in units, axis 0 innermost.
struct CopyParams {
  const void* from;
  void* to;
  int64_t units;
  int32_t axes;
  int64_t shape[kMostCopyAxes], from_strides[kMostCopyAxes], to_strides[kMostCopyAxes];
  // With a start, `to` begins *start entries further on, each `start_stride` units; where *start is not in
  // [0, last_start] nothing is copied, and it is reported to `fault`.
  const int32_t* start;
  int64_t start_stride, last_start;
  uint64_t* fault;
};

// out[i] = table[ids[i]]: rows of `width` units; an id outside [0, rows) gives zeros and is reported to
// `fault`.
struct GatherParams {
  const void* table;
  const int32_t* ids;
  void* out;
  int64_t count, rows, width;
  uint64_t* fault;
};

// Sums of the rows of `updates` [count, width] that share an id, over one workspace; see rows.cuh.
struct ScatterParams {
  const int32_t* ids;
  const void* updates;
  float* sums;  // [rows, width]
  int64_t count, rows, width;
  bool accumulate;
  int32_t* counts;  // [kDigits][tiles]: how many positions of a tile have that digit; then, where they go
  int32_t* spare;   // [count]
  int32_t* sorted;  // [count]: positions by id, those of one id in order
  float* partials;  // [chunks][2][width]: sums of the runs that cross a chunk's first and last border
};

// One pass of the sort.
struct ScatterPass {
  ScatterParams p;
  const int32_t* from;  // null: every position in its place
  int32_t* to;
  int64_t counters;  // kDigits tiles
  int32_t shift;     // of the pass's bits
};

}  // namespace nf::cuda
