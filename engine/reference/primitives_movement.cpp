// Movement primitives, and the leaves that need no binding.
#include <algorithm>
#include <array>
#include <cmath>

#include "base/philox.h"
#include "reference/primitives.h"

namespace nf::reference {
namespace {

// ---- leaves
Tensor constant(const Call& call) {
  Tensor y = zeros(call.shape());
  std::fill(y.data.begin(), y.data.end(), call.node.attributes.real("value"));
  return y;
}

Tensor tensor(const Call& call) { return {call.shape(), *call.node.attributes.data("data")}; }

Tensor iota(const Call& call) {
  const auto axis = static_cast<int>(call.node.attributes.integer("axis"));
  Tensor y{call.shape(), {}};
  Strides strides = Shape::filled(call.shape().rank(), 0);
  strides[axis] = 1;
  walk(call.shape(), strides, 0, [&](int64_t index) { y.data.push_back(static_cast<double>(index)); });
  return y;
}

// The key mixes the step into the seed, so that each step has its own stream of bits.
Tensor philox(const Call& call) {
  const auto word = [&](size_t i) {
    return static_cast<uint32_t>(static_cast<int64_t>(call.input(0).data[i]));
  };
  const PhiloxKey key = {word(0) ^ (word(2) * 0x9E3779B9U), word(1) ^ (word(3) * 0x85EBCA6BU)};
  const auto stream = static_cast<uint64_t>(call.node.attributes.integer("stream"));
  Tensor y = zeros(call.shape());
  for (size_t n = 0; n < y.data.size(); ++n)
    y.data[n] = static_cast<double>(philox_uniform(philox_word(n, stream, key)));
  return y;
}

// ---- views: the output is the input read with other strides
Tensor gather_strided(const Tensor& x, const Shape& shape, const Strides& strides, int64_t start) {
  Tensor y{shape, {}};
  y.data.reserve(static_cast<size_t>(shape.elements()));
  walk(shape, strides, start, [&](int64_t offset) { y.data.push_back(x.data[static_cast<size_t>(offset)]); });
  return y;
}

Tensor reshape(const Call& call) { return {call.shape(), call.input(0).data}; }

Tensor transpose(const Call& call) {
  const Strides from = dense_strides(call.input(0).shape);
  Strides strides;
  for (int64_t axis : call.node.attributes.list("permutation"))
    strides.push_back(from[static_cast<int>(axis)]);
  return gather_strided(call.input(0), call.shape(), strides, 0);
}

Tensor broadcast(const Call& call) {
  const Tensor& x = call.input(0);
  Strides strides = dense_strides(x.shape);
  for (int axis = 0; axis < x.shape.rank(); ++axis)
    if (x.shape[axis] == 1) strides[axis] = 0;
  return gather_strided(x, call.shape(), strides, 0);
}

Tensor slice(const Call& call) {
  const Shape& starts = call.node.attributes.list("starts");
  const Strides strides = dense_strides(call.input(0).shape);
  int64_t start = 0;
  for (int axis = 0; axis < starts.rank(); ++axis) start += starts[axis] * strides[axis];
  return gather_strided(call.input(0), call.shape(), strides, start);
}

// ---- copies
Tensor concat(const Call& call) {
  const auto axis = static_cast<int>(call.node.attributes.integer("axis"));
  const Strides strides = dense_strides(call.shape());
  Tensor y = zeros(call.shape());
  int64_t start = 0;
  for (const Tensor* part : call.inputs) {
    size_t i = 0;
    walk(part->shape, strides, start,
         [&](int64_t offset) { y.data[static_cast<size_t>(offset)] = part->data[i++]; });
    start += part->shape[axis] * strides[axis];
  }
  return y;
}

Tensor roll(const Call& call) {
  const Tensor& x = call.input(0);
  const int64_t n = x.shape.back();
  const int64_t shift = ((call.node.attributes.integer("shift") % n) + n) % n;
  Tensor y = zeros(x.shape);
  for (size_t i = 0; i < x.data.size(); ++i) {
    const int64_t column = static_cast<int64_t>(i) % n;
    y.data[i - static_cast<size_t>(column) + static_cast<size_t>((column + shift) % n)] = x.data[i];
  }
  return y;
}

Tensor gather(const Call& call) {
  const Tensor& table = call.input(0);
  const int64_t size = table.shape[0];
  const int64_t width =
      call.input(1).data.empty() ? 0 : call.shape().elements() / call.input(1).shape.elements();
  Tensor y{call.shape(), {}};
  for (double row : call.input(1).data) {
    const auto from = table.data.begin() + checked_row(row, size, call.node) * width;
    y.data.insert(y.data.end(), from, from + width);
  }
  return y;
}

Tensor scatter_add(const Call& call) {
  const Tensor& rows = call.input(0);
  const Tensor& updates = call.input(1);
  Tensor y = zeros(call.shape());
  const int64_t size = call.shape()[0];
  const int64_t width = rows.data.empty() ? 0 : updates.shape.elements() / rows.shape.elements();
  for (size_t i = 0; i < rows.data.size(); ++i) {
    const auto to = static_cast<size_t>(checked_row(rows.data[i], size, call.node) * width);
    for (size_t j = 0; j < static_cast<size_t>(width); ++j)
      y.data[to + j] += updates.data[i * static_cast<size_t>(width) + j];
  }
  return y;
}

constexpr std::array kRows = {
    KernelRow{Op::constant, constant},   KernelRow{Op::tensor, tensor},
    KernelRow{Op::iota, iota},           KernelRow{Op::philox, philox},
    KernelRow{Op::reshape, reshape},     KernelRow{Op::transpose, transpose},
    KernelRow{Op::broadcast, broadcast}, KernelRow{Op::slice, slice},
    KernelRow{Op::concat, concat},       KernelRow{Op::roll, roll},
    KernelRow{Op::gather, gather},       KernelRow{Op::scatter_add, scatter_add},
};

}  // namespace

std::span<const KernelRow> movement_kernels() { return kRows; }

int64_t checked_row(double row, int64_t size, const Node& node) {
  require(row >= 0 && row < static_cast<double>(size),
          "reference: {}: row {} does not exist, the table has {} rows", name(node.op), row, size);
  return static_cast<int64_t>(row);
}

}  // namespace nf::reference
