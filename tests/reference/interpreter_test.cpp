// The interpreter against values worked out by hand, or by the plainest independent loops.
#include "reference/interpreter.h"

#include <doctest/doctest.h>

#include <cmath>
#include <limits>

#include "base/philox.h"
#include "nf/ops.h"
#include "tests/support/graphs.h"

using namespace nf;
using nf::test::Bindings;
using nf::test::Tensor;
using nf::test::value_of;
using Numbers = std::vector<double>;

namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

// The numbers 0, 1, 2, … in a tensor.
Value counting(Graph& graph, const Shape& shape) {
  Numbers data(static_cast<size_t>(shape.elements()));
  for (size_t i = 0; i < data.size(); ++i) data[i] = static_cast<double>(i);
  return tensor(graph, data, shape);
}

double value_of_unary(Value (*function)(Value), double x) {
  Graph graph;
  return value_of(function(tensor(graph, {x}, {1}))).data[0];
}

Numbers value_of_binary(Value (*function)(Value, Value), const Numbers& a, const Numbers& b,
                        DType dtype = DType::f32) {
  Graph graph;
  const Shape shape{static_cast<int64_t>(a.size())};
  return value_of(function(tensor(graph, a, shape, dtype), tensor(graph, b, shape, dtype))).data;
}

