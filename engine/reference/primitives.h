// The interpreter's kernels: one plain function per primitive, found by op.
#pragma once

#include <span>

#include "nf/graph.h"
#include "reference/interpreter.h"

namespace nf::reference {

// What a kernel sees: the node, the type of its single output, and the values of its inputs.
struct Call {
  const Node& node;
  std::span<const Tensor* const> inputs;

  const TensorType& type() const { return node.outputs[0]; }
  const Shape& shape() const { return node.outputs[0].shape; }
  const Tensor& input(int index) const { return *inputs[static_cast<size_t>(index)]; }
};
using Kernel = Tensor (*)(const Call& call);

struct KernelRow {
  Op op;
  Kernel kernel;
};
// The tables, one per file; leaves that read bindings, composites, loops and state belong to the interpreter
// itself.
std::span<const KernelRow> elementwise_kernels();  // primitives_elementwise.cpp
std::span<const KernelRow> movement_kernels();     // primitives_movement.cpp, with the constant leaves
std::span<const KernelRow> sum_kernels();          // primitives_sum.cpp: reductions and matmul

// The kernel of a primitive, or null.
Kernel find_kernel(Op op);

// A tensor of zeros.
Tensor zeros(const Shape& shape);

// Calls visit(offset) for the elements of a tensor of this shape in row-major order, where offset is the dot
// product of the element's index and `strides`, plus `start`.
template <typename Visit>
void walk(const Shape& shape, const Strides& strides, int64_t start, Visit visit) {
  Shape index = Shape::filled(shape.rank(), 0);
  int64_t offset = start;
  for (int64_t element = 0, count = shape.elements(); element < count; ++element) {
    visit(offset);
    for (int axis = shape.rank() - 1; axis >= 0; --axis) {
      offset += strides[axis];
      if (++index[axis] < shape[axis]) break;
      offset -= strides[axis] * shape[axis];
      index[axis] = 0;
    }
  }
}

// A row number read from a tensor, checked against the table's size.
int64_t checked_row(double row, int64_t size, const Node& node);

}  // namespace nf::reference
