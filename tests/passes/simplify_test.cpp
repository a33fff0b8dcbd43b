// Each rule of simplify by a graph that shows it, and that the result means the same.
#include <doctest/doctest.h>

#include <cmath>

#include "tests/passes/passes_support.h"
#include "tests/support/graphs.h"

using namespace nf;

namespace {

// Leaves for the cases: a square f32 matrix, a second one, and narrow ones.
struct Leaves {
  Graph graph;
  Value x = input(graph, "x", DType::f32, {4, 6});
  Value y = input(graph, "y", DType::f32, {4, 6});
  Value narrow = input(graph, "narrow", DType::bf16, {4, 6});
  Value whole = input(graph, "whole", DType::i32, {4, 6});
};

test::Bindings bindings() {
  return {{"x", test::random_tensor({4, 6}, 1)},
          {"y", test::random_tensor({4, 6}, 2)},
          {"narrow", test::random_integers({4, 6}, 3, -8, 8)},
          {"whole", test::random_integers({4, 6}, 4, -8, 8)}};
}

// The graph of one value after simplify, checked to be well formed and to mean the same.
GraphPtr simplified(Value value) {
  value.graph->output("value", value);
  const GraphPtr result = simplify(*value.graph);
  verify(*result);
  CHECK(result->type(result->outputs().back().value) == value.type());
  CHECK(test::largest_error(test::run_reference(*result, bindings()).back(),
                            test::run_reference(*value.graph, bindings()).back()) < 1e-12);
  return result;
}

// The simplified value as text without types: "mul(x, 2)".
std::string term(const Graph& graph, ValueId id) {
  const Node& node = graph.node(id);
  if (node.op == Op::input) return node.attributes.text("name");
  if (node.op == Op::constant) return fmt::format("{}", node.attributes.real("value"));
  std::vector<std::string> operands;
  for (ValueId operand : node.inputs) operands.push_back(term(graph, operand));
  return fmt::format("{}({})", name(node.op), fmt::join(operands, ", "));
}

std::string term_of(Value value) {
  const GraphPtr graph = simplified(value);
  return term(*graph, graph->outputs().back().value);
}

}  // namespace

TEST_CASE("simplify: neutral elements vanish") {
  Leaves l;
  CHECK(term_of(l.x + 0.0) == "x");
  CHECK(term_of(0.0 + l.x) == "x");
  CHECK(term_of(l.x - 0.0) == "x");
  CHECK(term_of(l.x * 1.0) == "x");
  CHECK(term_of(1.0 * l.x) == "x");
  CHECK(term_of(l.x / 1.0) == "x");
  CHECK(term_of(-(-l.x)) == "x");
}

TEST_CASE("simplify: what looks neutral and is not stays") {
  Leaves l;
  CHECK(term_of(0.0 - l.x) == "sub(0, x)");
  CHECK(term_of(1.0 / l.x) == "div(1, x)");
  CHECK(term_of(l.x * 0.0) == "mul(x, 0)");  // 0 NaN is not 0
}

TEST_CASE("simplify: constants stand right, and factors merge where that is exact") {
  Leaves l;
  CHECK(term_of(3.0 * l.x) == "mul(x, 3)");
  CHECK(term_of(l.x * 3.0 * 2.0) == "mul(x, 6)");
  CHECK(term_of(l.x * 0.5 * 3.0) == "mul(x, 1.5)");
  CHECK(term_of(l.x * 3.0 * 5.0) == "mul(mul(x, 3), 5)");
}

TEST_CASE("simplify: constants fold in double") {
  Leaves l;
  const Value two = constant(l.graph, 2), three = constant(l.graph, 3);
  CHECK(term_of(two + three) == "5");
  CHECK(term_of(two - three) == "-1");
  CHECK(term_of(two / three) == fmt::format("{}", 2.0 / 3.0));
  CHECK(term_of(exp(two)) == fmt::format("{}", std::exp(2.0)));
  CHECK(term_of(log(two)) == fmt::format("{}", std::log(2.0)));
  CHECK(term_of(sqrt(two)) == fmt::format("{}", std::sqrt(2.0)));
  CHECK(term_of(rsqrt(constant(l.graph, 4))) == "0.5");
  CHECK(term_of(abs(-two)) == "2");
  CHECK(term_of(less(two, three)) == "1");
  CHECK(term_of(equal(two, three)) == "0");
  CHECK(term_of(where(less_equal(three, two), two, three)) == "3");
  CHECK(term_of(l.x * (two - 1.0)) == "x");
}

TEST_CASE("simplify: integers that may wrap are not folded") {
  Graph graph;
  const Value large = constant(graph, 65536, DType::i32);
  graph.output("value", large * large);
  CHECK(test::count(*simplify(graph), Op::mul) == 1);
}

