// Movement ops: rows and builders. They do no arithmetic, and most of them cost nothing: the compiler turns
// them into strides (engine/passes/views.h).
#include <algorithm>

#include "graph/op_rows.h"

namespace nf {
namespace {

using Grads = std::span<const Value>;

std::vector<TensorType> infer_reshape(Types inputs, const Attributes& attributes) {
  const Shape& shape = attributes.list("shape");
  require(shape.elements() == inputs[0].shape.elements(), "{} has {} elements, not the {} of {}", shape,
          shape.elements(), inputs[0].shape.elements(), inputs[0].shape);
  return {{inputs[0].dtype, shape}};
}

std::vector<TensorType> infer_transpose(Types inputs, const Attributes& attributes) {
  const Shape& permutation = attributes.list("permutation");
  const int rank = inputs[0].shape.rank();
  require(permutation.rank() == rank, "permutation {} for {} axes", permutation, rank);
  Shape shape;
  std::array<bool, Shape::kMaxRank> seen{};
  for (int64_t axis : permutation) {
    require(axis >= 0 && axis < rank && !seen[static_cast<size_t>(axis)], "{} is no permutation",
            permutation);
    seen[static_cast<size_t>(axis)] = true;
    shape.push_back(inputs[0].shape[static_cast<int>(axis)]);
  }
  return {{inputs[0].dtype, shape}};
}

std::vector<TensorType> infer_broadcast(Types inputs, const Attributes& attributes) {
  const Shape& from = inputs[0].shape;
  const Shape& to = attributes.list("shape");
  require(from.rank() == to.rank(), "ranks of {} and {} differ", from, to);
  for (int axis = 0; axis < to.rank(); ++axis)
    require(from[axis] == to[axis] || from[axis] == 1, "{} does not broadcast to {}", from, to);
  return {{inputs[0].dtype, to}};
}

std::vector<TensorType> infer_slice(Types inputs, const Attributes& attributes) {
  const Shape& starts = attributes.list("starts");
  const Shape& sizes = attributes.list("sizes");
  const Shape& shape = inputs[0].shape;
  require(starts.rank() == shape.rank() && sizes.rank() == shape.rank(), "starts and sizes need {} axes",
          shape.rank());
  for (int axis = 0; axis < shape.rank(); ++axis)
    require(starts[axis] >= 0 && sizes[axis] > 0 && starts[axis] + sizes[axis] <= shape[axis],
            "axis {}: {} elements from {} on are not inside {}", axis, sizes[axis], starts[axis], shape);
  return {{inputs[0].dtype, sizes}};
}

std::vector<TensorType> infer_concat(Types inputs, const Attributes& attributes) {
  TensorType result = inputs[0];
  const int axis = normalize_axis(attributes.integer("axis"), result.shape.rank());
  for (const TensorType& part : inputs.subspan(1)) {
    Shape others = part.shape;
    require(others.rank() == result.shape.rank() && part.dtype == result.dtype,
            "parts differ in rank or dtype");
    others[axis] = result.shape[axis];
    require(others == result.shape, "parts differ in other axes than {}", axis);
    result.shape[axis] += part.shape[axis];
  }
  return {result};
}

std::vector<TensorType> infer_roll(Types inputs, const Attributes&) {
  require(inputs[0].shape.rank() >= 1, "a scalar cannot be rolled");
  return {inputs[0]};
}

std::vector<TensorType> infer_gather(Types inputs, const Attributes&) {
  require(inputs[0].shape.rank() >= 1, "the table has no rows");
  require(inputs[1].dtype == DType::i32, "rows are {}, not i32", name(inputs[1].dtype));
  Shape shape = inputs[1].shape;
  for (int axis = 1; axis < inputs[0].shape.rank(); ++axis) shape.push_back(inputs[0].shape[axis]);
  return {{inputs[0].dtype, shape}};
}

std::vector<TensorType> infer_scatter_add(Types inputs, const Attributes& attributes) {
  const Shape& rows = inputs[0].shape;
  const Shape& updates = inputs[1].shape;
  require(inputs[0].dtype == DType::i32, "rows are {}, not i32", name(inputs[0].dtype));
  require(updates.rank() >= rows.rank() && std::equal(rows.begin(), rows.end(), updates.begin()),
          "updates {} do not begin with the shape of rows {}", updates, rows);
  Shape shape{attributes.integer("size")};
  for (int axis = rows.rank(); axis < updates.rank(); ++axis) shape.push_back(updates[axis]);
  return {{inputs[1].dtype, shape}};
}

Values reshape_gradient(Graph& graph, int32_t node, Grads dy) {
  return {reshape(dy[0], NodeValues{graph, node}.in(0).shape())};
}

Values transpose_gradient(Graph& graph, int32_t node, Grads dy) {
  const Shape permutation = NodeValues{graph, node}.attributes().list("permutation");
  Shape inverse = permutation;
  for (int axis = 0; axis < permutation.rank(); ++axis) inverse[static_cast<int>(permutation[axis])] = axis;
  return {transpose(dy[0], inverse)};
}

Values broadcast_gradient(Graph& graph, int32_t node, Grads dy) {
  const Shape from = NodeValues{graph, node}.in(0).shape();
  Shape axes;
  for (int axis = 0; axis < from.rank(); ++axis)
    if (from[axis] != dy[0].shape()[axis]) axes.push_back(axis);
  return {reduce_sum(dy[0], axes)};
}

// Zeros around dy where the slice left something out.
Values slice_gradient(Graph& graph, int32_t node, Grads dy) {
  const Shape from = NodeValues{graph, node}.in(0).shape();
  const Shape starts = NodeValues{graph, node}.attributes().list("starts");
  Value result = dy[0];
  for (int axis = from.rank() - 1; axis >= 0; --axis) {
    const int64_t before = starts[axis], after = from[axis] - before - result.shape()[axis];
    const auto zeros = [&](int64_t size) {
      Shape shape = result.shape();
      shape[axis] = size;
      return graph.add(Op::constant, {},
                       {{"value", 0.0}, {"dtype", to_attribute(result.dtype())}, {"shape", shape}});
    };
    Values parts;
    if (before > 0) parts.push_back(zeros(before));
    parts.push_back(result);
    if (after > 0) parts.push_back(zeros(after));
    result = concat(parts, axis);
  }
  return {result};
}

Values concat_gradient(Graph& graph, int32_t node, Grads dy) {
  const NodeValues values{graph, node};
  const auto axis = static_cast<int>(values.attributes().integer("axis"));
  Values result;
  int64_t start = 0;
  for (size_t i = 0; i < values.inputs(); ++i) {
    const int64_t size = values.in(i).shape()[axis];
    result.push_back(slice(dy[0], axis, start, size));
    start += size;
  }
  return result;
}

Values roll_gradient(Graph& graph, int32_t node, Grads dy) {
  return {roll(dy[0], -NodeValues{graph, node}.attributes().integer("shift"))};
}

Values gather_gradient(Graph& graph, int32_t node, Grads dy) {
  const NodeValues values{graph, node};
  return {scatter_add(values.in(1), dy[0], values.in(0).shape()[0]), {}};
}

Values scatter_add_gradient(Graph& graph, int32_t node, Grads dy) {
  return {{}, gather(dy[0], NodeValues{graph, node}.in(0))};
}

OpInfo movement(Op op, std::string_view name, int inputs, decltype(OpInfo::infer) infer,
                decltype(OpInfo::gradient) gradient) {
  return {.op = op,
          .name = name,
          .kind = OpKind::movement,
          .min_inputs = inputs < 0 ? 1 : inputs,
          .max_inputs = inputs,
          .infer = infer,
          .gradient = gradient};
}

}  // namespace

std::vector<OpInfo> movement_rows() {
  return {
      movement(Op::reshape, "reshape", 1, infer_reshape, reshape_gradient),
      movement(Op::transpose, "transpose", 1, infer_transpose, transpose_gradient),
      movement(Op::broadcast, "broadcast", 1, infer_broadcast, broadcast_gradient),
      movement(Op::slice, "slice", 1, infer_slice, slice_gradient),
      movement(Op::concat, "concat", -1, infer_concat, concat_gradient),
      movement(Op::roll, "roll", 1, infer_roll, roll_gradient),
      movement(Op::gather, "gather", 2, infer_gather, gather_gradient),
      movement(Op::scatter_add, "scatter_add", 2, infer_scatter_add, scatter_add_gradient),
  };
}

// ---- builders

int normalize_axis(int64_t axis, int rank) {
  require(axis >= -rank && axis < rank, "axis {} of a tensor of {} axes", axis, rank);
  return static_cast<int>(axis < 0 ? axis + rank : axis);
}

Value reshape(Value x, Shape shape) {
  int64_t known = 1;
  int open = -1;
  for (int axis = 0; axis < shape.rank(); ++axis) {
    if (shape[axis] != -1) {
      known *= shape[axis];
      continue;
    }
    require(open < 0, "engine: reshape to {}: only one size may be -1", shape);
    open = axis;
  }
  if (open >= 0) shape[open] = known == 0 ? 0 : x.shape().elements() / known;
  if (shape == x.shape()) return x;
  return x.graph->add(Op::reshape, std::span(&x, 1), {{"shape", shape}});
}

Value transpose(Value x, const Shape& permutation) {
  bool identity = permutation.rank() == x.shape().rank();
  for (int axis = 0; axis < permutation.rank(); ++axis) identity = identity && permutation[axis] == axis;
  if (identity) return x;
  return x.graph->add(Op::transpose, std::span(&x, 1), {{"permutation", permutation}});
}

Value transpose(Value x, int axis_a, int axis_b) {
  Shape permutation;
  for (int axis = 0; axis < x.shape().rank(); ++axis) permutation.push_back(axis);
  std::swap(permutation[normalize_axis(axis_a, permutation.rank())],
            permutation[normalize_axis(axis_b, permutation.rank())]);
  return transpose(x, permutation);
}

Value broadcast_to(Value x, const Shape& shape) {
  if (x.shape() == shape) return x;
  if (x.graph->node(x.id).op == Op::constant)  // a constant takes any shape at no cost
    return x.graph->add(Op::constant, {},
                        {{"value", x.graph->node(x.id).attributes.real("value")},
                         {"dtype", to_attribute(x.dtype())},
                         {"shape", shape}});
  Shape aligned = Shape::filled(shape.rank(), 1);
  const int offset = shape.rank() - x.shape().rank();
  require(offset >= 0, "engine: {} does not broadcast to {}", x.shape(), shape);
  for (int axis = 0; axis < x.shape().rank(); ++axis) aligned[axis + offset] = x.shape()[axis];
  x = reshape(x, aligned);
  if (x.shape() == shape) return x;
  return x.graph->add(Op::broadcast, std::span(&x, 1), {{"shape", shape}});
}

Value slice(Value x, int axis, int64_t start, int64_t size) {
  Shape starts = Shape::filled(x.shape().rank(), 0), sizes = x.shape();
  axis = normalize_axis(axis, sizes.rank());
  if (start == 0 && size == sizes[axis]) return x;
  starts[axis] = start;
  sizes[axis] = size;
  return x.graph->add(Op::slice, std::span(&x, 1), {{"starts", starts}, {"sizes", sizes}});
}

Value concat(const Values& parts, int axis) {
  require(!parts.empty(), "engine: concat of nothing");
  if (parts.size() == 1) return parts[0];
  return parts[0].graph->add(Op::concat, parts,
                             {{"axis", int64_t{normalize_axis(axis, parts[0].shape().rank())}}});
}

Value roll(Value x, int64_t shift) {
  require(x.shape().rank() >= 1, "engine: roll of a scalar");
  const int64_t size = x.shape().back();
  shift = size == 0 ? 0 : ((shift % size) + size) % size;
  if (shift == 0) return x;
  return x.graph->add(Op::roll, std::span(&x, 1), {{"shift", shift}});
}

Value gather(Value table, Value rows) {
  const Values inputs{table, rows};
  return table.graph->add(Op::gather, inputs);
}

Value scatter_add(Value rows, Value updates, int64_t size) {
  if (updates.dtype() == DType::bf16 || updates.dtype() == DType::f16) updates = cast(updates, DType::f32);
  const Values inputs{rows, updates};
  return rows.graph->add(Op::scatter_add, inputs, {{"size", size}});
}

Value squeeze(Value x, int axis) {
  axis = normalize_axis(axis, x.shape().rank());
  require(x.shape()[axis] == 1, "engine: squeeze of axis {} of {}", axis, x.shape());
  Shape shape;
  for (int i = 0; i < x.shape().rank(); ++i)
    if (i != axis) shape.push_back(x.shape()[i]);
  return reshape(x, shape);
}

Value unsqueeze(Value x, int axis) {
  axis = normalize_axis(axis, x.shape().rank() + 1);
  Shape shape;
  for (int i = 0; i <= x.shape().rank(); ++i) {
    if (i == axis) shape.push_back(1);
    if (i < x.shape().rank()) shape.push_back(x.shape()[i]);
  }
  return reshape(x, shape);
}

}  // namespace nf
