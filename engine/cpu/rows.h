// Kernels that move whole rows: gather, scatter_add, concat, copies into states.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "base/tensor_view.h"

namespace nf::cpu {

// out[i, :] = table[ids[i], :] for i < count; rows of `width` elements of `element_bytes`. An id outside [0,
// rows) gives zeros and is reported: returns the first such position, or -1.
int64_t gather_rows(int64_t count, int64_t rows, int64_t width, int64_t element_bytes, const void* table,
                    const int32_t* ids, void* out, int threads);

// sums[r, :] = sum of updates[i, :] over i with ids[i] == r, in the order of i, in f32; ids outside are
// skipped. updates is f32 or bf16 [count, width], sums f32 [rows, width], added to what stands there if
// `accumulate`. The ids are sorted once (counting sort), so that every row is summed by one thread and no
// addition collides.
size_t scatter_rows_workspace(int64_t count, int64_t rows);
void scatter_rows(int64_t count, int64_t rows, int64_t width, const int32_t* ids, TensorView updates,
                  float* sums, bool accumulate, void* workspace, int threads);

// Copies between tensors of equal shape and dtype and any strides.
void copy_tensor(const TensorView& from, const TensorView& to, int threads);

}  // namespace nf::cpu
