// Bodies of fused loops and tensors in memory to run them on, for the tests of every backend.
#pragma once

#include <cstddef>
#include <cstring>
#include <span>
#include <string>
#include <vector>

#include "base/tensor_view.h"
#include "nf/graph.h"
#include "tests/support/tensors.h"

namespace nf::test {

// A tensor in a block of memory of its own, with room between its elements that must stay as it is.
class Memory {
 public:
  // How the elements lie: dense; the innermost axes exchanged; a slice of wider rows; backwards.
  enum class Layout { dense, transposed, sliced, reversed };

  Memory(DType dtype, const Shape& shape, Layout layout = Layout::dense) {
    Shape padded = shape;
    int64_t first = 0;
    if (layout == Layout::sliced && !shape.empty()) padded[shape.rank() - 1] += 5;
    Strides strides = dense_strides(padded);
    if (layout == Layout::sliced) first = 3;
    if (layout == Layout::transposed && shape.rank() >= 2) {
      const int last = shape.rank() - 1;
      std::swap(padded[last], padded[last - 1]);
      strides = dense_strides(padded);
      std::swap(strides[last], strides[last - 1]);
    }
    if (layout == Layout::reversed && !shape.empty()) {
      first = (shape.back() - 1) * strides.back();
      strides[shape.rank() - 1] = -strides.back();
    }
    bytes_.assign(static_cast<size_t>(padded.elements() * size_of(dtype)), std::byte{0x5a});
    view_ = {bytes_.data() + first * size_of(dtype), dtype, shape, strides};
  }
  Memory(Memory&&) = default;  // the view's address stays good
  Memory(const Memory&) = delete;

  const TensorView& view() const { return view_; }
  const std::vector<std::byte>& bytes() const { return bytes_; }

  void* address(int64_t element) const {
    int64_t offset = 0;
    for (int axis = view_.shape.rank() - 1; axis >= 0; --axis) {
      offset += element % view_.shape[axis] * view_.strides[axis];
      element /= view_.shape[axis];
    }
    return static_cast<std::byte*>(view_.data) + offset * size_of(view_.dtype);
  }

  double get(int64_t element) const {
    const void* at = address(element);
    switch (view_.dtype) {
      case DType::f32: return static_cast<double>(*static_cast<const float*>(at));
      case DType::i32: return *static_cast<const int32_t*>(at);
      case DType::bf16: return static_cast<double>(to_float(*static_cast<const bf16*>(at)));
      case DType::f16: return static_cast<double>(to_float(*static_cast<const f16*>(at)));
      default: return *static_cast<const uint8_t*>(at);
    }
  }

  void set(int64_t element, double value) {
    void* at = address(element);
    switch (view_.dtype) {
      case DType::f32: *static_cast<float*>(at) = static_cast<float>(value); break;
      case DType::i32: *static_cast<int32_t*>(at) = static_cast<int32_t>(value); break;
      case DType::bf16: *static_cast<bf16*>(at) = to_bf16(static_cast<float>(value)); break;
      case DType::f16: *static_cast<f16*>(at) = to_f16(static_cast<float>(value)); break;
      default: *static_cast<uint8_t*>(at) = static_cast<uint8_t>(value);
    }
  }

  void fill(Random& random) {
    for (int64_t i = 0; i < view_.shape.elements(); ++i) {
      const bool whole = view_.dtype == DType::i32 || view_.dtype == DType::u8;
      set(i, view_.dtype == DType::boolean ? static_cast<double>(random.integer(0, 1))
             : whole                       ? static_cast<double>(random.integer(0, 9))
                                           : random.normal());
    }
  }

  // The same elements, whatever the layouts: bit for bit.
  bool same(const Memory& other) const {
    for (int64_t i = 0; i < view_.shape.elements(); ++i)
      if (std::memcmp(address(i), other.address(i), static_cast<size_t>(size_of(view_.dtype))) != 0)
        return false;
    return true;
  }

 private:
  std::vector<std::byte> bytes_;
  TensorView view_;
};
using Layout = Memory::Layout;

std::vector<TensorView> views(const std::vector<Memory>& tensors);

// An input of a loop's body.
Value loop_leaf(Graph& body, int64_t index, DType dtype, const Shape& shape);
std::vector<Memory> make_outputs(const Graph& body, Layout layout = Layout::dense);

// A body under construction.
struct LoopBody {
  Graph graph;
  Shape space;
  std::vector<TensorType> leaves;

  explicit LoopBody(const Shape& s) : space(s) {}
  Value leaf(const Shape& shape, DType dtype = DType::f32);
  Value full(DType dtype = DType::f32) { return leaf(space, dtype); }
  Value per_row();
  Value per_column();
  Shape lead_axes() const;
  void output(Value value) { graph.output("y" + std::to_string(graph.outputs().size()), value); }

  std::vector<Memory> inputs(uint64_t seed, bool in_any_layout = false) const;
};

// All that the contract allows, with leaves of random shapes and dtypes.
void fill_randomly(LoopBody& body, uint64_t seed);

// Spaces of all kinds: small and large, of any rank, with rows short and long.
const std::vector<Shape>& loop_spaces();

// ---- bodies that models are made of
void rms_norm_with_gain(LoopBody& body);
void softmax_loop(LoopBody& body);
void swiglu_loop(LoopBody& body);

using BuildBody = void (*)(LoopBody& body);
std::span<const BuildBody> model_bodies();

// What the interpreter says that the outputs are.
std::vector<Tensor> interpret_loop(const Graph& body, const Shape& space, const std::vector<Memory>& inputs);

}  // namespace nf::test
