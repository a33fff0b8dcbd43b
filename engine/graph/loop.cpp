#include "graph/loop.h"

#include <algorithm>

#include "graph/op_table.h"

namespace nf {

int column_axes(const Node& node, const Shape& space) {
  if (kind(node.op) != OpKind::reduce) return 0;
  const Shape& axes = node.attributes.list("axes");
  return axes.back() == space.rank() - 1 ? 0 : axes.rank();
}

namespace {

void erase_axis(Shape& shape, int axis) {
  Shape result;
  for (int i = 0; i < shape.rank(); ++i)
    if (i != axis) result.push_back(shape[i]);
  shape = result;
}

}  // namespace

Shape collapse(const Shape& space, std::span<Strides* const> strides, bool keep_row) {
  Shape sizes = space;
  for (int axis = sizes.rank() - 1; axis >= 0; --axis) {
    const bool is_row = axis == sizes.rank() - 1;
    if (sizes[axis] != 1 || sizes.rank() == 1 || (is_row && keep_row)) continue;
    erase_axis(sizes, axis);
    for (Strides* s : strides) erase_axis(*s, axis);
  }
  for (int axis = sizes.rank() - 2; axis >= 0; --axis) {
    if (axis == sizes.rank() - 2 && keep_row) continue;
    const bool joins = std::all_of(strides.begin(), strides.end(), [&](const Strides* s) {
      return (*s)[axis] == (*s)[axis + 1] * sizes[axis + 1];
    });
    if (!joins) continue;
    sizes[axis + 1] *= sizes[axis];
    erase_axis(sizes, axis);
    for (Strides* s : strides) erase_axis(*s, axis);
  }
  return sizes;
}

namespace {

void verify_leaf(const Node& leaf, const Shape& space) {
  const Shape& shape = leaf.outputs[0].shape;
  if (leaf.outputs[0] == TensorType{DType::i32, {4}} && space.rank() != 1) return;  // the rng of a philox
  require(shape.rank() == space.rank(), "loop: leaf {} has not the rank of the space {}", shape, space);
  for (int axis = 0; axis < space.rank(); ++axis)
    require(shape[axis] == space[axis] || shape[axis] == 1, "loop: leaf {} does not fit the space {}", shape,
            space);
}

void verify_interior(const Graph& body, const Node& node, const Shape& space, const Shape& per_row) {
  const Shape& shape = node.outputs[0].shape;
  if (kind(node.op) == OpKind::reduce) {
    require(body.type(node.inputs[0]).shape == space, "loop: a reduction of a value that is not full");
    const Shape& axes = node.attributes.list("axes");
    const int columns = column_axes(node, space);
    require(columns > 0 || axes.rank() == 1, "loop: a reduction over rows and other axes at once");
    for (int axis = 0; axis < columns; ++axis)
      require(axes[axis] == axis, "loop: a column reduction over axes {}", axes);
    return;
  }
  require(shape == space || shape == per_row, "loop: {} of shape {} in space {}", name(node.op), shape,
          space);
  if (node.op == Op::roll)
    require(body.node(node.inputs[0]).op == Op::input, "loop: a roll of something that is no leaf");
  require(node.op == Op::broadcast || node.op == Op::roll || kind(node.op) == OpKind::elementwise ||
              kind(node.op) == OpKind::leaf,
          "loop: {} cannot stand in a body", name(node.op));
}

}  // namespace

void verify_loop(const Graph& graph, const Node& loop) {
  const Graph& body = *loop.attributes.body("body");
  const Shape& space = loop.attributes.list("space");
  require(space.rank() >= 1, "loop: a space without axes");
  Shape per_row = space;
  per_row[space.rank() - 1] = 1;
  verify(body);
  for (int32_t i = 0; i < body.size(); ++i) {
    const Node& node = body.node(i);
    if (node.op != Op::input) {
      // A leaf's roll keeps the leaf's shape.
      if (node.op != Op::roll) verify_interior(body, node, space, per_row);
      continue;
    }
    verify_leaf(node, space);
    const auto index = static_cast<size_t>(node.attributes.integer("index"));
    require(index < loop.inputs.size() && graph.type(loop.inputs[index]) == node.outputs[0],
            "loop: leaf {} is not what the node's input {} is", i, index);
  }
}

}  // namespace nf