std::string message_of(const Graph& graph, const Bindings& inputs, Bindings state = {}) {
  try {
    reference::evaluate(graph, inputs, state);
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

bool mentions(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

}  // namespace

TEST_CASE("reference: functions of one number") {
  CHECK(value_of_unary(neg, 2.5) == -2.5);
  CHECK(value_of_unary(nf::exp, 1.25) == std::exp(1.25));
  CHECK(value_of_unary(nf::log, 1.25) == std::log(1.25));
  CHECK(value_of_unary(nf::log, 0) == -kInfinity);
  CHECK(value_of_unary(nf::sqrt, 2) == std::sqrt(2.0));
  CHECK(value_of_unary(rsqrt, 4) == 0.5);
  CHECK(value_of_unary(nf::tanh, 0.3) == std::tanh(0.3));
  CHECK(value_of_unary(sigmoid, 0) == 0.5);
  CHECK(value_of_unary(sigmoid, -800) == 0);
  CHECK(value_of_unary(sigmoid, 800) == 1);
  CHECK(value_of_unary(nf::erf, 0.3) == std::erf(0.3));
  CHECK(value_of_unary(nf::abs, -3) == 3);
  CHECK(value_of_unary(nf::sin, 0.3) == std::sin(0.3));
  CHECK(value_of_unary(nf::cos, 0.3) == std::cos(0.3));
}

TEST_CASE("reference: functions of two numbers") {
  CHECK(value_of_binary(operator+, {1, 2}, {10, 20}) == Numbers{11, 22});
  CHECK(value_of_binary(operator-, {1, 2}, {10, 20}) == Numbers{-9, -18});
  CHECK(value_of_binary(operator*, {1, 2}, {10, 20}) == Numbers{10, 40});
  CHECK(value_of_binary(operator/, {1, -7}, {4, 2}) == Numbers{0.25, -3.5});
  CHECK(value_of_binary(operator/, {7, -7}, {2, 2}, DType::i32) == Numbers{3, -3});
  CHECK(value_of_binary(maximum, {1, 5}, {2, 3}) == Numbers{2, 5});
  CHECK(value_of_binary(minimum, {1, 5}, {2, 3}) == Numbers{1, 3});
  CHECK(value_of_binary(equal, {1, 2, 3}, {2, 2, 2}) == Numbers{0, 1, 0});
  CHECK(value_of_binary(less, {1, 2, 3}, {2, 2, 2}) == Numbers{1, 0, 0});
  CHECK(value_of_binary(less_equal, {1, 2, 3}, {2, 2, 2}) == Numbers{1, 1, 0});
  const double nan = std::nan("");
  for (const auto& [a, b] : {std::pair{nan, 1.0}, std::pair{1.0, nan}}) {
    CHECK(std::isnan(value_of_binary(maximum, {a}, {b})[0]));
    CHECK(std::isnan(value_of_binary(minimum, {a}, {b})[0]));
  }
}

TEST_CASE("reference: where and cast") {
  Graph graph;
  const Value x = tensor(graph, {-1.5, 0, 2.75}, {3});
  const Value condition = less(x, constant_like(x, 0));
  CHECK(value_of(where(condition, x, x * 10.0)).data == Numbers{-1.5, 0, 27.5});
  CHECK(value_of(cast(x, DType::i32)).data == Numbers{-1, 0, 2});
  CHECK(value_of(cast(x, DType::boolean)).data == Numbers{1, 0, 1});
  CHECK(value_of(cast(x + 1.0 / 3, DType::bf16)).data == value_of(x + 1.0 / 3).data);
}

TEST_CASE("reference: leaves") {
  Graph graph;
  CHECK(value_of(broadcast_to(constant(graph, 2.5), {2, 2})).data == Numbers{2.5, 2.5, 2.5, 2.5});
  CHECK(value_of(iota(graph, {2, 3}, 0)).data == Numbers{0, 0, 0, 1, 1, 1});
  CHECK(value_of(iota(graph, {2, 3}, 1)).data == Numbers{0, 1, 2, 0, 1, 2});
}

TEST_CASE("reference: philox follows its key, stream and element number") {
  Graph graph;
  const Value rng = tensor(graph, {5, -6, 7, 8}, {4}, DType::i32);  // as i32, -6 stands for the word 2^32 - 6
  const Tensor bits = value_of(philox(rng, {3, 3}, 0x123456789ABCDEF0U));
  const PhiloxKey key{5U ^ (7U * 0x9E3779B9U), 0xFFFFFFFAU ^ (8U * 0x85EBCA6BU)};
  for (size_t n = 0; n < 9; ++n)
    CHECK(bits.data[n] == static_cast<double>(philox_uniform(philox_word(n, 0x123456789ABCDEF0U, key))));
}

TEST_CASE("reference: views") {
  Graph graph;
  const Value x = counting(graph, {2, 3});
  CHECK(value_of(reshape(x, {3, 2})).shape == Shape{3, 2});
  CHECK(value_of(reshape(x, {3, 2})).data == Numbers{0, 1, 2, 3, 4, 5});
  CHECK(value_of(transpose(x, {1, 0})).data == Numbers{0, 3, 1, 4, 2, 5});
  CHECK(value_of(slice(x, 1, 1, 2)).data == Numbers{1, 2, 4, 5});
  CHECK(value_of(slice(slice(x, 0, 1, 1), -1, 0, 2)).data == Numbers{3, 4});
  CHECK(value_of(broadcast_to(slice(x, 0, 1, 1), {2, 3})).data == Numbers{3, 4, 5, 3, 4, 5});
  CHECK(value_of(broadcast_to(slice(x, 1, 2, 1), {2, 2})).data == Numbers{2, 2, 5, 5});
  // An odd permutation that is not its own inverse: y[c, a, b] = x[a, b, c].
  const Tensor y = value_of(transpose(counting(graph, {2, 3, 4}), {2, 0, 1}));
  CHECK(y.shape == Shape{4, 2, 3});
  for (int c = 0; c < 4; ++c)
    for (int a = 0; a < 2; ++a)
      for (int b = 0; b < 3; ++b)
        CHECK(y.data[static_cast<size_t>((c * 2 + a) * 3 + b)] == (a * 3 + b) * 4 + c);
}

TEST_CASE("reference: concat, roll, gather, scatter_add") {
  Graph graph;
  const Value x = counting(graph, {2, 3});
  const Value y = x + 10.0;
  CHECK(value_of(concat({x, y}, 0)).data == Numbers{0, 1, 2, 3, 4, 5, 10, 11, 12, 13, 14, 15});
  CHECK(value_of(concat({x, slice(y, 1, 0, 1)}, 1)).data == Numbers{0, 1, 2, 10, 3, 4, 5, 13});
  CHECK(value_of(roll(x, 1)).data == Numbers{2, 0, 1, 5, 3, 4});
  CHECK(value_of(roll(x, -1)).data == Numbers{1, 2, 0, 4, 5, 3});
  const Value rows = tensor(graph, {1, 0, 1}, {3, 1}, DType::i32);
  CHECK(value_of(gather(x, rows)).shape == Shape{3, 1, 3});
  CHECK(value_of(gather(x, rows)).data == Numbers{3, 4, 5, 0, 1, 2, 3, 4, 5});
  CHECK(value_of(scatter_add(rows, gather(x, rows), 3)).data == Numbers{0, 1, 2, 6, 8, 10, 0, 0, 0});
}

TEST_CASE("reference: reductions over any axes") {
  Graph graph;
  const Value x = counting(graph, {2, 3, 2});
  CHECK(value_of(reduce_sum(x, {2})).data == Numbers{1, 5, 9, 13, 17, 21});
  CHECK(value_of(reduce_sum(x, {0, 2})).data == Numbers{14, 22, 30});
  CHECK(value_of(reduce_sum(x, {0, 2})).shape == Shape{1, 3, 1});
  CHECK(value_of(reduce_sum(x, {0, 2}, false)).shape == Shape{3});
  CHECK(value_of(sum(x)).data == Numbers{66});
  CHECK(value_of(reduce_max(-x, {1})).data == Numbers{0, -1, -6, -7});
  CHECK(value_of(mean(x, {0, 1, 2})).data == Numbers{5.5});
  const Value with_nan = tensor(graph, {1, std::nan(""), 3}, {3});
  CHECK(std::isnan(value_of(reduce_max(with_nan, {0})).data[0]));
}

TEST_CASE("reference: matmul in all transposes, batched and with one b") {
  for (const bool transpose_a : {false, true}) {
    for (const bool transpose_b : {false, true}) {
      for (const bool batched_b : {false, true}) {
        CAPTURE(transpose_a);
        CAPTURE(transpose_b);
        CAPTURE(batched_b);
        const int64_t m = 2, k = 3, n = 4, batches = 2;
        const Tensor a = test::random_tensor(transpose_a ? Shape{batches, k, m} : Shape{batches, m, k}, 1);
        Shape b_shape = transpose_b ? Shape{n, k} : Shape{k, n};
        if (batched_b) b_shape = Shape{batches, b_shape[0], b_shape[1]};
        const Tensor b = test::random_tensor(b_shape, 2);
        Graph graph;
        const Value product = matmul(tensor(graph, a.data, a.shape), tensor(graph, b.data, b.shape),
                                     {.transpose_a = transpose_a, .transpose_b = transpose_b});
        const Tensor y = value_of(product);
        REQUIRE(y.shape == Shape{batches, m, n});
        for (int64_t s = 0; s < batches; ++s)
          for (int64_t i = 0; i < m; ++i)
            for (int64_t j = 0; j < n; ++j) {
              double expected = 0;
              for (int64_t p = 0; p < k; ++p) {
                const int64_t a_at = s * m * k + (transpose_a ? p * m + i : i * k + p);
                const int64_t b_at = (batched_b ? s * k * n : 0) + (transpose_b ? j * k + p : p * n + j);
                expected += a.data[static_cast<size_t>(a_at)] * b.data[static_cast<size_t>(b_at)];
              }
              CHECK(y.data[static_cast<size_t>((s * m + i) * n + j)] ==
                    doctest::Approx(expected).epsilon(1e-14));
            }
      }
    }
  }
}

TEST_CASE("reference: assign takes effect after everything is read") {
  Graph graph;
  const Value counter = state(graph, "counter", DType::f32, {2});
  assign(counter, counter + 1.0);
  graph.output("seen", counter * 10.0);
  Bindings bindings{{"counter", {{2}, {3, 4}}}};
  CHECK(reference::evaluate(graph, {}, bindings)[0].data == Numbers{30, 40});
  CHECK(bindings["counter"].data == Numbers{4, 5});
}

TEST_CASE("reference: assign_slice overwrites along axis 1 and returns what the state then holds") {
  Graph graph;
  const Value cache = state(graph, "cache", DType::f32, {2, 3, 2});
  const Value offset = input(graph, "offset", DType::i32, {});
  graph.output("cache", assign_slice(cache, counting(graph, {2, 2, 2}) + 1.0, offset));
  Bindings bindings{{"cache", {{2, 3, 2}, Numbers(12, 0)}}};
  const Tensor y = reference::evaluate(graph, {{"offset", {{}, {1}}}}, bindings)[0];
  CHECK(y.data == Numbers{0, 0, 1, 2, 3, 4, 0, 0, 5, 6, 7, 8});
  CHECK(bindings["cache"].data == y.data);
  CHECK(mentions(message_of(graph, {{"offset", {{}, {2}}}}, bindings), "does not fit into [2, 3, 2]"));
  CHECK(mentions(message_of(graph, {{"offset", {{}, {-1}}}}, bindings), "does not fit"));
}

TEST_CASE("reference: only what is needed runs, and what is missing is named") {
  Graph graph;
  const Value x = input(graph, "x", DType::f32, {2});
  input(graph, "unused", DType::f32, {2});
  graph.output("y", x + 1.0);
  Bindings none;
  CHECK(reference::evaluate(graph, {{"x", {{2}, {1, 2}}}}, none)[0].data == Numbers{2, 3});
  CHECK(mentions(message_of(graph, {}), "input x is not bound"));
  CHECK(mentions(message_of(graph, {{"x", {{3}, {1, 2, 3}}}}), "expected [2]"));
}

TEST_CASE("reference: a row that does not exist is an error that names it") {
  for (const double row : {4.0, -1.0}) {
    Graph gathers;
    const Value rows = input(gathers, "rows", DType::i32, {1});
    gathers.output("y", gather(counting(gathers, {4, 2}), rows));
    CHECK(mentions(message_of(gathers, {{"rows", {{1}, {row}}}}), fmt::format("row {}", row)));
    CHECK(mentions(message_of(gathers, {{"rows", {{1}, {row}}}}), "4 rows"));
    Graph scatters;
    const Value targets = input(scatters, "rows", DType::i32, {1});
    scatters.output("y", scatter_add(targets, counting(scatters, {1, 2}), 4));
    CHECK(mentions(message_of(scatters, {{"rows", {{1}, {row}}}}), "4 rows"));
  }
}

TEST_CASE("reference: a loop runs its body") {
  auto body = std::make_shared<Graph>();
  const auto leaf = [&](int64_t index, const Shape& shape) {
    return body->add(
        Op::input, {},
        {{"name", std::to_string(index)}, {"index", index}, {"dtype", int64_t{0}}, {"shape", shape}});
  };
  const Value x = leaf(0, {2, 3}), row = leaf(1, {1, 3});
  const Value scaled = x * row;
  body->output("scaled", scaled);
  body->output("sum", reduce_sum(scaled, {1}));
  Graph graph;
  const Values inputs{counting(graph, {2, 3}), tensor(graph, {1, 10, 100}, {1, 3})};
  const Value loop = graph.add(Op::loop, inputs, {{"body", Body(body)}, {"space", Shape{2, 3}}});
  graph.output("scaled", loop);
  graph.output("sum", graph.value({loop.id.node, 1}));
  Bindings none;
  const std::vector<Tensor> y = reference::evaluate(graph, {}, none);
  CHECK(y[0].data == Numbers{0, 10, 200, 3, 40, 500});
  CHECK(y[1].data == Numbers{210, 543});
}

TEST_CASE("reference: finds the node where a NaN came from") {
  Graph graph;
  const Value x = input(graph, "x", DType::f32, {2});
  const Value root = nf::sqrt(x);
  graph.output("y", root + nf::exp(root));
  CHECK(reference::first_non_finite(graph, {{"x", {{2}, {1, 2}}}}, {}) == -1);
  CHECK(reference::first_non_finite(graph, {{"x", {{2}, {1, -2}}}}, {}) == root.id.node);
}
