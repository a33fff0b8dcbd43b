// Reductions: rows and builders. Reduced axes keep size 1, so that a result broadcasts back without a
// reshape.
#include <algorithm>

#include "graph/op_rows.h"

namespace nf {
namespace {

std::vector<TensorType> infer_reduce(Types inputs, const Attributes& attributes) {
  TensorType result = inputs[0];
  require(result.dtype == DType::f32 || result.dtype == DType::f64 || !is_float(result.dtype),
          "arithmetic runs in f32, not {}", name(result.dtype));
  for (int64_t axis : attributes.list("axes")) result.shape[normalize_axis(axis, result.shape.rank())] = 1;
  return {result};
}

Values sum_gradient(Graph& graph, int32_t node, std::span<const Value> dy) {
  return {broadcast_to(dy[0], NodeValues{graph, node}.in(0).shape())};
}

// Equal maxima share the gradient evenly, as in PyTorch's amax.
Values max_gradient(Graph& graph, int32_t node, std::span<const Value> dy) {
  const NodeValues values{graph, node};
  const Value x = values.in(0);
  const Value is_max = cast(equal(x, values.out()), x.dtype());
  return {is_max * (dy[0] / reduce_sum(is_max, values.attributes().list("axes")))};
}

Value reduce(Op op, Value x, const Shape& axes, bool keep) {
  std::array<bool, Shape::kMaxRank> reduced{};
  for (int64_t axis : axes) reduced[static_cast<size_t>(normalize_axis(axis, x.shape().rank()))] = true;
  Shape sorted, kept;
  for (int axis = 0; axis < x.shape().rank(); ++axis)
    if (reduced[static_cast<size_t>(axis)])
      sorted.push_back(axis);
    else
      kept.push_back(x.shape()[axis]);
  if (x.dtype() == DType::bf16 || x.dtype() == DType::f16) x = cast(x, DType::f32);
  const Value result = sorted.empty() ? x : x.graph->add(op, std::span(&x, 1), {{"axes", sorted}});
  return keep ? result : reshape(result, kept);
}

Shape all_axes(const Shape& shape) {
  Shape axes;
  for (int axis = 0; axis < shape.rank(); ++axis) axes.push_back(axis);
  return axes;
}

}  // namespace

std::vector<OpInfo> reduce_rows() {
  return {
      {.op = Op::reduce_sum,
       .name = "reduce_sum",
       .kind = OpKind::reduce,
       .min_inputs = 1,
       .max_inputs = 1,
       .infer = infer_reduce,
       .gradient = sum_gradient},
      {.op = Op::reduce_max,
       .name = "reduce_max",
       .kind = OpKind::reduce,
       .min_inputs = 1,
       .max_inputs = 1,
       .infer = infer_reduce,
       .gradient = max_gradient},
  };
}

Value reduce_sum(Value x, const Shape& axes, bool keep) { return reduce(Op::reduce_sum, x, axes, keep); }
Value reduce_max(Value x, const Shape& axes, bool keep) { return reduce(Op::reduce_max, x, axes, keep); }

Value mean(Value x, const Shape& axes, bool keep) {
  double count = 1;
  for (int64_t axis : axes) count *= static_cast<double>(x.shape()[normalize_axis(axis, x.shape().rank())]);
  return reduce_sum(x, axes, keep) * (1 / count);
}

Value sum(Value x) { return reduce_sum(x, all_axes(x.shape()), false); }

}  // namespace nf
