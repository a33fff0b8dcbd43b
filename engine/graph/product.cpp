#include "graph/product.h"

#include <utility>

namespace nf {
namespace {

// The stride with which the axes [first, last) can be walked, and their number of elements.
std::pair<int64_t, int64_t> joined(const TensorView& view, int first, int last) {
  int64_t count = 1, stride = 0;
  for (int axis = last - 1; axis >= first; --axis) {
    if (view.shape[axis] != 1 && count == 1) stride = view.strides[axis];
    count *= view.shape[axis];
  }
  return {stride, count};
}

}  // namespace

Product product_of(const Node& matmul, const TensorView& a, const TensorView& b, const TensorView& c) {
  const bool ta = matmul.attributes.integer("transpose_a") != 0,
             tb = matmul.attributes.integer("transpose_b") != 0;
  const int ra = a.shape.rank(), rb = b.shape.rank(), rc = c.shape.rank();
  Product product{.m = c.shape[rc - 2], .n = c.shape[rc - 1], .k = ta ? a.shape[ra - 2] : a.shape[ra - 1]};
  product.a = {a.dtype, a.strides[ra - 2], a.strides[ra - 1]};
  product.b = {b.dtype, b.strides[rb - 2], b.strides[rb - 1]};
  if (rb == 2 && ra > 2) {  // one b for all rows of a
    const auto [stride, rows] = joined(a, 0, ra - 1);
    product.m = rows;
    product.a.row_stride = stride;
  } else {
    product.batch = joined(c, 0, rc - 2).second;
    product.a.batch_stride = joined(a, 0, ra - 2).first;
    product.b.batch_stride = joined(b, 0, rb - 2).first;
  }
  if (ta) std::swap(product.a.row_stride, product.a.col_stride);
  if (tb) std::swap(product.b.row_stride, product.b.col_stride);
  product.c = {c.dtype, product.n, 1, product.m * product.n};
  product.accumulate = matmul.inputs.size() == 3;
  return product;
}

TensorView dense_view(const TensorType& type) {
  return {nullptr, type.dtype, type.shape, dense_strides(type.shape)};
}

}  // namespace nf
