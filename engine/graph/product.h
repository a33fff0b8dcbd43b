// An Op::matmul as its backends see it: one batch of products with strides.
#pragma once

#include "base/tensor_view.h"
#include "nf/graph.h"

namespace nf {

// How an operand lies in memory, in elements.
struct MatrixLayout {
  DType dtype = DType::f32;
  int64_t row_stride = 0, col_stride = 0;
  int64_t batch_stride = 0;  // 0: one matrix for the whole batch
};

// c = a b or c += a b, `batch` times: a [m, k], b [k, n], c [m, n] dense.
struct Product {
  int64_t batch = 1, m = 0, n = 0, k = 0;
  MatrixLayout a = {}, b = {}, c = {};
  bool accumulate = false;
};

// Of a matmul node whose inputs and output lie so; transposes become strides, and the rows of a batch of a's
// that share one b become one a.
Product product_of(const Node& matmul, const TensorView& a, const TensorView& b, const TensorView& c);

// A value of that type as a dense view without memory: enough for sizes.
TensorView dense_view(const TensorType& type);

}  // namespace nf
