#pragma once

#include "types.h"

namespace nf::cuda {

constexpr int kMostCopyAxes = 8;

// Copies `units` units between two windows of the same shape. Strides in units, axis 0 innermost.
struct CopyParams {
  const void* from;
  void* to;
  int64_t units;
  int32_t axes;
  int64_t shape[kMostCopyAxes], from_strides[kMostCopyAxes], to_strides[kMostCopyAxes];
  // With a start, `to` begins *start entries further on, each `start_stride` units; nothing is copied where
  // *start is not in [0, last_start].
  const int32_t* start;
  int64_t start_stride, last_start;
};

// out[i] = table[ids[i]]: rows of `width` units; an id outside [0, rows) gives zeros.
struct GatherParams {
  const void* table;
  const int32_t* ids;
  void* out;
  int64_t count, rows, width;
};

// Sums of the rows of `updates` [count, width] that share an id, in four steps over one workspace; see
// rows.cuh.
struct ScatterParams {
  const int32_t* ids;
  const void* updates;
  float* sums;  // [rows, width]
  int64_t count, rows, width;
  bool accumulate;
  int32_t* starts;   // [rows + 1]: where each row's positions begin
  int32_t* cursors;  // [rows]: where the next one is put
  int32_t* placed;   // [count]: positions by row, in any order
  int32_t* sorted;   // [count]: by row, then in order
  float* partials;   // [chunks][2][width]: sums of the runs that cross a chunk's first and last border
};

}  // namespace nf::cuda
