#include "passes/views.h"

namespace nf {

bool is_view_op(Op op) {
  return op == Op::reshape || op == Op::transpose || op == Op::broadcast || op == Op::slice;
}

bool is_dense(const Shape& shape, const Strides& strides) {
  int64_t expected = 1;
  for (int axis = shape.rank() - 1; axis >= 0; --axis) {
    if (shape[axis] != 1 && strides[axis] != expected) return false;
    expected *= shape[axis];
  }
  return true;
}

bool collapsible(const Shape& shape, const Strides& strides, int first, int last) {
  int previous = -1;  // the nearest inner axis with more than one element
  for (int axis = last - 1; axis >= first; --axis) {
    if (shape[axis] == 1) continue;
    if (previous >= 0 && strides[axis] != strides[previous] * shape[previous]) return false;
    previous = axis;
  }
  return true;
}

// Both shapes are cut into the smallest runs of axes with equal products; within a run `from` must have one
// stride.
std::optional<Strides> reshape_strides(const Shape& from, const Strides& strides, const Shape& to) {
  Strides result = Shape::filled(to.rank(), 0);
  if (to.elements() == 0) return dense_strides(to);
  int i = 0, j = 0;
  while (i < from.rank() || j < to.rank()) {
    const int from_start = i, to_start = j;
    int64_t from_size = i < from.rank() ? from[i++] : 1;
    int64_t to_size = j < to.rank() ? to[j++] : 1;
    while (from_size != to_size) {
      if (from_size < to_size)
        from_size *= from[i++];
      else
        to_size *= to[j++];
    }
    if (!collapsible(from, strides, from_start, i)) return std::nullopt;
    int64_t stride = 1;  // of the run's innermost axis with more than one element
    for (int axis = i - 1; axis >= from_start; --axis)
      if (from[axis] != 1) {
        stride = strides[axis];
        break;
      }
    for (int axis = j - 1; axis >= to_start; --axis) {
      result[axis] = stride;
      stride *= to[axis];
    }
  }
  return result;
}

std::optional<Window> apply_view(const Graph& graph, const Node& node, const Window& input) {
  const Shape& from = graph.type(node.inputs[0]).shape;
  const Shape& to = node.outputs[0].shape;
  Window result = input;
  switch (node.op) {
    case Op::reshape: {
      const auto strides = reshape_strides(from, input.strides, to);
      if (!strides) return std::nullopt;
      result.strides = *strides;
      return result;
    }
    case Op::transpose:
      for (int axis = 0; axis < to.rank(); ++axis)
        result.strides[axis] = input.strides[static_cast<int>(node.attributes.list("permutation")[axis])];
      return result;
    case Op::broadcast:
      for (int axis = 0; axis < to.rank(); ++axis)
        if (from[axis] != to[axis]) result.strides[axis] = 0;
      return result;
    case Op::slice:
      for (int axis = 0; axis < to.rank(); ++axis)
        result.offset += node.attributes.list("starts")[axis] * input.strides[axis];
      return result;
    default: return std::nullopt;
  }
}

std::optional<View> view_of(const Graph& graph, ValueId value) {
  const Node& node = graph.node(value);
  if (!is_view_op(node.op)) return View{value, 0, dense_strides(graph.type(value).shape)};
  const auto source = view_of(graph, node.inputs[0]);
  if (!source) return std::nullopt;
  const auto window = apply_view(graph, node, {source->offset, source->strides});
  if (!window) return std::nullopt;
  return View{source->root, window->offset, window->strides};
}

}  // namespace nf
