// Views element by element: a window's strides must find what moving the elements would.
#include <doctest/doctest.h>

#include <numeric>

#include "nf/ops.h"
#include "passes/views.h"
#include "tests/support/graphs.h"

using namespace nf;

namespace {

// The elements that a view shows, in row-major order.
std::vector<double> elements(const std::vector<double>& memory, const Shape& shape, int64_t offset,
                             const Strides& strides) {
  std::vector<double> result;
  for (int64_t i = 0; i < shape.elements(); ++i) {
    int64_t at = offset, rest = i;
    for (int axis = shape.rank() - 1; axis >= 0; --axis) {
      at += rest % shape[axis] * strides[axis];
      rest /= shape[axis];
    }
    result.push_back(memory.at(static_cast<size_t>(at)));
  }
  return result;
}

test::Tensor counted(const Shape& shape) {
  test::Tensor tensor{shape, std::vector<double>(static_cast<size_t>(shape.elements()))};
  std::iota(tensor.data.begin(), tensor.data.end(), 0.0);
  return tensor;
}

// Whether `value` is a view of the graph's input "x" that shows what the interpreter computes.
bool is_true_view(Value value, const Shape& source) {
  const auto view = view_of(*value.graph, value.id);
  if (!view || value.graph->node(view->root).op != Op::input) return false;
  const test::Tensor x = counted(source);
  return elements(x.data, value.shape(), view->offset, view->strides) ==
         test::value_of(value, {{"x", x}}).data;
}

}  // namespace

TEST_CASE("views: chains of movement show what they move") {
  const Shape source = {4, 1, 6, 2};
  Graph graph;
  const Value x = input(graph, "x", DType::f32, source);
  CHECK(is_true_view(x, source));
  CHECK(is_true_view(transpose(x, {3, 0, 2, 1}), source));
  CHECK(is_true_view(reshape(x, {2, 2, 12}), source));
  CHECK(is_true_view(slice(x, 2, 1, 4), source));
  CHECK(is_true_view(broadcast_to(x, {3, 4, 5, 6, 2}), source));
  CHECK(is_true_view(slice(transpose(slice(x, 0, 1, 2), 0, 2), 0, 2, 3), source));
  CHECK(is_true_view(reshape(transpose(x, 0, 2), {6, 2, 2, 2}), source));
  CHECK(is_true_view(slice(broadcast_to(slice(x, 3, 1, 1), source), 2, 3, 2), source));
}

TEST_CASE("views: a reshape over a seam needs a copy") {
  Graph graph;
  const Value x = input(graph, "x", DType::f32, {4, 6});
  CHECK_FALSE(view_of(graph, reshape(transpose(x, 0, 1), {24}).id));
  CHECK_FALSE(view_of(graph, reshape(slice(x, 1, 0, 3), {12}).id));
  CHECK_FALSE(view_of(graph, reshape(broadcast_to(x, {2, 4, 6}), {8, 6}).id));
  CHECK_FALSE(view_of(graph, transpose(reshape(slice(x, 1, 0, 3), {12, 1}), 0, 1).id));
}

TEST_CASE("views: what computes owns its memory") {
  Graph graph;
  const Value y = exp(input(graph, "x", DType::f32, {4, 6}));
  const auto view = view_of(graph, transpose(y, 0, 1).id);
  REQUIRE(view);
  CHECK(view->root == y.id);
  CHECK(view->strides == Strides{1, 6});
}

TEST_CASE("views: strides of reshapes") {
  CHECK(reshape_strides({4, 6}, {6, 1}, {24}) == Strides{1});
  CHECK(reshape_strides({4, 6}, {6, 1}, {2, 2, 3, 2}) == Strides{12, 6, 2, 1});
  CHECK(reshape_strides({4, 6}, {12, 2}, {24}) == Strides{2});
  CHECK(reshape_strides({4, 6}, {8, 1}, {4, 2, 3}) == Strides{8, 3, 1});
  CHECK_FALSE(reshape_strides({4, 6}, {8, 1}, {24}));
  CHECK_FALSE(reshape_strides({4, 6}, {1, 4}, {24}));
  CHECK(reshape_strides({4, 6}, {0, 0}, {24}) == Strides{0});
  CHECK(reshape_strides({1, 6}, {77, 1}, {6}) == Strides{1});
  CHECK(reshape_strides({}, {}, {1, 1})->rank() == 2);
  CHECK(reshape_strides({1, 1}, {5, 7}, {})->rank() == 0);
}

TEST_CASE("views: density and axes that join") {
  CHECK(is_dense({4, 6}, {6, 1}));
  CHECK(is_dense({4, 1, 6}, {6, 99, 1}));  // the stride of a single element says nothing
  CHECK(is_dense({}, {}));
  CHECK_FALSE(is_dense({4, 6}, {1, 4}));
  CHECK_FALSE(is_dense({4, 6}, {8, 1}));
  CHECK(collapsible({2, 3, 4}, {12, 4, 1}, 0, 3));
  CHECK(collapsible({2, 3, 4}, {99, 4, 1}, 1, 3));
  CHECK_FALSE(collapsible({2, 3, 4}, {99, 4, 1}, 0, 2));
  CHECK(collapsible({2, 1, 4}, {4, 77, 1}, 0, 3));
}

TEST_CASE("views: only movement without arithmetic or tables is a view") {
  for (const Op op : {Op::reshape, Op::transpose, Op::broadcast, Op::slice}) CHECK(is_view_op(op));
  for (const Op op : {Op::concat, Op::roll, Op::gather, Op::scatter_add, Op::cast, Op::input})
    CHECK_FALSE(is_view_op(op));
}
