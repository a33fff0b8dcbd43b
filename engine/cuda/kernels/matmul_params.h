#pragma once

#include "types.h"

namespace nf::cuda {

struct Operand {
  const void* data;
  int64_t row_stride, col_stride, batch_stride;  // in elements
};

// c = a b or c += a b: a [m, k], b [k, n], c [m, n] with column stride 1.
struct MatmulParams {
  Operand a, b;
  void* c;
  int64_t c_row_stride, c_batch_stride;
  int64_t m, n, k;
  bool accumulate;
};

}  // namespace nf::cuda