TEST_CASE("simplify: casts") {
  Leaves l;
  CHECK(term_of(cast(l.x, DType::f32)) == "x");
  CHECK(term_of(cast(cast(l.narrow, DType::f32), DType::bf16)) == "narrow");
  CHECK(term_of(cast(cast(l.narrow, DType::f32), DType::f64)) == "cast(narrow)");
  CHECK(term_of(cast(cast(l.x, DType::bf16), DType::f32)) == "cast(cast(x))");  // rounds: stays
  CHECK(term_of(cast(cast(l.whole, DType::f32), DType::i32)) == "cast(cast(whole))");
  CHECK(term_of(cast(constant(l.graph, 2.75), DType::i32)) == "2");
  CHECK(term_of(cast(constant(l.graph, 2.75), DType::boolean)) == "1");
  CHECK(term_of(cast(reshape(l.x, {24}), DType::bf16)) == "reshape(cast(x))");
  CHECK(term_of(cast(transpose(l.x, 0, 1), DType::bf16)) == "transpose(cast(x))");
  CHECK(term_of(cast(transpose(l.narrow, 0, 1), DType::f32)) == "cast(transpose(narrow))");
  CHECK(term_of(cast(concat({l.x, l.y}, 0), DType::bf16)) == "concat(cast(x), cast(y))");
}

TEST_CASE("simplify: movement that does nothing, and movement of constants") {
  Leaves l;
  CHECK(term_of(reshape(l.x, {4, 6})) == "x");
  CHECK(term_of(transpose(l.x, {0, 1})) == "x");
  CHECK(term_of(broadcast_to(l.x, {4, 6})) == "x");
  CHECK(term_of(slice(l.x, 0, 0, 4)) == "x");
  CHECK(term_of(roll(l.x, 0)) == "x");
  const Value ones = constant_like(l.x, 1);
  CHECK(term_of(reshape(ones, {24})) == "1");
  CHECK(term_of(transpose(ones, 0, 1)) == "1");
  CHECK(term_of(slice(ones, 1, 2, 3)) == "1");
  CHECK(term_of(roll(ones, 2)) == "1");
  CHECK(term_of(broadcast_to(constant(l.graph, 1), {3, 5})) == "1");
}

TEST_CASE("simplify: movement of movement is one movement") {
  Leaves l;
  CHECK(term_of(reshape(reshape(l.x, {24}), {2, 12})) == "reshape(x)");
  CHECK(term_of(reshape(reshape(l.x, {24}), {4, 6})) == "x");
  CHECK(term_of(transpose(transpose(l.x, 0, 1), 0, 1)) == "x");
  const Value cube = reshape(l.x, {2, 2, 6});
  CHECK(term_of(transpose(transpose(cube, {1, 2, 0}), {1, 2, 0})) == "transpose(reshape(x))");
  const Value corner = slice(slice(l.x, 0, 0, 1), 1, 0, 1);
  CHECK(term_of(broadcast_to(broadcast_to(corner, {4, 1}), {4, 6})) == "broadcast(slice(x))");
  CHECK(term_of(slice(slice(l.x, 0, 1, 3), 0, 1, 2)) == "slice(x)");
  CHECK(term_of(slice(slice(l.x, 0, 1, 3), 1, 2, 2)) == "slice(x)");
  CHECK(term_of(roll(roll(l.x, 2), 3)) == "roll(x)");
  CHECK(term_of(roll(roll(l.x, 2), 4)) == "x");
}

TEST_CASE("simplify: a slice of a concat is a slice of the part it lies in") {
  Leaves l;
  const Value both = concat({l.x, l.y}, 1);
  CHECK(term_of(slice(both, 1, 0, 6)) == "x");
  CHECK(term_of(slice(both, 1, 6, 6)) == "y");
  CHECK(term_of(slice(both, 1, 7, 2)) == "slice(y)");
  CHECK(term_of(slice(both, 1, 5, 2)) == "slice(concat(x, y))");
}

TEST_CASE("simplify: a roll goes down to what loops can roll") {
  Leaves l;
  CHECK(term_of(roll(l.x * l.y, 3)) == "mul(roll(x), roll(y))");
  CHECK(term_of(roll(exp(l.x) * 3.0, 3)) == "mul(exp(roll(x)), 3)");
  const Value column = slice(l.x, 1, 0, 1);
  CHECK(term_of(roll(l.x * broadcast_to(column, {4, 6}), 3)) == "mul(roll(x), broadcast(slice(x)))");
}

TEST_CASE("simplify: padded gradients of slices add up to one concat") {
  Leaves l;
  const Value zeros = constant_like(l.x, 0);
  CHECK(term_of(concat({l.x, zeros}, 1) + concat({zeros, l.y}, 1)) == "concat(x, y)");
  CHECK(term_of(concat({l.x, zeros}, 1) + concat({l.y, zeros}, 1)) == "concat(add(x, y), 0)");
}

TEST_CASE("simplify: dead code goes, effects and the order of outputs stay") {
  Graph graph;
  const Value x = input(graph, "x", DType::f32, {3});
  const Value s = state(graph, "s", DType::f32, {3});
  exp(x);
  assign(s, x + s);
  graph.output("b", x * 2.0);
  graph.output("a", x * 3.0);
  const GraphPtr result = simplify(graph);
  CHECK(test::count(*result, Op::exp) == 0);
  CHECK(result->effects().size() == 1);
  CHECK(result->outputs()[0].name == "b");
  CHECK(result->outputs()[1].name == "a");
}

TEST_CASE("simplify: a second time changes nothing") {
  for (const std::string variant : test::kVariants) {
    CAPTURE(variant);
    const GraphPtr once = simplify(*test::tiny_step(variant));
    CHECK(simplify(*once)->hash() == once->hash());
  }
}
